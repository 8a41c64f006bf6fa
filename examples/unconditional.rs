//! Pictures of one kind from noise alone: faces, churches, bedrooms.
//!
//! ```sh
//! cargo run --release --example unconditional -- --model model.ckpt --preset ffhq256
//! # Diffusion of the pixels themselves (the paper's f = 1): a YAML with `IdentityFirstStage`, or a `DDPM` without a
//! # first stage.
//! cargo run --release --example unconditional -- --model pixels.ckpt --config pixels.yaml --steps 200
//! ```

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::Result;
use common::latent::{LatentModelArgs, LatentSamplingArgs};
use common::progress::Bar;

/// Pictures of one kind from noise alone: faces, churches, bedrooms.
#[derive(Parser)]
#[command(name = "unconditional")]
struct Arguments {
    #[command(flatten)]
    model: LatentModelArgs,
    #[command(flatten)]
    sampling: LatentSamplingArgs,
    /// Pictures to draw
    #[arg(long, default_value_t = 1)]
    count: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let sampling = &arguments.sampling;
    sampling.output.check()?;
    let model = arguments.model.load("celebahq256")?;
    let run = model.unconditional(arguments.count)?;
    let drawn = sampling.apply(&model, run)?.run_observed(&mut Bar::new())?;
    sampling.save(&drawn)
}

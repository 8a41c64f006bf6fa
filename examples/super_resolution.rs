//! A picture four times as large; large ones in patches.
//!
//! ```sh
//! cargo run --release --example super_resolution -- --model model.ckpt --image small.png --eta 1
//! ```

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::Result;
use common::latent::{LatentModelArgs, LatentSamplingArgs};
use common::progress::Bar;

/// A picture four times as large; large ones in patches.
#[derive(Parser)]
#[command(name = "super_resolution")]
struct Arguments {
    #[command(flatten)]
    model: LatentModelArgs,
    #[command(flatten)]
    sampling: LatentSamplingArgs,
    /// The picture: PNG, JPEG, WebP or BMP
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let sampling = &arguments.sampling;
    sampling.output.check()?;
    let picture = ldm::image::to_rgb8(&ldm::image::open(&arguments.image)?);
    let model = arguments.model.load("bsr_sr")?;
    let run = model.upscale(ldm::image::to_tensor(&picture, model.device()))?;
    let drawn = sampling.apply(&model, run)?.run_observed(&mut Bar::new())?;
    sampling.save(&drawn)
}

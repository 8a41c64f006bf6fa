//! Pictures of ImageNet's classes.
//!
//! ```sh
//! cargo run --release --example class_conditional -- --model model.ckpt --class 207 --guidance 3 --null-class 1000
//! ```

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::Result;
use common::latent::{LatentModelArgs, LatentSamplingArgs};
use common::progress::Bar;

/// Pictures of ImageNet's classes.
#[derive(Parser)]
#[command(name = "class_conditional")]
struct Arguments {
    #[command(flatten)]
    model: LatentModelArgs,
    #[command(flatten)]
    sampling: LatentSamplingArgs,
    /// The class of each picture
    #[arg(long = "class", required = true, num_args = 1..)]
    classes: Vec<i64>,
    /// The class that stands for none, which guidance leads away from: 1000 for cin256-v2
    #[arg(long)]
    null_class: Option<i64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let sampling = &arguments.sampling;
    sampling.output.check()?;
    let model = arguments.model.load("cin256-v2")?;
    let run = model.classes(&arguments.classes, arguments.null_class)?;
    let drawn = sampling.apply(&model, run).run_observed(&mut Bar::new())?;
    sampling.save(&drawn)
}

//! Pictures of texts with the paper's own text models, or diffusers' LDMTextToImagePipeline.
//!
//! ```sh
//! cargo run --release --example latent_text_to_image -- --model model.ckpt --guidance 5 \
//!     --prompt "a virus monster is playing guitar, oil on canvas"
//! ```

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::Result;
use common::latent::{LatentModelArgs, LatentSamplingArgs};
use common::progress::Bar;

/// Pictures of texts with the paper's own text models, or diffusers' LDMTextToImagePipeline.
#[derive(Parser)]
#[command(name = "latent_text_to_image")]
struct Arguments {
    #[command(flatten)]
    model: LatentModelArgs,
    #[command(flatten)]
    sampling: LatentSamplingArgs,
    /// What a picture should show; once for each picture
    #[arg(long = "prompt", required = true, num_args = 1..)]
    prompts: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let sampling = &arguments.sampling;
    sampling.output.check()?;
    let model = arguments.model.load("txt2img-1p4B")?;
    let run = model.texts(&arguments.prompts)?;
    let drawn = sampling.apply(&model, run)?.run_observed(&mut Bar::new())?;
    sampling.save(&drawn)
}

//! A part of a picture painted anew by the paper's inpainting model.
//!
//! ```sh
//! cargo run --release --example inpaint_latent -- --model model.ckpt --image bench.png --mask mask.png
//! ```

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::Result;
use common::latent::{LatentModelArgs, LatentSamplingArgs};
use common::progress::Bar;

/// A part of a picture painted anew by the paper's inpainting model.
#[derive(Parser)]
#[command(name = "inpaint_latent")]
struct Arguments {
    #[command(flatten)]
    model: LatentModelArgs,
    #[command(flatten)]
    sampling: LatentSamplingArgs,
    /// The picture: PNG, JPEG, WebP or BMP
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// White where the picture is painted anew, black where it is kept
    #[arg(long, value_name = "FILE")]
    mask: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let sampling = &arguments.sampling;
    sampling.output.check()?;
    let picture = ldm::image::to_rgb8(&ldm::image::open(&arguments.image)?);
    let mask = ldm::image::Mask::new(&ldm::image::open(&arguments.mask)?);
    let model = arguments.model.load("inpainting_big")?;
    let picture = ldm::image::to_tensor(&picture, model.device());
    let mut inpainting = model.inpaint(picture, mask.to_tensor(model.device()))?;
    inpainting.sampling = sampling.apply(&model, inpainting.sampling)?;
    let drawn = inpainting.run_observed(&mut Bar::new())?;
    sampling.save(&drawn)
}

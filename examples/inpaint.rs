//! A part of a picture is painted anew.
//!
//! ```sh
//! cargo run --release --example inpaint -- --model stable-diffusion-inpainting --image bench.png --mask mask.png \
//!     --prompt "a cat sitting on a bench"
//! ```

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::Result;
use common::model::ModelArgs;
use common::progress::Bar;
use common::sampling::SamplingArgs;

/// Paints a part of a picture anew, with an inpainting model (9 input channels) or any other.
#[derive(Parser)]
#[command(name = "inpaint")]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// The picture: PNG, JPEG, WebP or BMP
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// White where the picture is painted anew, black where it is kept
    #[arg(long, value_name = "FILE")]
    mask: PathBuf,
    /// How far to go from what was there: below 1 the old picture shows through [default: 1, SDXL 0.9999]
    #[arg(long)]
    strength: Option<f64>,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    arguments.sampling.fill(&arguments.model);
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { model: source, sampling, image, mask, strength } = arguments;
    sampling.output.check()?;
    let picture = ldm::image::open(image)?;
    let mask = ldm::image::open(mask)?;

    let model = source.load()?;
    let seed = sampling.seed();
    let request = model.inpaint(sampling.prompt()?, &picture, &mask);
    let mut request = sampling.apply(request, seed);
    if let Some(strength) = strength {
        request = request.strength(*strength);
    }
    if let Some([width, height]) = sampling.size(model.default_size) {
        request = request.size(width, height);
    }
    let output = request.run_observed(&mut Bar::new())?;

    let strength = strength.unwrap_or(model.family.defaults().inpaint_strength);
    let task = format!("Denoising strength: {strength}");
    sampling.output.save(&output.images, &sampling.parameters(source, &model, &output, seed, &task)?)
}

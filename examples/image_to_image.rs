//! A picture is redrawn as a prompt says.
//!
//! ```sh
//! cargo run --release --example image_to_image -- --model stable-diffusion-v1-5 --image sketch.png \
//!     --prompt "a castle on a hill, oil on canvas" --strength 0.7
//! ```

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::Result;
use common::model::ModelArgs;
use common::progress::Bar;
use common::sampling::SamplingArgs;

/// Redraws a picture as a prompt says, with a Stable Diffusion model (1.x, 2.x or XL).
#[derive(Parser)]
#[command(name = "image_to_image")]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// The picture to start from: PNG, JPEG, WebP or BMP
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// How far to go from it: near 0 it stays as it is, at 1 hardly anything is left of it [default: 0.8, SDXL 0.3]
    #[arg(long)]
    strength: Option<f64>,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    arguments.sampling.fill(&arguments.model);
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { model: source, sampling, image, strength } = arguments;
    sampling.output.check()?;
    let picture = ldm::image::open(image)?;

    let model = source.load()?;
    let seed = sampling.seed();
    let request = model.image_to_image(sampling.prompt()?, &picture);
    let mut request = sampling.apply(request, seed);
    if let Some(strength) = strength {
        request = request.strength(*strength);
    }
    if let Some([width, height]) = sampling.size([picture.width(), picture.height()]) {
        request = request.size(width, height);
    }
    let output = request.run_observed(&mut Bar::new())?;

    let strength = strength.unwrap_or(model.family.defaults().image_strength);
    let task = format!("Denoising strength: {strength}");
    sampling.output.save(&output.images, &sampling.parameters(source, &model, &output, seed, &task)?)
}

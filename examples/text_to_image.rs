//! A prompt becomes a picture.
//!
//! ```sh
//! cargo run --release --example text_to_image -- --model stable-diffusion-v1-5 --prompt "a lighthouse in a storm"
//! ```

mod common;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::{DType, Device, Tensor, TensorData};
use clap::Parser;
use common::Result;
use common::model::ModelArgs;
use common::output::check_folder;
use common::progress::Bar;
use common::sampling::SamplingArgs;
use ldm::nn::weights::{Saver, WeightFile};

/// Draws pictures of a prompt with a Stable Diffusion model (1.x, 2.x or XL).
#[derive(Parser)]
#[command(name = "text_to_image")]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Start from these standard normal latents instead of drawing them: safetensors with the key `latents`
    #[arg(long, value_name = "FILE")]
    latents: Option<PathBuf>,
    /// Write the final latents, as they are before decoding: safetensors with the key `latents`
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { model: source, sampling, .. } = arguments;
    sampling.output.check()?;
    if let Some(path) = &arguments.save_latents {
        check_folder(path, "--save-latents")?;
    }

    let model = source.load()?;
    let seed = sampling.seed();
    let mut request = sampling.apply(model.text_to_image(&sampling.prompt), seed);
    if let Some([width, height]) = sampling.size(model.default_size) {
        request = request.size(width, height);
    }
    if let Some(path) = &arguments.latents {
        request = request.latents(read_latents(path, model.device())?);
    }
    let output = request.run_observed(&mut Bar::new())?;

    let parameters = sampling.parameters(source, &model, &output, seed, "")?;
    sampling.output.save(&output.images, &parameters)?;
    if let Some(path) = &arguments.save_latents {
        Saver::new().add_tensor("latents", output.latents.into_data()).write(path)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// `[b, z, h / f, w / f]`.
fn read_latents(path: &Path, device: &Device) -> Result<Tensor<4>> {
    let (shape, values) = WeightFile::open(path)?.read_f32("latents")?;
    let shape: [usize; 4] = shape.try_into().map_err(|shape| {
        format!(
            "--latents {}: their shape is {shape:?}, not [batch, channels, height, width]",
            path.display()
        )
    })?;
    Ok(Tensor::from_data(TensorData::new(values, shape), (device, DType::F32)))
}

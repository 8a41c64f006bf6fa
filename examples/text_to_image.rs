//! A prompt becomes a picture.
//!
//! ```sh
//! cargo run --release --example text_to_image -- --prompt "woman firefighter, dark skin tone"    # the emoji's
//! cargo run --release --example text_to_image -- --model stable-diffusion-v1-5 --prompt "a lighthouse in a storm"
//! ```

mod common;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::{DType, Device, Tensor, TensorData};
use clap::Parser;
use common::Result;
use common::model::ModelArgs;
use common::output::{check_folder, sheet};
use common::progress::Bar;
use common::sampling::SamplingArgs;
use ldm::nn::weights::{Saver, WeightFile};

/// Draws pictures of a prompt with a Stable Diffusion model (1.x, 2.x or XL), or the small one of emoji that train_diffusion makes.
#[derive(Parser)]
#[command(name = "text_to_image")]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Draw a picture of each line of this file, instead of --prompt
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// Put all pictures on one sheet with this many columns
    #[arg(long, value_name = "COLUMNS")]
    sheet: Option<usize>,
    /// Start from these standard normal latents instead of drawing them: safetensors with the key `latents`
    #[arg(long, value_name = "FILE")]
    latents: Option<PathBuf>,
    /// Write the final latents, as they are before decoding: safetensors with the key `latents`
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    arguments.sampling.fill(&arguments.model);
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
    let mut request = match &arguments.prompts {
        None => model.text_to_image(sampling.prompt()?),
        Some(path) => model.text_to_image("").prompts(read_lines(path)?),
    };
    request = sampling.apply(request, seed);
    if let Some([width, height]) = sampling.size(model.default_size) {
        request = request.size(width, height);
    }
    if let Some(path) = &arguments.latents {
        request = request.latents(read_latents(path, model.device())?);
    }
    let output = request.run_observed(&mut Bar::new())?;

    let parameters = sampling.parameters(source, &model, &output, seed, "")?;
    match arguments.sheet {
        None => sampling.output.save(&output.images, &parameters)?,
        Some(columns) => sampling.output.save(&[sheet(&output.images, columns)], &parameters)?,
    }
    if let Some(path) = &arguments.save_latents {
        Saver::new().add_tensor("latents", output.latents.into_data()).write(path)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The lines of a file that are not empty.
fn read_lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("--prompts {}: {e}", path.display()))?;
    let lines: Vec<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(Into::into).collect();
    if lines.is_empty() {
        return Err(format!("--prompts {}: there is no prompt in it", path.display()).into());
    }
    Ok(lines)
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

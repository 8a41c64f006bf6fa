//! A landscape of a map: each grey value of a PNG is a class.
//!
//! ```sh
//! cargo run --release --example semantic_synthesis -- --model model.ckpt --map map.png
//! ```

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::{DType, Device, Tensor, TensorData};
use clap::Parser;
use common::Result;
use common::latent::{LatentModelArgs, LatentSamplingArgs};
use common::progress::Bar;
use image::DynamicImage;

/// A landscape of a map: each grey value of a PNG is a class.
#[derive(Parser)]
#[command(name = "semantic_synthesis")]
struct Arguments {
    #[command(flatten)]
    model: LatentModelArgs,
    #[command(flatten)]
    sampling: LatentSamplingArgs,
    /// The map, in grey of 8 or 16 bits: pixel value c is class c
    #[arg(long, value_name = "FILE")]
    map: PathBuf,
    /// Classes that the model was trained with
    #[arg(long, default_value_t = 182)]
    classes: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let sampling = &arguments.sampling;
    sampling.output.check()?;
    let map = ldm::image::open(&arguments.map)?;
    let model = arguments.model.load("semantic_synthesis256")?;
    let run = model.semantic(one_hot(&map, arguments.classes, model.device())?)?;
    let drawn = sampling.apply(&model, run)?.run_observed(&mut Bar::new())?;
    sampling.save(&drawn)
}

/// `[1, classes, h, w]` with 1 in the channel of each pixel's class.
fn one_hot(map: &DynamicImage, classes: usize, device: &Device) -> Result<Tensor<4>> {
    let (w, h) = (map.width() as usize, map.height() as usize);
    let mut values = vec![0f32; classes * h * w];
    for (i, class) in labels(map)?.into_iter().enumerate() {
        if class >= classes {
            return Err(format!("--map: class {class} at pixel {i} is outside 0..{classes}").into());
        }
        values[class * h * w + i] = 1.0;
    }
    Ok(Tensor::from_data(TensorData::new(values, [1, classes, h, w]), (device, DType::F32)))
}

/// The grey levels as they stand in the file, as the trainer takes a map of labels: to stretch or to cut them to 8 bits
/// would make other classes of them.
fn labels(map: &DynamicImage) -> Result<Vec<usize>> {
    match map {
        DynamicImage::ImageLuma8(map) => Ok(map.as_raw().iter().map(|class| usize::from(*class)).collect()),
        DynamicImage::ImageLuma16(map) => Ok(map.as_raw().iter().map(|class| usize::from(*class)).collect()),
        other => Err(format!("--map: a map of labels must be grey, this one is {:?}", other.color()).into()),
    }
}

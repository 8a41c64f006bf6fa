//! A picture worn as super-resolution models see it in training: blurred, shrunk, noisy, compressed.
//!
//! ```sh
//! cargo run --release --example degrade -- --image photo.png --factor 4 --seed 1 --output worn.png
//! ```

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use common::Result;
use common::output::Pictures;
use ldm::degradation::{Degradation, SeededDraws};

/// A picture worn as super-resolution models see it in training.
#[derive(Parser)]
#[command(name = "degrade")]
struct Arguments {
    /// The picture: PNG, JPEG, WebP or BMP
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// bsrgan, or bsrgan_light, by which the paper's model was trained
    #[arg(long, default_value = "bsrgan_light")]
    degradation: String,
    /// How many times smaller
    #[arg(long, default_value_t = 4)]
    factor: usize,
    /// Seed of what happens to it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// PNG to write
    #[arg(long, default_value = "output.png")]
    output: Pictures,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { image, degradation, factor, seed, output } = arguments;
    output.check()?;
    let picture = ldm::image::to_rgb8(&ldm::image::open(image)?);
    let kind = Degradation::named(degradation)?;
    let worn = kind.degrade(&picture, *factor, &mut SeededDraws::new(*seed))?;
    output.save(&[worn], &format!("{degradation}, factor: {factor}, Seed: {seed}"))
}

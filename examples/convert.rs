//! A model changes its clothes: CompVis' single file to diffusers' directory, and back.
//!
//! ```sh
//! cargo run --release --example convert -- --model v1-5-pruned.ckpt --output stable-diffusion-v1-5
//! cargo run --release --example convert -- --model stable-diffusion-v1-5 --output v1-5.safetensors --save-dtype f16
//! ```

mod common;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::DType;
use clap::{Parser, ValueEnum};
use common::Result;
use common::model::ModelArgs;
use common::output::check_folder;
use common::progress::tensor_bar;

/// Converts between a single checkpoint file with CompVis' names and a diffusers directory.
#[derive(Parser)]
#[command(name = "convert")]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// What to write: a name that ends in .safetensors becomes a single file, any other a directory
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// Float type of the weights that are written
    #[arg(long, value_enum, default_value = "f32")]
    save_dtype: Float,
    /// Write over what is there
    #[arg(long)]
    force: bool,
}

#[derive(ValueEnum, Clone, Copy)]
enum Float {
    F32,
    F16,
    Bf16,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { model: source, output, save_dtype, force } = arguments;
    if is_taken(output) && !force {
        return Err(format!(
            "--output {}: something is there already; --force writes over it",
            output.display()
        )
        .into());
    }
    check_folder(output, "--output")?;
    let dtype = match save_dtype {
        Float::F32 => DType::F32,
        Float::F16 => DType::F16,
        Float::Bf16 => DType::BF16,
    };

    let model = source.load()?;
    let bar = tensor_bar();
    let mut show = |file: &Path, done: usize, of: usize| {
        bar.set_message(file.display().to_string());
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    if output.extension().is_some_and(|e| e == "safetensors") {
        model.save_checkpoint_observed(output, dtype, &mut show)?;
    } else {
        model.save_directory_observed(output, dtype, &mut show)?;
    }
    bar.finish_and_clear();
    println!("{}", output.display());
    Ok(())
}

/// Whether a file or a folder with something in it lies at `path`.
fn is_taken(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.exists(),
    }
}

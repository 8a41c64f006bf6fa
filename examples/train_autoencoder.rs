//! Pictures become a first stage: the autoencoder of the paper's section 3.1.
//!
//! ```sh
//! cargo run --release --example train_autoencoder                       # the emoji in assets/, 6,000 steps
//! cargo run --release --example train_autoencoder -- --steps 100        # a minute: see the loss fall
//! cargo run --release --example train_autoencoder -- --config my.yaml --data pictures/ --out runs/mine
//! ```

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::DType;
use clap::Parser;
use common::Result;
use common::training::{TrainingArgs, ended, show};
use ldm_train::config::ModelConfig;
use ldm_train::export::{check_first_stage, save_first_stage};
use ldm_train::run::{AutoencoderTraining, LoadedBatches, Outcome, Stop, run};

/// Trains a first stage, KL-regularised or vector-quantised.
#[derive(Parser)]
#[command(name = "train_autoencoder")]
struct Arguments {
    /// What is trained and how (YAML or TOML)
    #[arg(long, value_name = "FILE", default_value = "configs/emoji_autoencoder.yaml")]
    config: PathBuf,
    #[command(flatten)]
    training: TrainingArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| train(&arguments))
}

fn train(arguments: &Arguments) -> Result<()> {
    let config = arguments.training.config(&arguments.config)?;
    let folder = arguments.training.out.clone().unwrap_or_else(|| "runs/emoji_autoencoder".into());
    let ModelConfig::FirstStage(model) = &config.model else {
        return Err(format!("{}: no first stage", arguments.config.display()).into());
    };
    let devices = arguments.training.devices(&config)?;
    let loader = config.data.open()?;
    println!("{} pictures, run in {}", loader.source().items(), folder.display());

    let lpips = model.lpips(&devices[0])?;
    let stage = AutoencoderTraining::new(model, &config, lpips, &devices[0])?;
    let mut stage = stage.with_devices(devices)?;
    // Not after days of training.
    let whole = check_first_stage(stage.model());
    if let Err(error) = &whole {
        println!("of the finished model not all will be written: {error}");
    }
    let mut batches = LoadedBatches::new(loader.clone(), None);
    let stop = Stop::on_signals()?;
    let every = config.train.log_every;
    let outcome = run(&mut stage, &mut batches, &config, &folder, &stop, &mut |step| show(step, every))?;
    ended(outcome);
    let broken = loader.report().broken().len();
    if broken > 0 {
        println!("{broken} pictures could not be read and were skipped");
    }
    if outcome == Outcome::Finished {
        match save_first_stage(stage.model(), &folder, DType::F32) {
            Ok(()) => {
                println!("{}, {}", folder.join("model.safetensors").display(), folder.join("vae").display());
            }
            // It has been said above, and the weights are there.
            Err(_) if whole.is_err() => println!("{}", folder.join("model.safetensors").display()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

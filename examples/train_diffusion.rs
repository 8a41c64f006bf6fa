//! Pictures become a latent diffusion model: the U-Net and tau_theta of the paper's sections 3.2 and 3.3. What it is
//! conditioned on (captions, classes, maps, boxes, worn or masked pictures, nothing) is the config's business.
//!
//! ```sh
//! cargo run --release --example train_diffusion                         # the emoji and their first stage in assets/
//! cargo run --release --example train_diffusion -- --steps 100          # two minutes: see the loss fall
//! cargo run --release --example train_diffusion -- --config my.yaml --data pictures/ --out runs/mine
//! ```

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::DType;
use clap::Parser;
use common::Result;
use common::training::{TrainingArgs, ended, show};
use ldm_train::config::ModelConfig;
use ldm_train::export::load_first_stage;
use ldm_train::run::{DiffusionTraining, Latents, LoadedBatches, Outcome, Stop, run};
use ldm_vae::FirstStageConfig;

/// Trains a latent diffusion model on a frozen first stage.
#[derive(Parser)]
#[command(name = "train_diffusion")]
struct Arguments {
    /// What is trained and how (YAML or TOML)
    #[arg(long, value_name = "FILE", default_value = "configs/emoji_diffusion.yaml")]
    config: PathBuf,
    /// The first stage's weights, instead of the config's `first_stage_config.params.ckpt_path`
    #[arg(long, value_name = "FILE")]
    first_stage: Option<PathBuf>,
    #[command(flatten)]
    training: TrainingArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| train(&arguments))
}

fn train(arguments: &Arguments) -> Result<()> {
    let config = arguments.training.config(&arguments.config)?;
    let folder = arguments.training.out.clone().unwrap_or_else(|| "runs/emoji_diffusion".into());
    let ModelConfig::Diffusion(model) = &config.model else {
        return Err(format!("{}: no diffusion model", arguments.config.display()).into());
    };
    let devices = arguments.training.devices(&config)?;
    let device = devices[0].clone();
    let loader = config.data.open()?;
    println!("{} pictures, run in {}", loader.source().items(), folder.display());

    let weights = arguments.first_stage.as_ref().or(model.first_stage_ckpt.as_ref());
    let first_stage = match (&model.first_stage, weights.or(model.ckpt_path.as_ref())) {
        (FirstStageConfig::Identity(..), _) => model.first_stage.init(&device)?,
        (config, Some(weights)) => load_first_stage(config, weights, &device)?,
        (_, None) => {
            let what = "no first stage: give --first-stage, or `ckpt_path` in `first_stage_config.params`";
            return Err(what.into());
        }
    };
    std::fs::create_dir_all(&folder)?;
    let latents = Latents::open(&folder.join("latents.safetensors"), &loader, &first_stage, &device)?;
    let tau = model.tau(&device)?;
    let cache = latents.cache();
    let training = DiffusionTraining::new(model, &config, first_stage, latents, tau, &device)?;
    let mut training = training.with_devices(devices)?;
    // Not after days of training.
    for (format, check) in [("CompVis", training.check_compvis()), ("diffusers", training.check_diffusers())]
    {
        if let Err(error) = check {
            println!("the finished model will not be written in the format of {format}: {error}");
        }
    }
    // With their latents kept, pictures are decoded only if the conditions are made of them.
    let cache = cache.filter(|_| !training.reads_pictures());
    let mut batches = LoadedBatches::new(loader.clone(), cache);

    let stop = Stop::on_signals()?;
    let every = config.train.log_every;
    let outcome = run(&mut training, &mut batches, &config, &folder, &stop, &mut |step| show(step, every))?;
    ended(outcome);
    let broken = loader.report().broken().len();
    if broken > 0 {
        println!("{broken} pictures could not be read and were skipped");
    }
    if outcome == Outcome::Finished {
        // What a format can't express has been said above.
        if training.check_compvis().is_ok() {
            let compvis = folder.join("compvis");
            training.save_compvis(&compvis, DType::F32)?;
            println!("{} (f32, all weights)", compvis.display());
        }
        if training.check_diffusers().is_ok() {
            let diffusers = folder.join("diffusers");
            training.save_diffusers(&diffusers, DType::F16)?;
            println!("{} (f16, averaged weights)", diffusers.display());
        }
    }
    Ok(())
}

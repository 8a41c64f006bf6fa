//! Pictures become a latent diffusion model: the U-Net and tau_theta of the paper's sections 3.2 and 3.3. What it is
//! conditioned on (captions, classes, maps, boxes, worn or masked pictures, nothing) is the config's business.
//!
//! ```sh
//! cargo run --release --example train_diffusion                         # the emoji and their first stage in assets/
//! cargo run --release --example train_diffusion -- --steps 100          # a minute: see the loss fall
//! cargo run --release --example train_diffusion -- --config my.yaml --data pictures/ --out runs/mine
//! # Super-resolution: small pictures are worn as the config says (bsr_sr's YAML does), or as this does.
//! cargo run --release --example train_diffusion -- --config bsr_sr.yaml --data pictures/ --first-stage vq-f4.ckpt \
//!     --degradation bsrgan_light
//! ```

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::DType;
use clap::Parser;
use common::Result;
use common::training::{TrainingArgs, ended, show};
use ldm::degradation::Worn;
use ldm_train::conditions::ConditionConfig;
use ldm_train::config::{EncoderSection, ModelConfig, RunConfig};
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
    /// How super-resolution's small pictures are worn, instead of the config's way: bsrgan, bsrgan_light, cv_bilinear,
    /// cv_bicubic, cv_area
    #[arg(long, value_name = "NAME")]
    degradation: Option<String>,
    #[command(flatten)]
    training: TrainingArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| train(&arguments))
}

fn train(arguments: &Arguments) -> Result<()> {
    let mut config = arguments.training.config(&arguments.config)?;
    if let Some(name) = &arguments.degradation {
        // In the config, so that a run can't go on with another one.
        config.data.condition = Some(degraded(name, &config)?);
    }
    // Conditions of our own; all others the trainer makes itself.
    let worn = config.data.condition.as_ref().map(Worn::of_config).transpose()?.flatten();
    let folder = arguments.training.out.clone().unwrap_or_else(|| "runs/emoji_diffusion".into());
    let ModelConfig::Diffusion(model) = &config.model else {
        return Err(format!("{}: no diffusion model", arguments.config.display()).into());
    };
    // The first stage encodes what the trainer makes itself: the worn picture would be joined to the latent as it is.
    if worn.is_some() && matches!(model.cond_stage, Some(EncoderSection::FirstStage)) {
        let what = "`cond_stage_config` is __is_first_stage__, and nothing encodes a worn picture (`data.condition`, \
                    --degradation): take torch.nn.Identity, as bsr_sr does";
        return Err(what.into());
    }
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
    let kept = folder.join("latents.safetensors");
    if Latents::are_missing(&kept, &loader, &first_stage) {
        println!("encoding {} pictures' latents", loader.source().items());
    }
    let latents = Latents::open(&kept, &loader, &first_stage, &device)?;
    let tau = model.tau(&device)?;
    let cache = latents.cache();
    let training = match worn {
        Some(worn) => {
            let conditions = Box::new(worn);
            DiffusionTraining::conditioned(model, &config, first_stage, latents, tau, conditions, &device)?
        }
        None => DiffusionTraining::new(model, &config, first_stage, latents, tau, &device)?,
    };
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

/// A small picture that is worn by `name` in the place of the config's own.
fn degraded(name: &str, config: &RunConfig) -> Result<ConditionConfig> {
    let ModelConfig::Diffusion(model) = &config.model else {
        return Err("--degradation: no diffusion model".into());
    };
    let factor = match (&config.data.condition, model.cond_stage_key.as_deref()) {
        (Some(ConditionConfig::LowResolution { factor } | ConditionConfig::Degraded { factor, .. }), _) => {
            *factor
        }
        (None, Some("LR_image")) => model.first_stage.factor(),
        _ => return Err("--degradation: the model is not conditioned on a small picture".into()),
    };
    Ok(ConditionConfig::Degraded { degradation: name.into(), factor })
}

//! Goes on with the training of a text-to-image model on a folder of pictures: its whole U-Net, or LoRA factors.
//!
//! ```sh
//! cargo run --release --example fine_tune -- --model stable-diffusion-v1-5 --data my-cats --output cats --lora-rank 8
//! cargo run --release --example text_to_image -- --model stable-diffusion-v1-5 --lora cats --prompt "a cat on the moon"
//! ```
//!
//! The pictures have captions: `metadata.jsonl`, a .txt beside each, or `--caption` for all.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::{DType, Tensor, TensorData};
use clap::Parser;
use common::Result;
use common::model::ModelArgs;
use ldm::StableDiffusion;
use ldm::nn::lora::LoraConfig;
use ldm::scheduler::{SamplerKind, Scheduler};
use ldm_train::data::{Batch, DataConfig, Loader, LoaderConfig, Transform};
use ldm_train::run::{Purpose, Random};
use ldm_train::{FineTuneConfig, FineTuning, MicroBatch, Objective, ObjectiveConfig};

/// Goes on with the training of a text-to-image model (Stable Diffusion 1.x, 2.x or XL, or one of the paper's) on
/// pictures with captions.
///
/// The U-Net is trained, in f32; first stage and text encoders stay as they are. Not trained here: models with a
/// vector-quantised first stage, inpainting models (their U-Net takes more than the latent), models that take the
/// guidance scale as an input (distilled ones), SDXL's refiner.
#[derive(Parser)]
#[command(name = "fine_tune")]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// The pictures: a folder, or WebDataset shards (.tar)
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// The folder that is written: pytorch_lora_weights.safetensors, or with the whole U-Net a model directory
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Train LoRA factors of this rank in the attention layers instead of the whole U-Net
    #[arg(long, value_name = "R")]
    lora_rank: Option<usize>,
    /// What the factors' product is multiplied with, times R [default: that of --lora-from, else R]
    #[arg(long, value_name = "ALPHA", requires = "lora_rank")]
    lora_alpha: Option<f64>,
    /// Factors to go on with, of the same rank and alpha
    #[arg(long, value_name = "FILE", requires = "lora_rank")]
    lora_from: Option<PathBuf>,
    /// Steps of the optimiser
    #[arg(long, default_value_t = 500)]
    steps: usize,
    /// Pictures at once
    #[arg(long, default_value_t = 1)]
    batch_size: usize,
    /// Batches whose gradients are averaged for a step
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// [default: 1e-4 with LoRA, 1e-5 without]
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Side of the pictures in pixels [default: the model's]
    #[arg(long)]
    size: Option<u32>,
    /// Mirror half of the pictures
    #[arg(long)]
    flip: bool,
    /// The caption of pictures that have none
    #[arg(long)]
    caption: Option<String>,
    /// How many captions are left out, so that guidance goes on working
    #[arg(long, default_value_t = 0.1)]
    caption_dropout: f64,
    /// gamma of min-SNR weighting; 5 is usual
    #[arg(long)]
    snr_gamma: Option<f64>,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the mean loss every so many steps
    #[arg(long, default_value_t = 10)]
    log_every: usize,
    /// Also write the output every so many steps
    #[arg(long)]
    save_every: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    if [arguments.steps, arguments.batch_size, arguments.accumulate, arguments.log_every].contains(&0) {
        return Err("--steps, --batch-size, --accumulate and --log-every must be at least 1".into());
    }
    let mut model = arguments.model.load()?;
    check(&model)?;
    std::fs::create_dir_all(&arguments.output)
        .map_err(|e| format!("--output {}: {e}", arguments.output.display()))?;

    let size = arguments.size.unwrap_or(model.default_size[0]) as usize;
    let transform = Transform { flip: arguments.flip, ..Transform::new(size) };
    let config = LoaderConfig {
        batch_size: arguments.batch_size,
        seed: arguments.seed,
        transform,
        ..Default::default()
    };
    let loader = Loader::new(DataConfig::new(&arguments.data).open()?, config)?;
    let mut batches = loader.batches_from(0)?;

    // What the model was trained to predict, on its own schedule.
    let scheduler = Scheduler::from_config(SamplerKind::Ddpm, &model.scheduler)?;
    let weights = ObjectiveConfig { snr_gamma: arguments.snr_gamma, ..Default::default() };
    let objective = Objective::of(&scheduler, &weights)?;
    let steps = objective.schedule().len();

    let lora = arguments.lora_rank.map(|r| lora_config(arguments, &model, r)).transpose()?;
    let learning_rate = arguments.learning_rate.unwrap_or(if lora.is_some() { 1e-4 } else { 1e-5 });
    let config = FineTuneConfig { learning_rate, lora, seed: arguments.seed, ..Default::default() };
    let mut training = FineTuning::new(model.unet.clone(), objective, config)?;
    if let Some(path) = &arguments.lora_from {
        training.resume_lora(path)?;
    }

    let mut losses = Vec::new();
    for step in 1..=arguments.steps {
        let mut micro = Vec::with_capacity(arguments.accumulate);
        for _ in 0..arguments.accumulate {
            let batch = batches.next().ok_or("the data has ended")??;
            micro.push(prepare(arguments, &model, &batch, steps)?);
        }
        let told = training.step(&micro)?;
        losses.push(told.loss);
        if step % arguments.log_every == 0 || step == arguments.steps {
            let mean = losses.iter().sum::<f64>() / losses.len() as f64;
            println!("{step}/{}: loss {mean:.5}, gradients' norm {:.3}", arguments.steps, told.grad_norm);
            losses.clear();
        }
        let done = step == arguments.steps;
        if done || arguments.save_every.is_some_and(|every| every > 0 && step % every == 0) {
            save(arguments, &mut model, &training, lora.as_ref())?;
        }
    }
    let broken = loader.report().broken().len();
    if broken > 0 {
        println!("{broken} pictures could not be read");
    }
    Ok(())
}

/// Says what can't be trained here.
fn check(model: &StableDiffusion) -> Result<()> {
    if model.dtype() != DType::F32 {
        return Err("--dtype: training is in f32".into());
    }
    let latent = model.vae.config().embed_dim;
    if model.unet.in_channels() != latent {
        let channels = model.unet.in_channels();
        return Err(
            format!("the U-Net takes {channels} channels: inpainting models are not trained here").into()
        );
    }
    if model.unet.config().time_cond_proj_dim.is_some() {
        return Err(
            "the U-Net is conditioned on the guidance scale: distilled models are not trained here".into()
        );
    }
    Ok(())
}

/// Rank and alpha of the factors: those of the file to go on with, where there is one.
fn lora_config(arguments: &Arguments, model: &StableDiffusion, r: usize) -> Result<LoraConfig> {
    let asked = arguments.lora_alpha.map_or(LoraConfig::new(r), |alpha| LoraConfig::new(r).with_alpha(alpha));
    let Some(path) = &arguments.lora_from else { return Ok(asked) };
    let (found, path) = (model.unet.lora_config(path)?, path.display());
    if found.r != r {
        return Err(format!("--lora-rank {r}: the factors in {path} have rank {}", found.r).into());
    }
    if arguments.lora_alpha.is_some() && !found.agrees_with(&asked) {
        let (alpha, trained) = (asked.lora_alpha, found.lora_alpha);
        return Err(format!("--lora-alpha {alpha}: the factors in {path} were trained with {trained}").into());
    }
    Ok(found)
}

/// Latents, noise, timesteps and captions of a batch. All numbers depend on the seed and the batch's number alone.
fn prepare(
    arguments: &Arguments,
    model: &StableDiffusion,
    batch: &Batch,
    steps: usize,
) -> Result<MicroBatch> {
    let (device, random, n) = (model.device(), Random::new(arguments.seed), batch.len());
    let posterior = model.encode(batch.to_tensor(device))?;
    let normal = |purpose| random.normal(batch.number, purpose, posterior.mean().dims(), device);
    let z = model.vae.scaling().scale(posterior.sample(normal(Purpose::Posterior)?)?);
    let noise = normal(Purpose::Noise)?;
    let timesteps = random.below(batch.number, Purpose::Timesteps, n, steps);

    let left_out = random.uniform(batch.number, Purpose::Unconditional, n);
    let mut captions = Vec::with_capacity(n);
    for (i, left_out) in left_out.into_iter().enumerate() {
        let caption =
            batch.captions.get(i).filter(|caption| !caption.is_empty()).or(arguments.caption.as_ref());
        let caption = caption.ok_or_else(|| {
            let (data, key) = (arguments.data.display(), &batch.keys[i]);
            format!("{data}: {key} has no caption; give one for all with --caption")
        })?;
        let dropped = left_out < arguments.caption_dropout;
        captions.push(if dropped { String::new() } else { caption.clone() });
    }
    let mut conditioning = model.text.encode(&captions)?;
    if model.unet.has_added_embedding() {
        // SDXL: original size, crop, target size.
        let side = batch.size as f32;
        let ids = TensorData::new([side, side, 0.0, 0.0, side, side].to_vec(), [1, 6]);
        conditioning.time_ids = Some(Tensor::<2>::from_data(ids, (device, DType::F32)).repeat_dim(0, n));
    }
    Ok(MicroBatch { z, noise, timesteps, conditioning })
}

fn save(
    arguments: &Arguments,
    model: &mut StableDiffusion,
    training: &FineTuning,
    lora: Option<&LoraConfig>,
) -> Result<()> {
    let unet = training.unet();
    match lora {
        Some(config) => {
            let path = arguments.output.join("pytorch_lora_weights.safetensors");
            unet.save_lora(config, &path, DType::F32)?;
            println!("{}", path.display());
        }
        None => {
            model.unet = unet;
            model.save_directory(&arguments.output, DType::F32)?;
            println!("{}", arguments.output.display());
        }
    }
    Ok(())
}

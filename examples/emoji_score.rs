//! How well the emoji model does what it is for, in three figures.
//!
//! ```sh
//! cargo run --release --example emoji_score                                  # the model in assets/
//! cargo run --release --example emoji_score -- --model runs/emoji_diffusion/diffusers
//! ```
//!
//! The first stage's PSNR on held-out pictures; and how often the picture that a prompt names is the nearest of 20 to
//! what the model draws, in the first stage's latent space: for training prompts, and for combinations of a profession
//! and a skin tone that training has not seen.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::Tensor;
use clap::Parser;
use common::{Result, emoji};
use ldm::scheduler::SamplerKind;
use ldm::{LatentDiffusion, LoadOptions};
use ldm_train::data::{DataConfig, Loader, LoaderConfig, Order, Transform};
use ldm_train::evaluate::{Answer, Catalogue, ModelError, Questions, mean, nearest, reconstruction, share};

/// Scores a text-to-image model of the emoji.
#[derive(Parser)]
#[command(name = "emoji_score")]
struct Arguments {
    /// The model: a diffusers directory, or a checkpoint with --config [default: the one in assets/]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// The YAML of a checkpoint
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data set [default: the emoji in assets/]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// How many prompts of each kind
    #[arg(long, default_value_t = 100)]
    prompts: usize,
    /// Pictures to choose from
    #[arg(long, default_value_t = 20)]
    candidates: usize,
    /// What prompts, candidates and noise are drawn from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Denoising steps
    #[arg(long, default_value_t = emoji::STEPS)]
    steps: usize,
    /// Guidance
    #[arg(long, default_value_t = emoji::GUIDANCE)]
    scale: f64,
    /// Sampler
    #[arg(long, default_value_t = emoji::SAMPLER)]
    sampler: SamplerKind,
    /// Pictures at a time
    #[arg(long, default_value_t = 20)]
    batch: usize,
    /// Prints every prompt with the rank of its picture
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| score(&arguments))
}

fn score(arguments: &Arguments) -> Result<()> {
    let options = LoadOptions { config: arguments.config.clone(), ..LoadOptions::default() };
    let device = options.device.clone();
    let path = arguments.model.clone().unwrap_or_else(emoji::model);
    let model = LatentDiffusion::load(path, &options)?;
    let data = arguments.data.clone().unwrap_or_else(|| emoji::asset("emoji.tar"));
    let side = model.latent_size()[0] * model.first_stage.factor();
    let transform = Transform::new(side);
    let config = LoaderConfig { batch_size: arguments.batch, transform, ..LoaderConfig::default() };
    let open = |source: DataConfig| -> Result<Loader> { Ok(Loader::new(source.open()?, config.clone())?) };

    let encode = |pictures: Tensor<4>| -> std::result::Result<Tensor<4>, ModelError> {
        Ok(model.first_stage.encode(pictures)?.mode())
    };
    let reconstruct = |pictures: Tensor<4>| -> std::result::Result<Tensor<4>, ModelError> {
        Ok(model.first_stage.decode(encode(pictures)?)?)
    };
    let held_out = open(DataConfig::new(&data).split("held_out"))?;
    let figures = reconstruction(&held_out, &device, reconstruct)?;
    println!("reconstruction of {} held-out pictures: {:.2} dB", figures.len(), mean(&figures));

    let catalogue = Catalogue::encode(&open(DataConfig::new(&data))?, &device, encode)?;
    let draws = |prompts: &[String]| -> std::result::Result<Tensor<4>, ModelError> {
        // Each prompt has noise of its own, whatever batch it comes in.
        let seeds: Vec<u64> = prompts.iter().map(|prompt| noise_seed(arguments.seed, prompt)).collect();
        let sampling = model.texts(prompts)?.steps(arguments.steps).sampler(arguments.sampler);
        Ok(sampling.guidance(arguments.scale).seeds(seeds).run()?.pictures)
    };
    for (name, asked) in kinds(&data, &catalogue)? {
        let questions = Questions {
            prompts: arguments.prompts.min(asked.len()),
            candidates: arguments.candidates,
            seed: arguments.seed,
        };
        let questions = questions.draw(&catalogue, &asked)?;
        let answers = nearest(&catalogue, &questions, arguments.batch, draws, encode)?;
        if arguments.verbose {
            answers.iter().for_each(print);
        }
        println!(
            "{name}: the named picture is the nearest of {} in {:.0} % of {}",
            arguments.candidates,
            100.0 * share(&answers),
            answers.len(),
        );
    }
    Ok(())
}

/// Training prompts and held-out combinations, as places in the catalogue.
fn kinds(data: &Path, catalogue: &Catalogue) -> Result<[(&'static str, Vec<usize>); 2]> {
    let places = |source: DataConfig, class: Option<&str>| -> Result<Vec<usize>> {
        let source = source.open()?;
        let class = class.and_then(|name| source.classes().iter().position(|c| c == name));
        let mut keys = BTreeSet::new();
        for item in source.epoch(Order::Listed) {
            let item = item?;
            if class.is_none_or(|class| item.class == Some(class as i64)) {
                keys.insert(item.key);
            }
        }
        Ok((0..catalogue.len()).filter(|i| keys.contains(&catalogue.keys()[*i])).collect())
    };
    let train = DataConfig::new(data).split("train");
    // The JSON of what is held out says of which kind it is.
    let held_out = DataConfig::new(data).split("held_out");
    let by_kind = DataConfig { class_key: Some("held_out".into()), ..held_out };
    Ok([
        ("training prompts", places(train, None)?),
        ("held-out combinations", places(by_kind, Some("combination"))?),
    ])
}

fn print(answer: &Answer) {
    println!("{:>3}  {}  (nearest: {})", answer.rank, answer.prompt, answer.nearest);
}

/// FNV-1a of the prompt, moved by the seed.
fn noise_seed(seed: u64, prompt: &str) -> u64 {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    // PyTorch's generator takes 32 bits.
    prompt.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, hash) & 0xffff_ffff
}

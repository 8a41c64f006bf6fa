//! Pictures of ImageNet's classes.
//!
//! ```sh
//! cargo run --release --example class_conditional -- --model model.ckpt --class 207 --guidance 3 --null-class 1000
//! cargo run --release --example class_conditional -- --model model.ckpt --preset cin256 --class 207 \
//!     --classifier classifier.ckpt --classifier-config classifier.yaml
//! ```

mod common;

use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::{Device, Tensor};
use clap::Parser;
use common::Result;
use common::latent::{LatentModelArgs, LatentSamplingArgs};
use common::progress::Bar;
use ldm::latent_diffusion::ClassifierGuidance;
use ldm::nn::weights::{Loader, WeightFile};
use ldm::unet::{EncoderUNet, EncoderUNetConfig};

/// Pictures of ImageNet's classes.
#[derive(Parser)]
#[command(name = "class_conditional")]
struct Arguments {
    #[command(flatten)]
    model: LatentModelArgs,
    #[command(flatten)]
    sampling: LatentSamplingArgs,
    /// The class of each picture
    #[arg(long = "class", required = true, num_args = 1..)]
    classes: Vec<i64>,
    /// The class that stands for none, which guidance leads away from: 1000 for cin256-v2
    #[arg(long)]
    null_class: Option<i64>,
    /// A classifier of noisy latents (EncoderUNetModel) whose gradient leads to the classes
    #[arg(long, value_name = "FILE", requires = "classifier_config")]
    classifier: Option<PathBuf>,
    /// Its params, as YAML
    #[arg(long, value_name = "YAML", requires = "classifier")]
    classifier_config: Option<PathBuf>,
    /// How far the classifier leads
    #[arg(long, default_value_t = 10.0)]
    classifier_scale: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::report(|| run(&arguments))
}

fn run(arguments: &Arguments) -> Result<()> {
    let sampling = &arguments.sampling;
    sampling.output.check()?;
    let model = arguments.model.load("cin256-v2")?;
    let run = model.classes(&arguments.classes, arguments.null_class)?;
    let run = sampling.apply(&model, run)?;
    let (Some(file), Some(config)) = (&arguments.classifier, &arguments.classifier_config) else {
        return sampling.save(&run.run_observed(&mut Bar::new())?);
    };
    let classifier = classifier(file, config, model.device())?;
    let logits = |x: Tensor<4>, t: Tensor<1>| -> std::result::Result<Tensor<2>, ldm::Error> {
        Ok(classifier.forward(x, t)?)
    };
    let guidance = ClassifierGuidance::new(logits, arguments.classes.clone(), arguments.classifier_scale);
    sampling.save(&run.score_corrector(&guidance).run_observed(&mut Bar::new())?)
}

/// The classifier alone, or as the reference's `NoisyLatentImageClassifier` keeps it, below `model.`.
fn classifier(file: &Path, config: &Path, device: &Device) -> Result<EncoderUNet> {
    let params = serde_yaml_ng::from_str(&read_to_string(config)?)
        .map_err(|e| format!("--classifier-config {}: {e}", config.display()))?;
    let config = EncoderUNetConfig::from_compvis(&params)?;
    let (keys, file) = (config.compvis_keys()?, WeightFile::open(file)?);
    let prefix = if file.tensors().any(|t| t.name.starts_with("model.")) { "model." } else { "" };
    Ok(Loader::new(&keys).prefix(prefix).load(config.init(device)?, &file)?.0)
}

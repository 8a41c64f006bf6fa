//! What the training examples share: arguments, and a line on the screen.

use std::path::PathBuf;

use burn::tensor::Device;
use clap::Args;
use ldm_train::config::RunConfig;
use ldm_train::parallel::Devices;
use ldm_train::run::{Outcome, Progress};

use super::Result;

/// Arguments of a training run.
#[derive(Args)]
pub struct TrainingArgs {
    /// The folder of the run: checkpoints, logs and the finished model. A run that is there goes on
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Steps of the whole run, instead of the config's
    #[arg(long)]
    pub steps: Option<u64>,
    /// Where the pictures are, instead of the config's place: a folder, or a tar. All of them are taken: a `split` in the
    /// config is of its own data
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Where to compute: flex, ndarray, cuda, wgpu, vulkan, metal, rocm, as far as the build has them; a GPU by its
    /// number: cuda:1
    #[arg(long)]
    pub device: Option<String>,
}

impl TrainingArgs {
    /// Reads the config and what the arguments change in it.
    pub fn config(&self, path: &std::path::Path) -> Result<RunConfig> {
        let mut config = RunConfig::read(path)?;
        if let Some(steps) = self.steps {
            config.train.max_steps = steps;
        }
        if let Some(data) = &self.data {
            config.data.source.path = data.clone();
            // Of the config's data: other pictures have other splits, or none.
            config.data.source.split = None;
        }
        Ok(config)
    }

    /// The devices that share each step, as the config's `train.devices` says: one at least.
    pub fn devices(&self, config: &RunConfig) -> Result<Vec<Device>> {
        let devices = match &config.train.devices {
            None => vec![self.device()?],
            Some(Devices::Names(names)) => {
                names.iter().map(|name| ldm::device(name)).collect::<std::result::Result<_, _>>()?
            }
            Some(Devices::Count(count)) => match self.device.as_deref() {
                // GPUs are numbered; a CPU is one device, of which each thread takes a part.
                Some(kind) if !["flex", "ndarray"].contains(&kind) && !kind.contains(':') => (0..*count)
                    .map(|i| ldm::device(&format!("{kind}:{i}")))
                    .collect::<std::result::Result<_, _>>()?,
                _ => {
                    let device = self.device()?;
                    if *count > 1 && device.memory_pool_usage().is_some() {
                        eprintln!("{count} replicas on one GPU: --device KIND gives each a GPU of its own");
                    }
                    vec![device; *count]
                }
            },
        };
        Ok(devices)
    }

    /// The device.
    pub fn device(&self) -> Result<Device> {
        Ok(match &self.device {
            Some(name) => ldm::device(name)?,
            None => Device::default(),
        })
    }
}

/// Tells of a step now and then.
pub fn show(progress: &Progress<'_>, every: u64) {
    if !progress.step.is_multiple_of(every) && progress.step != progress.max_steps && progress.step != 1 {
        return;
    }
    let numbers: Vec<String> =
        progress.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
    let [seconds, waited] = progress.seconds;
    println!(
        "{}/{}: {}, {seconds:.2} s a step, {:.1}% of it for data",
        progress.step,
        progress.max_steps,
        numbers.join(", "),
        100.0 * waited / seconds.max(1e-9),
    );
}

/// Tells how the run ended.
pub fn ended(outcome: Outcome) {
    match outcome {
        Outcome::Finished => println!("finished"),
        Outcome::Stopped { step } => {
            println!("stopped and saved after {step} steps; the same command goes on")
        }
    }
}

use serde::{Deserialize, Serialize};

use crate::optim::{AdamWConfig, Precision, RateConfig};
use crate::parallel::Devices;

/// The section `train`: optimisation, checkpoints and logs of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Everything random follows from it (23 in the reference).
    pub seed: u64,
    /// Optimiser steps of the whole run.
    pub max_steps: u64,
    /// Whether `base_learning_rate` is for one picture and is multiplied by those of a step (Lightning's default
    /// in the reference is yes).
    pub scale_lr: bool,
    /// Micro-batches a step, of each device; their gradients are averaged.
    pub accumulate_grad_batches: usize,
    /// The devices that share a step: a number, or a list of names. Not given: one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Devices>,
    /// The largest norm of all gradients together; not given: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_clip_val: Option<f64>,
    /// AdamW's numbers. Not given: Adam with betas 0.5 and 0.9 for a first stage, PyTorch's AdamW for a diffusion
    /// model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<AdamWConfig>,
    /// Warm-up and decay of the learning rate. Not given: the model's `scheduler_config`, or constant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<RateConfig>,
    /// `f32`, or `bf16` with f32 master weights.
    pub precision: Precision,
    /// The largest decay of the weights' moving average (diffusion models with `use_ema`).
    pub ema_decay: f64,
    /// Steps between two checkpoints; there is always one at the end.
    pub save_every: u64,
    /// How many checkpoints are kept.
    pub keep: usize,
    /// Steps between two lines of the logs.
    pub log_every: u64,
    /// Steps between two grids of pictures; 0: none.
    pub images_every: u64,
    /// Pictures of a grid.
    pub images: usize,
    /// Prompts of the grid of samples (models of texts); not given: conditions of the step's batch.
    pub prompts: Vec<String>,
    /// Steps of DDIM for the grid of samples.
    pub sample_steps: usize,
    /// Guidance scale of the grid of samples, where `conditioning_dropout_prob` is above 0.
    pub sample_scale: f64,
}

impl TrainConfig {
    /// Keys that may change when a run goes on: they don't touch what it computes.
    pub(crate) const FREE: [&'static str; 9] = [
        "max_steps",
        "save_every",
        "keep",
        "log_every",
        "images_every",
        "images",
        "prompts",
        "sample_steps",
        "sample_scale",
    ];

    /// Says what is out of range.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let counts = [
            ("max_steps", self.max_steps),
            ("accumulate_grad_batches", self.accumulate_grad_batches as u64),
            ("devices", self.device_count() as u64),
            ("save_every", self.save_every),
            ("keep", self.keep as u64),
            ("log_every", self.log_every),
            ("sample_steps", self.sample_steps as u64),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, n)| *n == 0) {
            return Err(format!("`train.{key}` is 0, expected at least 1"));
        }
        if self.gradient_clip_val.is_some_and(|c| !(c.is_finite() && c > 0.0)) {
            return Err("`train.gradient_clip_val`: expected a number above 0".into());
        }
        if !(0.0..=1.0).contains(&self.ema_decay) {
            return Err(format!("`train.ema_decay` is {}, expected a number from 0 to 1", self.ema_decay));
        }
        if let Some(scheduler) = &self.scheduler {
            scheduler.validate().map_err(|what| format!("`train.scheduler`: {what}"))?;
        }
        let numbers = self.optimizer.unwrap_or_default();
        if !numbers.betas.iter().all(|b| (0.0..1.0).contains(b)) || numbers.eps <= 0.0 {
            return Err("`train.optimizer`: betas must lie in [0, 1), eps above 0".into());
        }
        Ok(())
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 23,
            max_steps: 100_000,
            scale_lr: true,
            accumulate_grad_batches: 1,
            devices: None,
            gradient_clip_val: None,
            optimizer: None,
            scheduler: None,
            precision: Precision::F32,
            ema_decay: 0.9999,
            save_every: 1000,
            keep: 3,
            log_every: 10,
            images_every: 500,
            images: 8,
            prompts: Vec::new(),
            sample_steps: 50,
            sample_scale: 3.0,
        }
    }
}

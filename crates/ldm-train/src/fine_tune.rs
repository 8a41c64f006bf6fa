//! Going on with the training of a U-Net that exists, whole or by LoRA.

use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Tensor, TensorData};
use ldm_nn::lora::{LoraConfig, LoraError};
use ldm_unet::{Conditioning, UNet, UNetError};

use crate::{Objective, ObjectiveError};

/// How a U-Net is fine-tuned: AdamW with PyTorch's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct FineTuneConfig {
    /// Usual: 1e-4 for LoRA, 1e-5 for the whole model.
    pub learning_rate: f64,
    /// AdamW's decoupled decay (PyTorch: 1e-2).
    pub weight_decay: f64,
    /// The gradients' common norm is clipped to this (diffusers' scripts: 1).
    pub max_grad_norm: Option<f64>,
    /// Trains factors in the attention layers instead of the model itself.
    pub lora: Option<LoraConfig>,
    /// What the factors' first values are drawn from.
    pub seed: u64,
}

impl Default for FineTuneConfig {
    fn default() -> Self {
        Self { learning_rate: 1e-5, weight_decay: 1e-2, max_grad_norm: Some(1.0), lora: None, seed: 0 }
    }
}

/// What is wrong with a step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FineTuneError {
    /// The rank is 0, or the model has no attention.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// The U-Net takes the guidance scale as an input, as one that was distilled does (latent consistency models); this
    /// objective gives it none.
    #[error(
        "the U-Net takes the guidance scale as an input (`time_cond_proj_dim`): distilled models can't be fine-tuned"
    )]
    Distilled,
    /// Factors for a run that trains the whole model.
    #[error("{path}: factors of a LoRA, but the whole model is trained")]
    Whole {
        /// The file.
        path: PathBuf,
    },
    /// Latents, noise or timesteps don't fit together.
    #[error(transparent)]
    Objective(#[from] ObjectiveError),
    /// The U-Net refused its input.
    #[error(transparent)]
    UNet(#[from] UNetError),
    /// The loss or the gradients' norm is NaN or infinite; no weight was changed.
    #[error(
        "step {step}: the {what} is {value}: the weights are as they were before (a lower learning rate may help)"
    )]
    NotFinite {
        /// Steps that were done before.
        step: usize,
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A step without anything to learn from.
    #[error("a step of no micro-batches")]
    Empty,
}

/// A micro-batch, everything random in it drawn already.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    /// Latents `[b, z, h, w]`, scaled.
    pub z: Tensor<4>,
    /// Standard normal, of the same shape.
    pub noise: Tensor<4>,
    /// `b` numbers below the schedule's length.
    pub timesteps: Vec<usize>,
    /// What tau_theta gave.
    pub conditioning: Conditioning,
}

/// What a step has measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FineTuneStep {
    /// The mean loss of the micro-batches, before the step.
    pub loss: f64,
    /// The gradients' common norm before clipping.
    pub grad_norm: f64,
}

/// A U-Net on its way.
#[derive(Clone)]
pub struct FineTuning {
    unet: UNet,
    objective: Objective,
    optimizer: ModuleOptimizer,
    config: FineTuneConfig,
    steps: usize,
}

impl FineTuning {
    /// Takes over a U-Net of a device without autodiff. The first stage and the text encoders stay with the caller: they
    /// are not trained.
    ///
    /// # Errors
    /// [`FineTuneError::Lora`], [`FineTuneError::Distilled`].
    pub fn new(unet: UNet, objective: Objective, config: FineTuneConfig) -> Result<Self, FineTuneError> {
        if unet.config().time_cond_proj_dim.is_some() {
            return Err(FineTuneError::Distilled);
        }
        let unet = match &config.lora {
            Some(lora) => unet.with_lora(lora, config.seed)?,
            None => unet,
        };
        // burn's own eps and decay differ from PyTorch's.
        let optimizer =
            AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(config.weight_decay as f32).init();
        Ok(Self { unet: unet.train(), objective, optimizer, config, steps: 0 })
    }

    /// One step of the optimiser over micro-batches of equal size, whose gradients are averaged.
    ///
    /// # Errors
    /// [`FineTuneError::NotFinite`] before any weight is changed; inputs that don't fit.
    pub fn step(&mut self, batches: &[MicroBatch]) -> Result<FineTuneStep, FineTuneError> {
        if batches.is_empty() {
            return Err(FineTuneError::Empty);
        }
        let n = batches.len() as f64;
        let (mut sum, mut loss) = (GradientsAccumulator::<UNet>::new(), 0.0);
        for batch in batches {
            let losses = self.loss(batch)?;
            loss += losses.clone().inner().into_scalar::<f64>() / n;
            let mut gradients = (losses / n).backward();
            sum.accumulate(&self.unet, GradientsParams::from_module(&mut gradients, &self.unet));
        }
        let mut gradients = sum.grads();
        self.finite("loss", loss)?;
        let grad_norm = self.finite("gradients' norm", norm(&self.unet, &gradients))?;
        if let Some(max) = self.config.max_grad_norm {
            // torch.nn.utils.clip_grad_norm_; burn's clipping takes each tensor by itself.
            let factor = max / (grad_norm + 1e-6);
            if factor < 1.0 {
                self.unet.visit(&mut Scale { gradients: &mut gradients, factor });
            }
        }
        self.unet = self.optimizer.step(self.config.learning_rate, self.unet.clone(), gradients);
        self.steps += 1;
        Ok(FineTuneStep { loss, grad_norm })
    }

    /// The model as it is now, without autodiff; with LoRA the factors are still beside the weights
    /// ([`UNet::save_lora`] writes them, `materialize()` merges them).
    pub fn unet(&self) -> UNet {
        self.unet.valid()
    }

    /// Takes the factors of a file of [`UNet::save_lora`]'s to go on with.
    ///
    /// # Errors
    /// [`FineTuneError::Whole`] in a run without LoRA; as [`UNet::resume_lora`].
    pub fn resume_lora(&mut self, path: impl AsRef<Path>) -> Result<(), FineTuneError> {
        let path = path.as_ref();
        let Some(config) = &self.config.lora else {
            return Err(FineTuneError::Whole { path: path.into() });
        };
        self.unet = self.unet.clone().resume_lora(config, path)?;
        Ok(())
    }

    fn loss(&self, batch: &MicroBatch) -> Result<Tensor<1>, FineTuneError> {
        let MicroBatch { z, noise, timesteps, conditioning } = batch;
        let denoiser = |z_t: Tensor<4>, t: &[usize]| -> Result<Tensor<4>, FineTuneError> {
            let t: Vec<f32> = t.iter().map(|t| *t as f32).collect();
            let shape = [t.len()];
            let t = Tensor::<1>::from_data(TensorData::new(t, shape), (&z_t.device(), DType::F32));
            Ok(self.unet.forward(z_t, t, conditioning)?)
        };
        Ok(self.objective.loss(z.clone(), noise.clone(), timesteps, None, denoiser)?.loss)
    }

    fn finite(&self, what: &'static str, value: f64) -> Result<f64, FineTuneError> {
        match value.is_finite() {
            true => Ok(value),
            false => Err(FineTuneError::NotFinite { step: self.steps, what, value }),
        }
    }
}

/// The Euclidean norm of all gradients together.
fn norm(unet: &UNet, gradients: &GradientsParams) -> f64 {
    let mut squares = Squares { gradients, found: vec![] };
    unet.visit(&mut squares);
    match squares.found.is_empty() {
        true => 0.0,
        false => Tensor::cat(squares.found, 0).sum().into_scalar::<f64>().sqrt(),
    }
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    found: Vec<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.found.push(gradient.cast(DType::F32).square().sum());
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor);
        }
    }
}

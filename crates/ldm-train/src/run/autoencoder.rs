use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use ldm_vae::{Encoded, FirstStage, FirstStageConfig};

use super::{At, Purpose, Random, RunError, Sheet, Stage, check_device, drawn, finite, mean, read};
use crate::checkpoint::{Checkpoint, CheckpointWriter};
use crate::config::{AutoencoderConfig, RunConfig};
use crate::data::Batch;
use crate::log::Metrics;
use crate::optim::{AdamW, AdamWConfig, Named, Precision, clip_by_global_norm, gradients, trainable};
use crate::{FirstStageObjective, Lpips, NLayerDiscriminator, OutputLogVar, Reconstruction};

/// What the first of the two optimisers moves.
#[derive(Module, Debug)]
struct Generator {
    model: FirstStage,
    /// With `learn_logvar`.
    logvar: Option<OutputLogVar>,
}

/// The second player and its optimiser.
#[derive(Debug)]
struct Critic {
    discriminator: NLayerDiscriminator,
    optimizer: AdamW,
}

/// Trains a first stage, KL-regularised or vector-quantised.
///
/// A step is two: the autoencoder's, then the discriminator's on pictures that the updated autoencoder makes anew
/// from a fresh sample of its posterior. Source: paper, section 3.1 and appendix G; `training_step` in the
/// reference's `autoencoder.py`, with Lightning's loop around it.
#[derive(Debug)]
pub struct AutoencoderTraining {
    generator: Generator,
    optimizer: AdamW,
    critic: Option<Critic>,
    objective: FirstStageObjective,
    precision: Precision,
    max_norm: Option<f64>,
    images: usize,
    random: Random,
    device: Device,
}

impl AutoencoderTraining {
    /// A first stage as the config describes it, with fresh weights, on `device` (without autodiff: the training
    /// sees to that). Without `lpips` the loss is that of the pixels, and a warning says so.
    ///
    /// # Errors
    ///
    /// A config that can't be built, a device that lacks the float type.
    pub fn new(
        model: &AutoencoderConfig,
        config: &RunConfig,
        lpips: Option<Lpips>,
        device: &Device,
    ) -> Result<Self, RunError> {
        let random = Random::new(config.train.seed);
        check_device(config.train.precision, device)?;
        model.loss.validate_for(model.ddconfig()?)?;
        let objective = FirstStageObjective::new(&model.loss, lpips)?;
        device.seed(random.seed(0, Purpose::Weights));
        let generator = drawn(Generator { model: model.start(device)?, logvar: objective.logvar(device) });
        let numbers = config.train.optimizer.unwrap_or(AdamWConfig::FIRST_STAGE);
        let critic = objective.discriminator(device).map(drawn).map(|discriminator| Critic {
            optimizer: AdamW::new(numbers, &discriminator, device),
            discriminator,
        });
        Ok(Self {
            optimizer: AdamW::new(numbers, &generator, device),
            generator,
            critic,
            objective,
            precision: config.train.precision,
            max_norm: config.train.gradient_clip_val,
            images: config.train.images,
            random,
            device: device.clone(),
        })
    }

    /// The first stage as it is now.
    pub fn model(&self) -> &FirstStage {
        &self.generator.model
    }

    /// Goes on from these weights instead of fresh ones.
    pub fn with_model(mut self, model: FirstStage) -> Self {
        self.generator.model = model;
        self
    }

    /// The discriminator, where the loss has one.
    pub fn discriminator(&self) -> Option<&NLayerDiscriminator> {
        self.critic.as_ref().map(|critic| &critic.discriminator)
    }

    /// The autoencoder's gradients and losses on one micro-batch.
    fn generate(
        &self,
        working: &Generator,
        at: &At,
        micro: u64,
        batch: &Batch,
    ) -> Result<(Named, Metrics), RunError> {
        self.device.seed(self.random.seed(micro, Purpose::Dropout));
        let x = batch.to_tensor(&self.device);
        let (reconstruction, regulariser) = match (&working.model, working.model.encode(x.clone())?) {
            (FirstStage::Kl(model), Encoded::Posterior(posterior)) => {
                let shape = posterior.mean().dims();
                let noise = self.random.normal(micro, Purpose::Posterior, shape, &self.device)?;
                let z = posterior.sample(noise)?;
                let made = Reconstruction::new(&model.decoder, model.post_quant_conv.as_ref(), z);
                (made, posterior.kl())
            }
            (FirstStage::Vq(model), Encoded::Latent(z)) => {
                let quantized = model.quantize.forward(z)?;
                let conv = Some(&model.post_quant_conv);
                (Reconstruction::new(&model.decoder, conv, quantized.z_q), quantized.loss)
            }
            _ => return Err(RunError::NotTrainable { what: "a first stage without parameters" }),
        };
        let loss = self.objective.generator_loss(
            x,
            &reconstruction,
            regulariser,
            self.discriminator(),
            working.logvar.as_ref(),
            at.step,
        )?;
        let metrics = read(at.step, &loss.logs)?;
        let mut found = loss.surrogate.backward();
        Ok((gradients(working, &mut found), metrics))
    }

    /// The discriminator's gradients and losses on one micro-batch.
    fn criticise(
        &self,
        working: &NLayerDiscriminator,
        at: &At,
        micro: u64,
        batch: &Batch,
    ) -> Result<(Named, Metrics), RunError> {
        let x = batch.to_tensor(&self.device);
        let model = self.model();
        let encoded = model.encode(x.clone())?;
        let shape = encoded.dims();
        let noise = self.random.normal(micro, Purpose::DiscriminatorPosterior, shape, &self.device)?;
        let made = model.decode(encoded.sample(noise)?)?;
        let loss = self.objective.discriminator_loss(x, made, working, at.step)?;
        let metrics = read(at.step, &loss.logs)?;
        let mut found = loss.loss.backward();
        Ok((gradients(working, &mut found), metrics))
    }

    /// The mean of the micro-batches' gradients, clipped, and of their numbers.
    fn gather(
        &self,
        at: &At,
        batches: &[Batch],
        norm_name: &str,
        mut micro: impl FnMut(u64, &Batch) -> Result<(Named, Metrics), RunError>,
    ) -> Result<(Named, Metrics), RunError> {
        let (mut sets, mut metrics) = (Vec::new(), Vec::new());
        for (k, batch) in batches.iter().enumerate() {
            let (gradients, numbers) = micro(at.micro + k as u64, batch)?;
            sets.push(gradients);
            metrics.push(numbers);
        }
        let (mut gradients, mut metrics) = (Named::mean(sets), mean(metrics));
        let norm = clip_by_global_norm(&mut gradients, self.max_norm);
        metrics.push((norm_name.into(), finite(at.step, norm_name, norm)?));
        Ok((gradients, metrics))
    }
}

impl Stage for AutoencoderTraining {
    fn step(&mut self, at: &At, batches: &[Batch]) -> Result<Metrics, RunError> {
        let working = trainable(&self.generator, self.precision);
        let (gradients, mut metrics) =
            self.gather(at, batches, "grad_norm", |micro, batch| self.generate(&working, at, micro, batch))?;
        drop(working);
        self.generator = self.optimizer.step(self.generator.clone(), gradients, at.rate);

        let plays = self.objective.config().disc_factor(at.step) != 0.0;
        let Some(critic) = &self.critic else { return Ok(metrics) };
        if plays {
            let working = trainable(&critic.discriminator, Precision::F32);
            let (gradients, more) = self.gather(at, batches, "disc_grad_norm", |micro, batch| {
                self.criticise(&working, at, micro, batch)
            })?;
            drop(working);
            metrics.extend(more);
            if let Some(critic) = &mut self.critic {
                critic.discriminator =
                    critic.optimizer.step(critic.discriminator.clone(), gradients, at.rate);
            }
        } else if let Some(critic) = &mut self.critic {
            // Before `disc_start` its loss is zero times something; the reference's optimiser counts the step.
            critic.optimizer.idle();
        }
        Ok(metrics)
    }

    fn save(&self, writer: &mut CheckpointWriter) -> Result<(), RunError> {
        writer.module("model", &self.generator)?;
        writer.optimizer("optimizer", &self.optimizer)?;
        if let Some(critic) = &self.critic {
            writer.module("discriminator", &critic.discriminator)?;
            writer.optimizer("discriminator_optimizer", &critic.optimizer)?;
        }
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), RunError> {
        self.generator = checkpoint.module("model", self.generator.clone())?;
        self.optimizer = checkpoint.optimizer("optimizer", self.optimizer.clone())?;
        if let Some(critic) = &mut self.critic {
            critic.discriminator = checkpoint.module("discriminator", critic.discriminator.clone())?;
            critic.optimizer = checkpoint.optimizer("discriminator_optimizer", critic.optimizer.clone())?;
        }
        Ok(())
    }

    fn sheets(&self, _: &At, batch: &Batch) -> Result<Vec<Sheet>, RunError> {
        let n = batch.len().min(self.images.max(1));
        let x = batch.to_tensor(&self.device).narrow(0, 0, n);
        let model = self.model();
        let reconstruction = model.decode(model.encode(x.clone())?.mode())?.cast(DType::F32);
        let pictures = Tensor::cat(vec![x, reconstruction], 0);
        Ok(vec![Sheet { name: "reconstructions", pictures, columns: n }])
    }
}

impl AutoencoderConfig {
    /// Encoder and decoder.
    fn ddconfig(&self) -> Result<&ldm_vae::DdConfig, RunError> {
        match &self.first_stage {
            FirstStageConfig::Kl(config) => Ok(&config.ddconfig),
            FirstStageConfig::Vq(config) => Ok(&config.ddconfig),
            FirstStageConfig::Identity(..) => {
                Err(RunError::NotTrainable { what: "a first stage without parameters" })
            }
        }
    }
}

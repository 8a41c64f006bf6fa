use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_conditioning::{CondStage, Condition};
use ldm_scheduler::{SamplerKind, SamplerOptions, Scheduler, SchedulerConfig};
use ldm_unet::{Conditioning, UNet};
use ldm_vae::FirstStage;
use serde_json::json;

use super::latents::Latents;
use super::places::{Gathered, Place, Places, replica};
use super::recompute::Recomputed;
use super::start::Start;
use super::{At, Purpose, Random, RunError, Sheet, Stage, check_device, drawn, finite};
use crate::checkpoint::{Checkpoint, CheckpointWriter};
use crate::conditions::{Asked, ConditionConfig, Conditions, check, of_sample, replaced};
use crate::config::{DiffusionConfig, RunConfig};
use crate::data::{Batch, weights_fingerprint};
use crate::log::Metrics;
use crate::optim::{AdamW, Named, Precision, clip_by_global_norm, gradients, trainable};
use crate::{Ema, LogVar, Logs, Objective, ObjectiveConfig, offset_noise};

/// What is trained together: the U-Net, tau_theta, the learned log-variance.
#[derive(Module, Debug)]
pub struct Denoiser {
    /// epsilon_theta.
    pub model: UNet,
    /// tau_theta, where the model is conditional.
    pub cond_stage_model: Option<CondStage>,
    /// With `learn_logvar`.
    pub logvar: Option<LogVar>,
}

/// Trains a latent diffusion model on a frozen first stage.
///
/// Source: paper, section 3.2 and 3.3; `LatentDiffusion` in the reference's `ddpm.py`.
#[derive(Debug)]
pub struct DiffusionTraining {
    denoiser: Denoiser,
    /// Whether tau_theta is trained along.
    train_tau: bool,
    /// Whether activations are computed anew for the gradient.
    use_checkpoint: bool,
    ema: Option<Ema<UNet>>,
    optimizer: AdamW,
    objective: Objective,
    /// One for each device.
    first_stages: Vec<FirstStage>,
    /// The first stage's fingerprint.
    weights: String,
    places: Places,
    latents: Latents,
    conditions: Box<dyn Conditions>,
    /// Known from the first batch on, with `scale_by_std`.
    scale: Option<f64>,
    config: RunConfig,
    random: Random,
    device: Device,
}

impl DiffusionTraining {
    /// A diffusion model as the config describes it, with fresh weights or those of `ckpt_path`, on `device` (without
    /// autodiff: the stage sees to that), conditioned on what the config says. `first_stage` and, where it isn't trained,
    /// `tau` stay as they are.
    ///
    /// # Errors
    ///
    /// A config that can't be built, or whose conditions don't reach the U-Net; a device that lacks the float type;
    /// weights that are missing.
    pub fn new(
        model: &DiffusionConfig,
        config: &RunConfig,
        first_stage: FirstStage,
        latents: Latents,
        tau: Option<CondStage>,
        device: &Device,
    ) -> Result<Self, RunError> {
        let conditions = ConditionConfig::of_model(model, config.data.condition.as_ref())?;
        check(model.conditioning_key, tau.as_ref(), Some(&conditions))?;
        Self::build(model, config, first_stage, latents, tau, Box::new(conditions), device)
    }

    /// As [`new`](Self::new), conditioned on what `conditions` give.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn conditioned(
        model: &DiffusionConfig,
        config: &RunConfig,
        first_stage: FirstStage,
        latents: Latents,
        tau: Option<CondStage>,
        conditions: Box<dyn Conditions>,
        device: &Device,
    ) -> Result<Self, RunError> {
        check(model.conditioning_key, tau.as_ref(), None)?;
        Self::build(model, config, first_stage, latents, tau, conditions, device)
    }

    fn build(
        model: &DiffusionConfig,
        config: &RunConfig,
        first_stage: FirstStage,
        latents: Latents,
        tau: Option<CondStage>,
        conditions: Box<dyn Conditions>,
        device: &Device,
    ) -> Result<Self, RunError> {
        let random = Random::new(config.train.seed);
        check_device(config.train.precision, device)?;
        if model.use_checkpoint && model.unet.dropout > 0.0 {
            return Err(RunError::NotTrainable { what: "a U-Net with both `use_checkpoint` and `dropout`" });
        }
        let objective = Objective::from_config(&model.objective)?;
        if config.train.images_every > 0 {
            // Not after the first steps.
            let schedule = objective.config().scheduler()?;
            Scheduler::from_config(SamplerKind::Ddim, &schedule)?
                .sampler::<4>(SamplerOptions::steps(config.train.sample_steps))?;
        }
        device.seed(random.seed(0, Purpose::Weights));
        let denoiser = Denoiser {
            model: model.unet.init(device)?,
            cond_stage_model: tau,
            logvar: objective.logvar(device),
        };
        let start = match &model.ckpt_path {
            Some(path) => Start::read(path, denoiser, &model.objective)?,
            None => Start::fresh(denoiser, &model.objective),
        };
        let denoiser = drawn(start.denoiser);
        let ema = match (model.use_ema, start.average) {
            (false, _) => None,
            (true, Some((average, updates))) => Some(Ema::resume(average, config.train.ema_decay, updates)?),
            (true, None) => Some(Ema::new(&denoiser.model, config.train.ema_decay)?),
        };
        let numbers = config.train.optimizer.unwrap_or_default();
        let train_tau = model.cond_stage_trainable;
        // A frozen one has no moments.
        let moved = match train_tau {
            true => denoiser.clone(),
            false => Denoiser { cond_stage_model: None, ..denoiser.clone() },
        };
        Ok(Self {
            optimizer: AdamW::new(numbers, &moved, device),
            denoiser,
            train_tau,
            use_checkpoint: model.use_checkpoint,
            ema,
            scale: start.scale,
            objective,
            weights: weights_fingerprint(&first_stage)?,
            first_stages: vec![first_stage],
            places: Places::one(device),
            latents,
            conditions,
            config: config.clone(),
            random,
            device: device.clone(),
        })
    }

    /// Shares each step's micro-batches among these devices, as many as `train.devices` says; the first is the
    /// training's own. Without this the one device takes them all, and the losses are the same.
    ///
    /// # Errors
    ///
    /// Another number of devices, one that lacks the float type, a U-Net or an encoder with dropout.
    pub fn with_devices(mut self, devices: Vec<Device>) -> Result<Self, RunError> {
        let dropout = match &self.denoiser.cond_stage_model {
            Some(CondStage::BertEmbedder(tau)) => tau.config().embedding_dropout,
            _ => 0.0,
        };
        let dropout = dropout.max(self.denoiser.model.config().dropout);
        self.places = Places::several(devices, &self.config.train, dropout)?;
        let moved = |first_stage: &FirstStage, device: &Device| first_stage.clone().to_device(device);
        self.first_stages = self.places.replicas(&self.first_stages[0], moved);
        Ok(self)
    }

    /// The networks as they are now.
    pub fn denoiser(&self) -> &Denoiser {
        &self.denoiser
    }

    /// The moving average of the U-Net's weights, where one is kept.
    pub fn average(&self) -> Option<&UNet> {
        self.ema.as_ref().map(Ema::model)
    }

    /// The average with the number of its updates.
    pub(crate) fn average_after(&self) -> Option<(&UNet, u64)> {
        self.ema.as_ref().map(|ema| (ema.model(), ema.num_updates()))
    }

    /// The run's config.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The keys of the config that the loss reads.
    pub(crate) fn objective(&self) -> &ObjectiveConfig {
        self.objective.config()
    }

    /// Height and width of a latent.
    pub(crate) fn latent_size(&self) -> [usize; 2] {
        self.denoiser.model.config().sample_size.unwrap_or_else(|| {
            let side = self.config.data.loader.transform.size / self.first_stage().config().factor();
            [side, side]
        })
    }

    /// The scheduler config that a sampler of the trained model takes.
    ///
    /// # Errors
    ///
    /// None once the training was built: the schedule's.
    pub fn scheduler(&self) -> Result<SchedulerConfig, RunError> {
        Ok(self.objective.config().scheduler()?)
    }

    /// Whether the conditions are made of the batches' pixels: a loader may leave them out where nothing reads them.
    pub fn reads_pictures(&self) -> bool {
        self.conditions.reads_pictures()
    }

    /// The frozen first stage.
    pub fn first_stage(&self) -> &FirstStage {
        &self.first_stages[0]
    }

    /// What the latents are multiplied with; `None` before the first step with `scale_by_std`.
    pub fn scale_factor(&self) -> Option<f64> {
        self.scale
    }

    /// A micro-batch's latents, not scaled.
    fn latents(&self, place: &Place<'_>, micro: u64, batch: &Batch) -> Result<Tensor<4>, RunError> {
        let encoded = self.latents.of(&self.first_stages[place.number], batch, place.device)?;
        let noise = self.random.normal(micro, Purpose::Posterior, encoded.dims(), place.device)?;
        Ok(encoded.sample(noise)?.cast(DType::F32))
    }

    /// What the latents are multiplied with, measured on the run's first micro-batch where the config says so.
    fn measured_scale(&mut self, at: &At, batches: &[Batch]) -> Result<f64, RunError> {
        if let (None, Some(batch)) = (self.scale, batches.first()) {
            let z = self.latents(&self.places.first_place(), at.micro, batch)?;
            self.scale = Some(self.objective.config().latent_scale(z)?);
        }
        Ok(self.scale.unwrap_or(1.0))
    }

    /// A batch's conditions before tau_theta.
    fn given(&self, place: &Place<'_>, micro: u64, batch: &Batch) -> Result<Condition, RunError> {
        let (random, first_stage) = (self.random, &self.first_stages[place.number]);
        self.conditions.of(batch, &Asked { micro, random, first_stage, device: place.device })
    }

    /// The same, some of them dropped so that guidance can be used later.
    fn dropped(&self, place: &Place<'_>, micro: u64, batch: &Batch) -> Result<Condition, RunError> {
        let given = self.given(place, micro, batch)?;
        let p = self.objective.config().conditioning_dropout_prob;
        if p == 0.0 || matches!(given, Condition::None) {
            return Ok(given);
        }
        let drop = self.random.uniform(micro, Purpose::Unconditional, batch.len());
        let drop: Vec<bool> = drop.into_iter().map(|u| u < p).collect();
        let condition = given.kind();
        let null = self.conditions.null(&given).ok_or(RunError::NoNull { condition })?;
        replaced(given, &null, &drop).ok_or(RunError::NoNull { condition })
    }

    /// A micro-batch's gradients and losses.
    fn micro(
        &self,
        place: &Place<'_>,
        working: &Denoiser,
        micro: u64,
        z: Tensor<4>,
        batch: &Batch,
    ) -> Result<(Named, Logs), RunError> {
        let device = place.device;
        device.seed(self.random.seed(micro, Purpose::Dropout));
        let [b, c, ..] = z.dims();
        let steps = self.objective.schedule().len();
        let timesteps = self.random.below(micro, Purpose::Timesteps, b, steps);
        let mut noise = self.random.normal(micro, Purpose::Noise, z.dims(), device)?;
        let offset = self.objective.config().noise_offset;
        if offset != 0.0 {
            let each = self.random.normal(micro, Purpose::NoiseOffset, [b, c, 1, 1], device)?;
            noise = offset_noise(noise, each, offset)?;
        }
        let conditioning = self.condition(working, &self.dropped(place, micro, batch)?)?;
        let numbers = |t: &[usize]| {
            let t: Vec<f32> = t.iter().map(|t| *t as f32).collect();
            Tensor::<1>::from_data(TensorData::new(t, [b]), (device, DType::F32))
        };
        let (unet, logvar) = (&working.model, working.logvar.as_ref());
        if !self.use_checkpoint {
            let denoiser = |z_t: Tensor<4>, t: &[usize]| -> Result<Tensor<4>, RunError> {
                Ok(unet.forward(z_t, numbers(t), &conditioning)?)
            };
            let losses = self.objective.loss(z, noise, &timesteps, logvar, denoiser)?;
            return Ok((gradients(working, &mut losses.loss.backward()), losses.logs));
        }
        let mut forward = None;
        let denoiser = |z_t: Tensor<4>, t: &[usize]| -> Result<Tensor<4>, RunError> {
            let made = forward.insert(Recomputed::forward(unet, z_t, numbers(t), &conditioning)?);
            Ok(made.prediction.clone())
        };
        let losses = self.objective.loss(z, noise, &timesteps, logvar, denoiser)?;
        let mut found = losses.loss.backward();
        let mut named = gradients(working, &mut found);
        if let Some(forward) = forward
            && let Some(by_prediction) = forward.prediction.grad_remove(&mut found)
        {
            named.add(forward.backward(by_prediction, working)?);
        }
        Ok((named, losses.logs))
    }

    fn condition(&self, denoiser: &Denoiser, given: &Condition) -> Result<Conditioning, RunError> {
        // A frozen one is not part of the graph.
        let tau = denoiser.cond_stage_model.as_ref();
        Ok(match tau.map(|tau| if self.train_tau { tau.clone() } else { tau.valid() }) {
            Some(tau) => tau.encode(given)?,
            None => CondStage::identity().encode(given)?,
        })
    }

    /// Pictures of these captions, drawn with the averaged weights: DDIM, guided where the model is conditional. An
    /// unconditional model draws as many.
    ///
    /// # Errors
    ///
    /// Whatever the networks refuse, as a model does that is not conditioned on texts.
    pub fn sample(&self, captions: &[String], seed: u64) -> Result<Tensor<4>, RunError> {
        match self.denoiser.cond_stage_model {
            Some(_) => self.draw(&Condition::Text(captions.to_vec()), captions.len(), seed),
            None => self.draw(&Condition::None, captions.len(), seed),
        }
    }

    /// `n` pictures of these conditions, as many, drawn as [`sample`](Self::sample) draws.
    ///
    /// # Errors
    ///
    /// Whatever the networks refuse.
    pub fn draw(&self, given: &Condition, n: usize, seed: u64) -> Result<Tensor<4>, RunError> {
        let unet = self.average().unwrap_or(&self.denoiser.model);
        let train = &self.config.train;
        let scheduler = Scheduler::from_config(SamplerKind::Ddim, &self.scheduler()?)?;
        let mut sampler = scheduler.sampler::<4>(SamplerOptions::steps(train.sample_steps))?;
        let condition = self.condition(&self.denoiser, given)?;
        let [h, w] = match &condition.concat {
            Some(concat) => [concat.dims()[2], concat.dims()[3]],
            None => self.latent_size(),
        };
        let random = Random::new(seed);
        let shape = [n, unet.config().out_channels, h, w];
        let mut z = random.normal(0, Purpose::Samples, shape, &self.device)? * sampler.init_noise_sigma();
        let mut noise = random.at(1, Purpose::Samples);
        // A model that never goes without its condition can't be guided.
        let guided = self.objective.config().conditioning_dropout_prob > 0.0 && train.sample_scale != 1.0;
        let null = match given {
            Condition::None => None,
            _ if !guided => None,
            _ => self.conditions.null(given),
        };
        let without = null.map(|null| self.condition(&self.denoiser, &null)).transpose()?;
        while let Some(t) = sampler.timestep() {
            let x = sampler.scale_model_input(z.clone());
            let t = Tensor::<1>::from_data([t], (&self.device, DType::F32));
            let mut output = unet.forward(x.clone(), t.clone(), &condition)?;
            if let Some(without) = &without {
                let free = unet.forward(x, t, without)?;
                output = free.clone() + (output - free) * train.sample_scale;
            }
            z = sampler.step(output, z, &mut noise)?;
        }
        let z = z / self.scale.unwrap_or(1.0);
        Ok(self.first_stage().decode(z)?.cast(DType::F32))
    }
}

impl Stage for DiffusionTraining {
    fn step(&mut self, at: &At, batches: &[Batch]) -> Result<Metrics, RunError> {
        let scale = self.measured_scale(at, batches)?;
        let Gathered { mut gradients, mut metrics, .. } = self.places.gather(
            at,
            batches,
            self.config.train.read_only(at.step, "loss"),
            |place| trainable(&replica(&self.denoiser, place), self.config.train.precision),
            |place, working, micro, batch| {
                let z = self.latents(place, micro, batch)? * scale;
                let found = self.micro(place, working, micro, z, batch);
                let (gradients, logs) = found.map_err(|e| of_sample(e, batch))?;
                Ok((gradients, logs, ()))
            },
        )?;
        let max_norm = self.config.train.gradient_clip_val;
        let norm = finite(at.step, "grad_norm", clip_by_global_norm(&mut gradients, max_norm))?;
        metrics.push(("grad_norm".into(), norm));
        self.denoiser = self.optimizer.step(self.denoiser.clone(), gradients, at.rate);
        if let Some(ema) = &mut self.ema {
            // Parameters that require no gradient would be copied.
            ema.update(&trainable(&self.denoiser.model, Precision::F32))?;
        }
        Ok(metrics)
    }

    fn save(&self, writer: &mut CheckpointWriter) -> Result<(), RunError> {
        writer.module("model", &self.denoiser)?;
        writer.optimizer("optimizer", &self.optimizer)?;
        if let Some(ema) = &self.ema {
            writer.module("ema", ema.model())?;
            writer.state("ema_updates", json!(ema.num_updates()));
        }
        writer.state("scale_factor", json!(self.scale));
        writer.state("first_stage", json!(self.weights));
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), RunError> {
        // Checkpoints older than this entry don't have it.
        if let Some(before) = checkpoint.optional_state::<String>("first_stage")?
            && before != self.weights
        {
            let (path, key, now) =
                (checkpoint.path().into(), "the hash of the first stage's weights", self.weights.clone());
            return Err(RunError::Changed { path, key: key.into(), before, now });
        }
        self.denoiser = checkpoint.module("model", self.denoiser.clone())?;
        self.optimizer = checkpoint.optimizer("optimizer", self.optimizer.clone())?;
        if let Some(ema) = &self.ema {
            let average = checkpoint.module("ema", ema.model().clone())?;
            self.ema = Some(Ema::resume(average, ema.decay(), checkpoint.state("ema_updates")?)?);
        }
        self.scale = checkpoint.state("scale_factor")?;
        Ok(())
    }

    fn sheets(&self, at: &At, batch: &Batch) -> Result<Vec<Sheet>, RunError> {
        let train = &self.config.train;
        let given = self.given(&self.places.first_place(), at.micro, batch)?;
        let most = train.images.max(1);
        let (given, n) = match given {
            Condition::Text(_) if !train.prompts.is_empty() => {
                let prompts: Vec<_> = train.prompts.iter().take(most).cloned().collect();
                let n = prompts.len();
                (Condition::Text(prompts), n)
            }
            given => {
                let n = batch.len().min(most);
                (given.select(&(0..n).collect::<Vec<_>>())?, n)
            }
        };
        // The same start at every step: the sheets show what training changes.
        let pictures = self.draw(&given, n, train.seed).map_err(|e| of_sample(e, batch))?;
        Ok(vec![Sheet { name: "samples", pictures, columns: n.min(8) }])
    }
}

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor};
use ldm_vae::{Encoded, FirstStage, FirstStageConfig, measure_perplexity};

use super::codebook::{CODES, Codebook};
use super::places::{Gathered, Place, Places, replica};
use super::{At, Purpose, Random, RunError, Sheet, Stage, check_device, drawn, finite};
use crate::checkpoint::{Checkpoint, CheckpointWriter};
use crate::config::{AutoencoderConfig, RunConfig, TrainConfig};
use crate::data::Batch;
use crate::log::Metrics;
use crate::optim::{AdamW, AdamWConfig, Named, Precision, clip_by_global_norm, gradients, trainable};
use crate::{FirstStageObjective, Logs, Lpips, NLayerDiscriminator, OutputLogVar, Reconstruction};

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
    /// With `reseed_every`.
    codebook: Option<Codebook>,
    /// One for each device: LPIPS has weights.
    objectives: Vec<FirstStageObjective>,
    places: Places,
    train: TrainConfig,
    /// The part of the features that training drops.
    dropout: f64,
    random: Random,
}

/// What a device holds for the autoencoder's part of a step.
struct Players {
    generator: Generator,
    discriminator: Option<NLayerDiscriminator>,
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
        let ddconfig = model.ddconfig()?;
        model.loss.validate_for(ddconfig)?;
        if let FirstStageConfig::Vq(config) = &model.first_stage {
            model.loss.validate_codes(config.n_embed)?;
        }
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
            codebook: Codebook::new(&generator.model, &model.loss),
            generator,
            critic,
            objectives: vec![objective],
            places: Places::one(device),
            train: config.train.clone(),
            dropout: ddconfig.dropout,
            random,
        })
    }

    /// Shares each step's micro-batches among these devices, as many as `train.devices` says; the first is the
    /// training's own. Without this the one device takes them all, and the losses are the same.
    ///
    /// # Errors
    ///
    /// Another number of devices, one that lacks the float type, a model with dropout.
    pub fn with_devices(mut self, devices: Vec<Device>) -> Result<Self, RunError> {
        self.places = Places::several(devices, &self.train, self.dropout)?;
        self.objectives = self.places.replicas(&self.objectives[0], FirstStageObjective::to_device);
        Ok(self)
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

    /// The autoencoder's gradients and losses on one micro-batch, and the codes that it was quantised to.
    fn generate(
        &self,
        place: &Place<'_>,
        players: &Players,
        at: &At,
        micro: u64,
        batch: &Batch,
    ) -> Result<(Named, Logs, Option<Tensor<1, Int>>), RunError> {
        place.device.seed(self.random.seed(micro, Purpose::Dropout));
        let Players { generator, discriminator } = players;
        let x = batch.to_tensor(place.device);
        let mut codes = None;
        let (reconstruction, regulariser) = match (&generator.model, generator.model.encode(x.clone())?) {
            (FirstStage::Kl(model), Encoded::Posterior(posterior)) => {
                let shape = posterior.mean().dims();
                let noise = self.random.normal(micro, Purpose::Posterior, shape, place.device)?;
                let z = posterior.sample(noise)?;
                let made = Reconstruction::new(&model.decoder, model.post_quant_conv.as_ref(), z);
                (made, posterior.kl())
            }
            (FirstStage::Vq(model), Encoded::Latent(z)) => {
                let dtype = z.dtype();
                let quantized = model.quantize.forward(z)?;
                codes = Some((quantized.codes, model.quantize.n_embed()));
                // The codebook keeps f32 where the networks are in a smaller type.
                let (conv, z_q) = (Some(&model.post_quant_conv), quantized.z_q.cast(dtype));
                (Reconstruction::new(&model.decoder, conv, z_q), quantized.loss)
            }
            _ => return Err(RunError::NotTrainable { what: "a first stage without parameters" }),
        };
        let mut loss = self.objectives[place.number].generator_loss(
            x,
            &reconstruction,
            regulariser,
            discriminator.as_ref(),
            generator.logvar.as_ref(),
            at.step,
        )?;
        if let Some((codes, n_embed)) = &codes {
            let [perplexity, used] = measure_perplexity(codes.clone(), *n_embed);
            loss.logs.push("perplexity", perplexity);
            loss.logs.push("cluster_usage", used);
        }
        let mut found = loss.surrogate.backward();
        Ok((gradients(generator, &mut found), loss.logs, codes.map(|(codes, _)| codes)))
    }

    /// The discriminator's gradients and losses on one micro-batch, which `model` reconstructs.
    fn criticise(
        &self,
        place: &Place<'_>,
        (working, model): &(NLayerDiscriminator, FirstStage),
        at: &At,
        micro: u64,
        batch: &Batch,
    ) -> Result<(Named, Logs, ()), RunError> {
        let x = batch.to_tensor(place.device);
        let encoded = model.encode(x.clone())?;
        let shape = encoded.dims();
        let noise = self.random.normal(micro, Purpose::DiscriminatorPosterior, shape, place.device)?;
        let made = model.decode(encoded.sample(noise)?)?;
        let loss = self.objectives[place.number].discriminator_loss(x, made, working, at.step)?;
        let mut found = loss.loss.backward();
        Ok((gradients(working, &mut found), loss.logs, ()))
    }

    /// Clips the gradients and adds their norm to the numbers.
    fn clipped<T>(&self, at: &At, mut gathered: Gathered<T>, name: &str) -> Result<Gathered<T>, RunError> {
        let norm = clip_by_global_norm(&mut gathered.gradients, self.train.gradient_clip_val);
        gathered.metrics.push((name.into(), finite(at.step, name, norm)?));
        Ok(gathered)
    }

    /// Moves codes that nothing chose, where it is time for that; gives how many.
    fn reseed(&mut self, at: &At, batch: &Batch) -> Result<Option<usize>, RunError> {
        let (Some(codebook), FirstStage::Vq(model)) = (&mut self.codebook, &mut self.generator.model) else {
            return Ok(None);
        };
        if !codebook.is_due(at.step + 1) {
            return Ok(None);
        }
        let z = model.encode(batch.to_tensor(self.places.first()))?;
        let (quantize, dead) = codebook.reseed(model.quantize.clone(), z, at.step, &self.random)?;
        model.quantize = quantize;
        self.optimizer.forget_rows(CODES, &dead);
        Ok(Some(dead.len()))
    }
}

/// The discriminator at a place. Beyond the first, its running statistics are thrown away with the copy, as
/// PyTorch's data parallelism does.
fn player(discriminator: &NLayerDiscriminator, place: &Place<'_>) -> NLayerDiscriminator {
    match place.number {
        0 => discriminator.clone(),
        _ => discriminator.apart().to_device(place.device),
    }
}

impl Stage for AutoencoderTraining {
    fn step(&mut self, at: &At, batches: &[Batch]) -> Result<Metrics, RunError> {
        let players = |place: &Place<'_>| Players {
            generator: trainable(&replica(&self.generator, place), self.train.precision),
            discriminator: self.discriminator().map(|discriminator| player(discriminator, place)),
        };
        let found = self.places.gather(
            at,
            batches,
            self.train.read_only(at.step, "total_loss"),
            players,
            |place, players, micro, batch| self.generate(place, players, at, micro, batch),
        )?;
        let Gathered { gradients, mut metrics, rest: codes } = self.clipped(at, found, "grad_norm")?;
        self.generator = self.optimizer.step(self.generator.clone(), gradients, at.rate);
        if let Some(codebook) = &mut self.codebook {
            codebook.count(&codes);
        }

        let plays = self.objectives[0].config().disc_factor(at.step) != 0.0;
        if plays && let Some(critic) = &self.critic {
            let working = |place: &Place<'_>| {
                let discriminator = player(&critic.discriminator, place);
                (trainable(&discriminator, Precision::F32), replica(self.model(), place))
            };
            let found = self.places.gather(
                at,
                batches,
                self.train.read_only(at.step, "disc_loss"),
                working,
                |place, players, micro, batch| self.criticise(place, players, at, micro, batch),
            )?;
            let Gathered { gradients, metrics: more, .. } = self.clipped(at, found, "disc_grad_norm")?;
            metrics.extend(more);
            if let Some(critic) = &mut self.critic {
                critic.discriminator =
                    critic.optimizer.step(critic.discriminator.clone(), gradients, at.rate);
            }
        } else if let Some(critic) = &mut self.critic {
            // Before `disc_start` its loss is zero times something; the reference's optimiser counts the step.
            critic.optimizer.idle();
        }
        if let Some(batch) = batches.first()
            && let Some(moved) = self.reseed(at, batch)?
        {
            metrics.push(("codes_reseeded".into(), moved as f64));
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
        if let Some(codebook) = &self.codebook {
            codebook.save(writer);
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
        if let Some(codebook) = &mut self.codebook {
            codebook.restore(checkpoint)?;
        }
        Ok(())
    }

    fn sheets(&self, _: &At, batch: &Batch) -> Result<Vec<Sheet>, RunError> {
        let n = batch.len().min(self.train.images.max(1));
        let x = batch.to_tensor(self.places.first()).narrow(0, 0, n);
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

#![doc = include_str!("../README.md")]
//!
//! # Second stage
//!
//! [`ObjectiveConfig`] is read from a CompVis YAML file's `model.params`; [`Objective::loss`] is a function of
//! latents, noise and timesteps, all drawn by the caller:
//!
//! ```
//! # use burn::tensor::{Device, Tensor};
//! # use ldm_train::{Objective, ObjectiveConfig, ObjectiveError};
//! let config: ObjectiveConfig = serde_json::from_str(r#"{"parameterization": "v", "snr_gamma": 5.0}"#).unwrap();
//! let objective = Objective::from_config(&config)?;
//! # let device = Device::default();
//! # let (z, noise) = (Tensor::<4>::ones([2, 4, 8, 8], &device), Tensor::<4>::ones([2, 4, 8, 8], &device));
//! let losses = objective.loss(z, noise, &[17, 940], None, |z_t, timesteps| {
//!     // unet.forward(z_t, timesteps, &conditioning)
//! #   let _ = timesteps;
//!     Ok::<_, ObjectiveError>(z_t)
//! })?;
//! // losses.loss.backward() ...
//! for (name, value) in losses.logs.read() {
//!     println!("train/{name}: {value}");
//! }
//! # Ok::<_, ObjectiveError>(())
//! ```
//!
//! [`Objective::logvar`] gives the module of learned log-variances, [`offset_noise`] the noise with an offset,
//! [`ObjectiveConfig::latent_scale`] the latents' factor, [`Ema`] the average of the U-Net.
//!
//! # First stage
//!
//! [`FirstStageLossConfig`] is a YAML file's `lossconfig`. A step is two: the autoencoder's, then the discriminator's
//! on pictures that the updated autoencoder makes anew.
//!
//! ```no_run
//! # use burn::module::Module;
//! # use burn::tensor::{Device, Tensor};
//! # use ldm_train::{FirstStageLossConfig, FirstStageObjective, Lpips, Reconstruction};
//! # fn step(vae: ldm_vae::AutoencoderKl, x: Tensor<4>, noise: [Tensor<4>; 2]) -> Result<(), Box<dyn std::error::Error>> {
//! # let (device, step) = (Device::default(), 0);
//! let params = serde_json::json!({"disc_start": 50001, "kl_weight": 1e-6, "disc_weight": 0.5});
//! let config = FirstStageLossConfig::from_target("ldm.modules.losses.LPIPSWithDiscriminator", &params)?;
//! let lpips = Lpips::load("vgg_lpips.safetensors", None, &device)?;
//! let objective = FirstStageObjective::new(&config, Some(lpips))?;
//! let discriminator = objective.discriminator(&device.clone().autodiff());
//!
//! let [noise, fresh] = noise;
//! let posterior = vae.encode(x.clone())?;
//! let z = posterior.sample(noise)?;
//! let made = Reconstruction::new(&vae.decoder, vae.post_quant_conv.as_ref(), z);
//! let loss = objective.generator_loss(x.clone(), &made, posterior.kl(), discriminator.as_ref(), None, step)?;
//! // GradientsParams::from_grads(loss.surrogate.backward(), &vae), one step of the first Adam, then:
//! if let Some(discriminator) = &discriminator {
//!     let plain = vae.valid(); // the discriminator's step needs no gradient of the autoencoder
//!     let made = plain.decode(plain.encode(x.clone().inner())?.sample(fresh.inner())?)?;
//!     let loss = objective.discriminator_loss(x, made, discriminator, step)?;
//!     // GradientsParams::from_grads(loss.loss.backward(), discriminator), one step of the second Adam.
//! }
//! # Ok(()) }
//! ```

pub mod checkpoint;
pub mod conditions;
pub mod config;
pub mod data;
pub mod evaluate;
pub mod export;
pub mod log;
pub mod metrics;

mod discriminator;
mod ema;
mod fine_tune;
mod first_stage;
mod lpips;
mod objective;
mod pixels;

pub mod optim;
pub mod parallel;
pub mod run;

pub use discriminator::{BatchNorm2d, DiscriminatorBlock, DiscriminatorConfig, NLayerDiscriminator};
pub use ema::{Ema, EmaError};
pub use fine_tune::{FineTuneConfig, FineTuneError, FineTuneStep, FineTuning, MicroBatch};
pub use first_stage::{
    DiscLoss, DiscriminatorLoss, FirstStageError, FirstStageLossConfig, FirstStageObjective, GeneratorLoss,
    KlLossConfig, OutputLogVar, PixelLoss, Reconstruction, VqLossConfig,
};
pub use lpips::Lpips;
pub use objective::{
    LogVar, Logs, LossType, Losses, Objective, ObjectiveConfig, ObjectiveError, Parameterization,
    offset_noise,
};
pub use run::RunError;

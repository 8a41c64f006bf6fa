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
//! [`DropMask`] and [`drop_conditioning`] what guidance needs, [`ObjectiveConfig::latent_scale`] the latents' factor,
//! [`Ema`] the average of the U-Net.

pub mod metrics;

mod ema;
mod objective;

pub use ema::{Ema, EmaError};
pub use objective::{
    DropMask, LogVar, Logs, LossType, Losses, Objective, ObjectiveConfig, ObjectiveError, Parameterization,
    drop_conditioning, offset_noise,
};

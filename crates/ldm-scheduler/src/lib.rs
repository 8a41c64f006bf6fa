#![doc = include_str!("../README.md")]

mod config;
mod error;
mod kind;
mod limit;
mod mt19937;
mod native_rng;
mod noise;
mod prediction;
mod sampler;
mod samplers;
mod schedule;
mod scheduler;
mod sigmas;
mod timesteps;
mod torch_rng;

pub use config::SchedulerConfig;
pub use error::Error;
pub use kind::SamplerKind;
pub use native_rng::NativeRng;
pub use noise::{Noise, randn};
pub use prediction::Prediction;
pub use sampler::{DenoisedFn, Sampler, SamplerOptions};
pub use schedule::NoiseSchedule;
pub use scheduler::Scheduler;
pub use torch_rng::TorchRng;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::VaeError;

/// How a first stage's latents are brought to about unit variance for the diffusion model.
///
/// Source: paper, sections 4.3.2 and D.1 (`scale_factor` in the reference's `ddpm.py`,
/// `scaling_factor` and `shift_factor` in diffusers).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatentScaling {
    /// Multiplies the latent; 1 in the reference unless its config or checkpoint says otherwise.
    pub scaling_factor: f64,
    /// Subtracted from the latent before scaling.
    pub shift_factor: Option<f64>,
    /// Subtracted from each channel before scaling; `latents_std` must be there too.
    pub latents_mean: Option<Vec<f64>>,
    /// Divides each channel.
    pub latents_std: Option<Vec<f64>>,
}

impl Default for LatentScaling {
    fn default() -> Self {
        Self::factor(1.0)
    }
}

impl LatentScaling {
    /// Scaling by one number.
    pub fn factor(scaling_factor: f64) -> Self {
        Self { scaling_factor, shift_factor: None, latents_mean: None, latents_std: None }
    }

    /// Says what keeps latents of `channels` channels from being scaled.
    pub(crate) fn validate(&self, channels: usize) -> Result<(), VaeError> {
        if !(self.scaling_factor.is_finite() && self.scaling_factor != 0.0) {
            return Err(VaeError::config("scaling_factor", self.scaling_factor, "must be finite and not 0"));
        }
        for (key, values) in [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)] {
            if values.as_ref().is_some_and(|values| values.len() != channels) {
                return Err(VaeError::config(key, values, format!("the latent has {channels} channels")));
            }
        }
        if self.latents_mean.is_some() != self.latents_std.is_some() {
            let reason = "comes with latents_std or not at all";
            return Err(VaeError::config("latents_mean", &self.latents_mean, reason));
        }
        Ok(())
    }

    /// From the first stage's latent to the diffusion model's:
    /// `(z - shift) * scaling_factor`, or `(z - mean) * scaling_factor / std` a channel.
    ///
    /// `[b, c, h, w] -> [b, c, h, w]`, where c is the length of `latents_mean` if there is one.
    pub fn scale(&self, z: Tensor<4>) -> Tensor<4> {
        match self.statistics(&z) {
            Some((mean, std)) => (z - mean) * self.scaling_factor / std,
            None => match self.shift_factor {
                Some(shift) => (z - shift) * self.scaling_factor,
                None => z * self.scaling_factor,
            },
        }
    }

    /// The inverse of [`scale`](Self::scale): what the decoder takes.
    pub fn unscale(&self, z: Tensor<4>) -> Tensor<4> {
        match self.statistics(&z) {
            Some((mean, std)) => z * std / self.scaling_factor + mean,
            None => match self.shift_factor {
                Some(shift) => z / self.scaling_factor + shift,
                None => z / self.scaling_factor,
            },
        }
    }

    fn statistics(&self, z: &Tensor<4>) -> Option<(Tensor<4>, Tensor<4>)> {
        let (mean, std) = (self.latents_mean.as_ref()?, self.latents_std.as_ref()?);
        let channels = |values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            let data = TensorData::new(values, [1, mean.len(), 1, 1]);
            let device: Device = z.device();
            Tensor::<4>::from_data(data, &device).cast(z.dtype())
        };
        Some((channels(mean), channels(std)))
    }
}

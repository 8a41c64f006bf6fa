use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Error, SchedulerConfig};

/// What a denoiser predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise (Ho et al. 2020).
    #[default]
    Epsilon,
    /// The clean sample, x0.
    Sample,
    /// The velocity `alpha noise - sigma x0` (Salimans & Ho 2022).
    VPrediction,
}

use Prediction::*;

const PREDICTIONS: [(&str, Prediction); 3] =
    [("epsilon", Epsilon), ("v_prediction", VPrediction), ("sample", Sample)];

impl Prediction {
    /// The config's `prediction_type`; epsilon where it is absent.
    pub fn from_config(config: &SchedulerConfig) -> Result<Self, Error> {
        config.choice("prediction_type", &PREDICTIONS, Epsilon)
    }

    /// For the samplers that don't take x0 predictions.
    pub(crate) fn epsilon_or_v(config: &SchedulerConfig) -> Result<Self, Error> {
        config.choice("prediction_type", &PREDICTIONS[..2], Epsilon)
    }

    /// x0 from the output at `x = alpha x0 + sigma noise`, `alpha^2 + sigma^2 = 1`.
    pub fn x0<const D: usize>(self, x: &Tensor<D>, output: Tensor<D>, alpha: f32, sigma: f32) -> Tensor<D> {
        match self {
            Epsilon => (x.clone() - output * sigma) / alpha,
            Sample => output,
            VPrediction => x.clone() * alpha - output * sigma,
        }
    }

    /// The noise from the output at `x = alpha x0 + sigma noise`, `alpha^2 + sigma^2 = 1`.
    pub fn epsilon<const D: usize>(
        self,
        x: &Tensor<D>,
        output: Tensor<D>,
        alpha: f32,
        sigma: f32,
    ) -> Tensor<D> {
        match self {
            Epsilon => output,
            Sample => (x.clone() - output * alpha) / sigma,
            VPrediction => output * alpha + x.clone() * sigma,
        }
    }

    /// x0 from the output at `x = x0 + sigma noise`, where the denoiser saw `x / sqrt(sigma^2 + 1)`
    /// (Karras et al. 2022, table 1: c_skip and c_out).
    pub fn denoised<const D: usize>(self, x: &Tensor<D>, output: Tensor<D>, sigma: f32) -> Tensor<D> {
        match self {
            Epsilon => x.clone() - output * sigma,
            Sample => output,
            VPrediction => {
                let variance = sigma * sigma + 1.0;
                output * (-sigma / variance.sqrt()) + x.clone() / variance
            }
        }
    }
}

use std::f64::consts::PI;

use burn::tensor::{DType, Tensor};

use crate::VaeError;

/// A Gaussian with a mean and a variance for every element of the latent, none correlated.
///
/// Everything below is computed in f32, whatever the model's type: the variance reaches e^20.
/// Source: `DiagonalGaussianDistribution` in the reference's `distributions.py`.
#[derive(Debug, Clone)]
pub struct DiagonalGaussian {
    mean: Tensor<4>,
    logvar: Tensor<4>,
}

impl DiagonalGaussian {
    /// A Gaussian of this mean and log-variance, both `[b, c, h, w]`; the latter is clamped to [-30, 20].
    pub fn new(mean: Tensor<4>, logvar: Tensor<4>) -> Result<Self, VaeError> {
        let gaussian = Self { mean, logvar: logvar.clamp(-30.0, 20.0) };
        gaussian.check("the log-variance", &gaussian.logvar)?;
        Ok(gaussian)
    }

    /// From `[b, 2 c, h, w]`: mean, then log-variance.
    pub(crate) fn from_moments(moments: Tensor<4>) -> Result<Self, VaeError> {
        let c = moments.dims()[1] / 2;
        Self::new(moments.clone().narrow(1, 0, c), moments.narrow(1, c, c))
    }

    /// `[b, c, h, w]`.
    pub fn mean(&self) -> Tensor<4> {
        self.mean.clone()
    }

    /// `[b, c, h, w]`, in [-30, 20].
    pub fn logvar(&self) -> Tensor<4> {
        self.logvar.clone()
    }

    /// `[b, c, h, w]`, in f32.
    pub fn var(&self) -> Tensor<4> {
        self.logvar32().exp()
    }

    /// `[b, c, h, w]`, in f32.
    pub fn std(&self) -> Tensor<4> {
        self.logvar32().mul_scalar(0.5).exp()
    }

    /// The most likely latent: the mean.
    pub fn mode(&self) -> Tensor<4> {
        self.mean()
    }

    /// `mean + std * noise`; `noise` is N(0, 1) of the mean's shape. Gives the mean's type.
    pub fn sample(&self, noise: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        self.check("noise", &noise)?;
        let z = self.mean32() + self.std() * noise.cast(DType::F32);
        Ok(z.cast(self.mean.dtype()))
    }

    /// KL divergence from N(0, 1), summed over each item: `[b]`.
    pub fn kl(&self) -> Tensor<1> {
        sum(self.mean32().square() + self.var() - 1.0 - self.logvar32()) * 0.5
    }

    /// KL divergence from `other`, summed over each item: `[b]`.
    pub fn kl_from(&self, other: &Self) -> Result<Tensor<1>, VaeError> {
        self.check("the other Gaussian", &other.mean)?;
        let distance = (self.mean32() - other.mean32()).square();
        let log_ratio = other.logvar32() - self.logvar32();
        Ok(sum((distance + self.var()) / other.var() - 1.0 + log_ratio) * 0.5)
    }

    /// Negative log-likelihood of `sample`, summed over each item: `[b]`.
    pub fn nll(&self, sample: Tensor<4>) -> Result<Tensor<1>, VaeError> {
        self.check("sample", &sample)?;
        let distance = (sample.cast(DType::F32) - self.mean32()).square();
        Ok(sum(self.logvar32() + distance / self.var() + (2.0 * PI).ln()) * 0.5)
    }

    fn mean32(&self) -> Tensor<4> {
        self.mean.clone().cast(DType::F32)
    }

    fn logvar32(&self) -> Tensor<4> {
        self.logvar.clone().cast(DType::F32)
    }

    fn check(&self, what: &'static str, x: &Tensor<4>) -> Result<(), VaeError> {
        if x.dims() == self.mean.dims() {
            return Ok(());
        }
        Err(VaeError::Shape { what, expected: format!("{:?}", self.mean.dims()), actual: x.dims().to_vec() })
    }
}

/// `[b, ..] -> [b]`.
fn sum(x: Tensor<4>) -> Tensor<1> {
    let b = x.dims()[0];
    x.reshape([b as i32, -1]).sum_dim(1).reshape([b])
}

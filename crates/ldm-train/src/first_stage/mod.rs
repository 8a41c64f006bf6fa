//! The first stage's objective.

mod adaptive;
mod config;
mod error;
mod gan;

pub use adaptive::Reconstruction;
pub use config::{DiscLoss, FirstStageLossConfig, KlLossConfig, PixelLoss, VqLossConfig};
pub use error::FirstStageError;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

use crate::Logs;
use crate::discriminator::NLayerDiscriminator;
use crate::lpips::Lpips;
use config::Shared;

/// The losses of both players in the first stage's training: pixels and LPIPS, a discriminator, and the KL
/// divergence or the codebook loss (Rombach et al. 2022, section 3.1 and appendix G).
///
/// Source: `LPIPSWithDiscriminator` in CompVis' contperceptual.py, which sums, and `VQLPIPSWithDiscriminator` in its
/// vqperceptual.py, which takes means.
#[derive(Debug, Clone)]
pub struct FirstStageObjective {
    config: FirstStageLossConfig,
    lpips: Option<Lpips>,
}

/// The log-variance of the reconstruction (`logvar` of contperceptual.py), with `learn_logvar`.
#[derive(Module, Debug)]
pub struct OutputLogVar {
    /// `[1]`.
    pub logvar: Param<Tensor<1>>,
}

/// The autoencoder's part of a step.
#[derive(Debug)]
pub struct GeneratorLoss {
    /// What to call `backward` on, `[1]`: its gradient is the loss's, its value is not (that one is the log
    /// `total_loss`).
    pub surrogate: Tensor<1>,
    /// As the reference's.
    pub logs: Logs,
}

/// The discriminator's part of a step.
#[derive(Debug)]
pub struct DiscriminatorLoss {
    /// What to call `backward` on, `[1]`.
    pub loss: Tensor<1>,
    /// `disc_loss`, `logits_real`, `logits_fake`.
    pub logs: Logs,
}

impl FirstStageObjective {
    /// The loss that the config describes. `lpips`: on the device of the training, without autodiff; where it is
    /// missing, training goes on with the pixels alone, and a warning says so.
    ///
    /// # Errors
    /// [`FirstStageError::Value`] names the key that can't be used.
    pub fn new(config: &FirstStageLossConfig, lpips: Option<Lpips>) -> Result<Self, FirstStageError> {
        config.validate()?;
        let wanted = config.shared().perceptual_weight > 0.0;
        if wanted && lpips.is_none() {
            tracing::warn!(
                "no LPIPS weights: the first stage is trained on pixels alone, `perceptual_weight` does not count"
            );
        }
        Ok(Self { config: config.clone(), lpips: lpips.filter(|_| wanted) })
    }

    /// The same on another device: LPIPS has weights.
    pub(crate) fn to_device(&self, device: &Device) -> Self {
        let lpips = self.lpips.clone().map(|lpips| lpips.to_device(device));
        Self { config: self.config.clone(), lpips }
    }

    /// The config.
    pub fn config(&self) -> &FirstStageLossConfig {
        &self.config
    }

    /// A fresh discriminator, where the config has one.
    pub fn discriminator(&self, device: &Device) -> Option<NLayerDiscriminator> {
        self.config.discriminator().map(|config| config.init(device))
    }

    /// The log-variance to learn, where the config says so: to be given to the autoencoder's optimiser and to
    /// [`generator_loss`](Self::generator_loss).
    pub fn logvar(&self, device: &Device) -> Option<OutputLogVar> {
        match &self.config {
            FirstStageLossConfig::Kl(config) if config.learn_logvar => {
                let value = Tensor::full([1], config.logvar_init, (device, DType::F32));
                Some(OutputLogVar { logvar: Param::from_tensor(value) })
            }
            _ => None,
        }
    }

    /// The autoencoder's loss.
    ///
    /// `inputs` `[b, c, h, w]` in [-1, 1]; `regulariser`: the KL divergences `[b]`, or the codebook loss `[1]`;
    /// `discriminator`: as it stands, not frozen, and its gradients are not taken; `step`: counts batches. Until
    /// `disc_start` the discriminator does not run, and `d_weight` and `g_loss` are 0 in the logs.
    ///
    /// # Errors
    /// Shapes that don't fit, a model without autodiff, a missing discriminator or log-variance.
    pub fn generator_loss(
        &self,
        inputs: Tensor<4>,
        reconstruction: &Reconstruction<'_>,
        regulariser: Tensor<1>,
        discriminator: Option<&NLayerDiscriminator>,
        logvar: Option<&OutputLogVar>,
        step: u64,
    ) -> Result<GeneratorLoss, FirstStageError> {
        let shared = self.config.shared();
        let x = reconstruction.picture();
        if !x.is_tracked() {
            return Err(FirstStageError::NoGradient);
        }
        let inputs = inputs.inner().cast(DType::F32);
        self.check(&inputs, &x, &shared)?;

        // Each loss is a branch from the picture, since backward consumes what it walks.
        let r = x.clone().detach().cast(DType::F32).detach().require_grad();
        let Branch { nll, rec_loss, p_loss, logvar: logvar_now } =
            self.nll(inputs, r.clone(), logvar, &shared)?;
        let gradients = nll.backward();
        let by_logvar = logvar.and_then(|l| l.logvar.val().grad(&gradients));
        let mut by_picture = gradient(&r, &gradients);

        let factor = self.config.disc_factor(step);
        let zero = Tensor::zeros([1], (&x.device().inner(), DType::F32));
        let (mut d_weight, mut g_loss) = (zero.clone(), zero);
        if factor != 0.0 {
            let discriminator = discriminator
                .ok_or(FirstStageError::Missing { what: "the discriminator", key: "disc_factor" })?;
            // The discriminator keeps its own type, whatever the autoencoder's.
            let r = x.clone().detach().cast(discriminator.dtype()).detach().require_grad();
            let loss = gan::generator(discriminator.without_gradients().forward(r.clone()));
            let by_g = gradient(&r, &loss.backward()).cast(DType::F32);
            d_weight = adaptive::weight(reconstruction, by_picture.clone(), by_g.clone(), shared.disc_weight);
            by_picture = by_picture + by_g * (d_weight.clone() * factor).reshape([1, 1, 1, 1]);
            g_loss = loss.inner();
        }

        let regulariser = regulariser.cast(DType::F32).mean();
        let mut surrogate =
            (x.cast(DType::F32) * by_picture).sum() + regulariser.clone() * shared.regulariser_weight;
        if let (Some(OutputLogVar { logvar }), Some(by_logvar)) = (logvar, by_logvar) {
            surrogate = surrogate + logvar.val() * by_logvar;
        }

        let (nll, regulariser) = (nll.inner(), regulariser.inner());
        let total = nll.clone()
            + regulariser.clone() * shared.regulariser_weight
            + d_weight.clone() * g_loss.clone() * factor;
        let mut logs = Logs::default();
        logs.push("total_loss", total);
        match &self.config {
            FirstStageLossConfig::Kl(_) => {
                logs.push("logvar", logvar_now);
                logs.push("kl_loss", regulariser);
                logs.push("nll_loss", nll);
                logs.push("rec_loss", rec_loss);
            }
            FirstStageLossConfig::Vq(_) => {
                logs.push("quant_loss", regulariser);
                logs.push("nll_loss", nll);
                logs.push("rec_loss", rec_loss);
                logs.push("p_loss", p_loss);
            }
        }
        logs.push("disc_factor", Tensor::full([1], factor, (&d_weight.device(), DType::F32)));
        logs.push("d_weight", d_weight);
        logs.push("g_loss", g_loss);
        Ok(GeneratorLoss { surrogate, logs })
    }

    /// The discriminator's loss, on a reconstruction that was made anew by the updated autoencoder, from a fresh
    /// sample of its posterior.
    ///
    /// `inputs` and `reconstructions` `[b, c, h, w]`; only the discriminator gets a gradient. Until `disc_start` it
    /// is zero, and the reference's optimiser counts those steps too.
    ///
    /// # Errors
    /// Shapes that don't fit.
    pub fn discriminator_loss(
        &self,
        inputs: Tensor<4>,
        reconstructions: Tensor<4>,
        discriminator: &NLayerDiscriminator,
        step: u64,
    ) -> Result<DiscriminatorLoss, FirstStageError> {
        let shared = self.config.shared();
        self.check(&inputs, &reconstructions, &shared)?;
        let dtype = discriminator.dtype();
        let [real, fake] =
            [inputs, reconstructions].map(|x| discriminator.forward(constant(x, discriminator).cast(dtype)));
        let (logits_real, logits_fake) = (real.clone().mean(), fake.clone().mean());
        let loss = gan::discriminator(shared.disc_loss, real, fake) * self.config.disc_factor(step);
        let mut logs = Logs::default();
        logs.push("disc_loss", loss.clone());
        logs.push("logits_real", logits_real);
        logs.push("logits_fake", logits_fake);
        Ok(DiscriminatorLoss { loss, logs })
    }

    fn check(&self, inputs: &Tensor<4>, picture: &Tensor<4>, shared: &Shared) -> Result<(), FirstStageError> {
        let (actual, expected) = (picture.dims(), inputs.dims());
        let shape = |what, actual: [usize; 4], expected: String| {
            Err(FirstStageError::Shape { what, actual: actual.to_vec(), expected })
        };
        if actual != expected {
            return shape("reconstruction", actual, format!("{expected:?}"));
        }
        let [_, c, h, w] = actual;
        if shared.disc_factor != 0.0 {
            let (channels, side) = (shared.discriminator.input_nc, shared.discriminator.least_side());
            if c != channels || h < side || w < side {
                let expected = format!("[b, {channels}, h, w] with sides of at least {side}");
                return shape("what the discriminator sees", actual, expected);
            }
        }
        if self.lpips.is_some() && (c != 3 || h < Lpips::LEAST_SIDE || w < Lpips::LEAST_SIDE) {
            let expected = format!("[b, 3, h, w] with sides of at least {}", Lpips::LEAST_SIDE);
            return shape("what LPIPS sees", actual, expected);
        }
        Ok(())
    }

    /// The reconstruction's negative log-likelihood; `inputs` and `r` in f32.
    fn nll(
        &self,
        inputs: Tensor<4>,
        r: Tensor<4>,
        logvar: Option<&OutputLogVar>,
        shared: &Shared,
    ) -> Result<Branch, FirstStageError> {
        let [_, c, h, w] = r.dims();
        let difference = r.clone() - inputs.clone();
        let pixels = match shared.pixel_loss {
            PixelLoss::L1 => difference.abs(),
            PixelLoss::L2 => difference.square(),
        };
        // One number an item, broadcast over all its pixels: their mean is its mean.
        let p_loss = self.lpips.as_ref().map(|lpips| lpips.forward(inputs, r).mean());
        let rec_loss = match &p_loss {
            Some(p_loss) => pixels.mean() + p_loss.clone() * shared.perceptual_weight,
            None => pixels.mean(),
        };
        let zero = || Tensor::zeros_like(&rec_loss.clone().inner());
        let (nll, logvar) = match &self.config {
            FirstStageLossConfig::Kl(config) => {
                // The sum over everything, divided by the batch, from the mean over everything.
                let each = (c * h * w) as f64;
                match (config.learn_logvar, logvar) {
                    (true, None) => {
                        let what = "the log-variance";
                        return Err(FirstStageError::Missing { what, key: "learn_logvar" });
                    }
                    (true, Some(OutputLogVar { logvar })) => {
                        let logvar = logvar.val();
                        let nll = (rec_loss.clone() / logvar.clone().exp() + logvar.clone()) * each;
                        (nll, logvar.inner())
                    }
                    (false, _) => {
                        let logvar = config.logvar_init;
                        let nll = (rec_loss.clone() / logvar.exp() + logvar) * each;
                        (nll, zero() + logvar)
                    }
                }
            }
            FirstStageLossConfig::Vq(_) => (rec_loss.clone(), zero()),
        };
        let p_loss = p_loss.unwrap_or_else(zero);
        Ok(Branch { nll, rec_loss, p_loss, logvar })
    }
}

/// What the reconstruction's branch gives, `[1]` each.
struct Branch {
    nll: Tensor<1>,
    rec_loss: Tensor<1>,
    p_loss: Tensor<1>,
    logvar: Tensor<1>,
}

fn gradient(leaf: &Tensor<4>, gradients: &burn::tensor::Gradients) -> Tensor<4> {
    leaf.grad(gradients).unwrap_or_else(|| Tensor::zeros_like(&leaf.clone().inner()))
}

/// `x` without a gradient, on the same kind of autodiff device as the network.
fn constant(x: Tensor<4>, network: &NLayerDiscriminator) -> Tensor<4> {
    let x = x.inner();
    match network.conv_in.weight.val().gradient_checkpointing_strategy() {
        Some(strategy) => x.autodiff().with_gradient_checkpointing_strategy(strategy),
        None => x,
    }
}

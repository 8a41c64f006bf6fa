use ldm_vae::DdConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::FirstStageError;
use crate::discriminator::DiscriminatorConfig;

/// What the discriminator's logits are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscLoss {
    /// `relu(1 - real) + relu(1 + fake)`.
    #[default]
    Hinge,
    /// `softplus(-real) + softplus(fake)`.
    Vanilla,
}

/// The distance between picture and reconstruction, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PixelLoss {
    /// `|x - y|`.
    #[default]
    L1,
    /// `(x - y)^2`.
    L2,
}

/// The first stage's loss: `lossconfig` of a CompVis YAML file, of either class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "regulariser", rename_all = "snake_case")]
pub enum FirstStageLossConfig {
    /// `ldm.modules.losses.LPIPSWithDiscriminator`.
    Kl(KlLossConfig),
    /// `taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator`, or LD's of the same name.
    Vq(VqLossConfig),
}

/// `params` of an `LPIPSWithDiscriminator` (contperceptual.py), with its defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KlLossConfig {
    /// The step at which the discriminator begins to count.
    pub disc_start: u64,
    /// The log-variance of the reconstruction.
    pub logvar_init: f64,
    /// Whether that log-variance is learned. The reference makes it a parameter and gives it to no optimiser, so
    /// it stays; here it can be moved.
    pub learn_logvar: bool,
    /// Weight of the KL divergence, which stands beside a sum over all pixels.
    pub kl_weight: f64,
    /// The reference reads it and uses it nowhere: only 1.
    pub pixelloss_weight: f64,
    /// Layers of the discriminator.
    pub disc_num_layers: usize,
    /// Channels of what the discriminator sees.
    pub disc_in_channels: usize,
    /// Weight of both players' adversarial losses; 0: no discriminator.
    pub disc_factor: f64,
    /// Weight of the generator's adversarial loss, beside the adaptive one.
    pub disc_weight: f64,
    /// Weight of LPIPS.
    pub perceptual_weight: f64,
    /// Not supported.
    pub use_actnorm: bool,
    /// Not supported.
    pub disc_conditional: bool,
    /// Hinge or vanilla.
    pub disc_loss: DiscLoss,
}

/// `params` of a `VQLPIPSWithDiscriminator` (vqperceptual.py), with its defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VqLossConfig {
    /// The step at which the discriminator begins to count.
    pub disc_start: u64,
    /// Weight of the codebook loss.
    pub codebook_weight: f64,
    /// The reference reads it and uses it nowhere: only 1.
    pub pixelloss_weight: f64,
    /// Layers of the discriminator.
    pub disc_num_layers: usize,
    /// Channels of what the discriminator sees.
    pub disc_in_channels: usize,
    /// Weight of both players' adversarial losses; 0: no discriminator.
    pub disc_factor: f64,
    /// Weight of the generator's adversarial loss, beside the adaptive one.
    pub disc_weight: f64,
    /// Weight of LPIPS.
    pub perceptual_weight: f64,
    /// Not supported.
    pub use_actnorm: bool,
    /// Not supported.
    pub disc_conditional: bool,
    /// Base width of the discriminator.
    pub disc_ndf: usize,
    /// Hinge or vanilla.
    pub disc_loss: DiscLoss,
    /// The codebook's size, for the figure of its use alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_classes: Option<usize>,
    /// Only `lpips`.
    pub perceptual_loss: String,
    /// L1 or L2.
    pub pixel_loss: PixelLoss,
    /// Ours: steps after which codes that were never chosen in them are moved to where latents are; not given: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reseed_every: Option<u64>,
}

/// Of the KL loss, which has no key for it.
const NDF: usize = 64;

impl Default for KlLossConfig {
    fn default() -> Self {
        Self {
            disc_start: 0,
            logvar_init: 0.0,
            learn_logvar: false,
            kl_weight: 1.0,
            pixelloss_weight: 1.0,
            disc_num_layers: 3,
            disc_in_channels: 3,
            disc_factor: 1.0,
            disc_weight: 1.0,
            perceptual_weight: 1.0,
            use_actnorm: false,
            disc_conditional: false,
            disc_loss: DiscLoss::Hinge,
        }
    }
}

impl Default for VqLossConfig {
    fn default() -> Self {
        Self {
            disc_start: 0,
            codebook_weight: 1.0,
            pixelloss_weight: 1.0,
            disc_num_layers: 3,
            disc_in_channels: 3,
            disc_factor: 1.0,
            disc_weight: 1.0,
            perceptual_weight: 1.0,
            use_actnorm: false,
            disc_conditional: false,
            disc_ndf: NDF,
            disc_loss: DiscLoss::Hinge,
            n_classes: None,
            perceptual_loss: "lpips".into(),
            pixel_loss: PixelLoss::L1,
            reseed_every: None,
        }
    }
}

/// What both losses have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    pub pixel_loss: PixelLoss,
    pub perceptual_weight: f64,
    pub disc_start: u64,
    pub disc_factor: f64,
    pub disc_weight: f64,
    pub disc_loss: DiscLoss,
    /// Of the KL divergence or the codebook loss.
    pub regulariser_weight: f64,
    pub discriminator: DiscriminatorConfig,
}

impl FirstStageLossConfig {
    /// The loss of a YAML file's `lossconfig`: `target` names the class, `params` are its arguments.
    ///
    /// # Errors
    /// Another class, an unknown key, a value of a wrong type; a value that can't be used.
    pub fn from_target(target: &str, params: &Value) -> Result<Self, FirstStageError> {
        let read =
            |error: serde_path_to_error::Error<_>| FirstStageError::Config { problem: error.to_string() };
        let config = match target.rsplit('.').next() {
            Some("LPIPSWithDiscriminator") => {
                Self::Kl(serde_path_to_error::deserialize(params).map_err(read)?)
            }
            Some("VQLPIPSWithDiscriminator") => {
                Self::Vq(serde_path_to_error::deserialize(params).map_err(read)?)
            }
            _ => {
                let problem = format!(
                    "`target` is {target}, expected LPIPSWithDiscriminator or VQLPIPSWithDiscriminator"
                );
                return Err(FirstStageError::Config { problem });
            }
        };
        config.validate()?;
        Ok(config)
    }

    /// Says what keeps this config from being used.
    ///
    /// # Errors
    /// [`FirstStageError::Value`] names the key.
    pub fn validate(&self) -> Result<(), FirstStageError> {
        let (pixelloss_weight, use_actnorm, disc_conditional, kind) = match self {
            Self::Kl(c) => (
                c.pixelloss_weight,
                c.use_actnorm,
                c.disc_conditional,
                [("kl_weight", c.kl_weight), ("logvar_init", c.logvar_init)],
            ),
            Self::Vq(c) => {
                if c.perceptual_loss != "lpips" {
                    let (key, value) = ("perceptual_loss", c.perceptual_loss.clone());
                    return Err(FirstStageError::Value {
                        key,
                        value,
                        expected: "lpips: no other is supported",
                    });
                }
                if c.reseed_every == Some(0) {
                    let (key, value) = ("reseed_every", "0".into());
                    return Err(FirstStageError::Value { key, value, expected: "at least 1, or none" });
                }
                let weight = ("codebook_weight", c.codebook_weight);
                (c.pixelloss_weight, c.use_actnorm, c.disc_conditional, [weight, weight])
            }
        };
        let Shared { perceptual_weight, disc_factor, disc_weight, discriminator, .. } = self.shared();
        let finite = |x: f64| x.is_finite();
        let count = |x: usize, most: usize| (1..=most).contains(&x);
        let DiscriminatorConfig { input_nc, ndf, n_layers } = discriminator;
        let unused = "1: the reference uses it nowhere";
        let off = "false: this is not supported";
        let number = "a finite number";
        let checks = [
            ("pixelloss_weight", pixelloss_weight.to_string(), pixelloss_weight == 1.0, unused),
            ("use_actnorm", use_actnorm.to_string(), !use_actnorm, off),
            ("disc_conditional", disc_conditional.to_string(), !disc_conditional, off),
            ("perceptual_weight", perceptual_weight.to_string(), finite(perceptual_weight), number),
            ("disc_factor", disc_factor.to_string(), finite(disc_factor), number),
            ("disc_weight", disc_weight.to_string(), finite(disc_weight), number),
            (kind[0].0, kind[0].1.to_string(), finite(kind[0].1), number),
            (kind[1].0, kind[1].1.to_string(), finite(kind[1].1), number),
            ("disc_num_layers", n_layers.to_string(), count(n_layers, 8), "a number from 1 to 8"),
            ("disc_in_channels", input_nc.to_string(), count(input_nc, 1 << 16), "a number from 1 to 65536"),
            ("disc_ndf", ndf.to_string(), count(ndf, 1 << 16), "a number from 1 to 65536"),
        ];
        match checks.into_iter().find(|(_, _, good, _)| !good) {
            Some((key, value, _, expected)) => Err(FirstStageError::Value { key, value, expected }),
            None => Ok(()),
        }
    }

    /// Whether a model of this config gives pictures that the discriminator takes.
    ///
    /// # Errors
    /// [`FirstStageError::Value`] names the key.
    pub fn validate_for(&self, model: &DdConfig) -> Result<(), FirstStageError> {
        self.validate()?;
        let Shared { disc_factor, discriminator: DiscriminatorConfig { input_nc, .. }, .. } = self.shared();
        if disc_factor == 0.0 || input_nc == model.out_ch {
            return Ok(());
        }
        let (key, value) = ("disc_in_channels", input_nc.to_string());
        Err(FirstStageError::Value { key, value, expected: "the model's `out_ch`" })
    }

    /// Whether a codebook of `n_embed` codes has a place for each in the figures of its use, which the reference counts
    /// over `n_classes`. More change nothing.
    ///
    /// # Errors
    /// [`FirstStageError::Value`] names the key.
    pub fn validate_codes(&self, n_embed: usize) -> Result<(), FirstStageError> {
        match self {
            Self::Vq(VqLossConfig { n_classes: Some(n_classes), .. }) if *n_classes < n_embed => {
                let (key, value) = ("n_classes", n_classes.to_string());
                Err(FirstStageError::Value { key, value, expected: "the model's `n_embed`" })
            }
            _ => Ok(()),
        }
    }

    /// Steps between two re-seedings of a codebook's dead codes (`reseed_every`).
    pub fn reseed_every(&self) -> Option<u64> {
        match self {
            Self::Kl(_) => None,
            Self::Vq(config) => config.reseed_every,
        }
    }

    /// The discriminator's shape; `None` where `disc_factor` is 0.
    pub fn discriminator(&self) -> Option<DiscriminatorConfig> {
        let shared = self.shared();
        (shared.disc_factor != 0.0).then_some(shared.discriminator)
    }

    /// The weight of both adversarial losses at `step`, counted in batches (`adopt_weight`): 0 before
    /// `disc_start`.
    pub fn disc_factor(&self, step: u64) -> f64 {
        let Shared { disc_start, disc_factor, .. } = self.shared();
        if step < disc_start { 0.0 } else { disc_factor }
    }

    pub(super) fn shared(&self) -> Shared {
        match self {
            Self::Kl(c) => Shared {
                pixel_loss: PixelLoss::L1,
                perceptual_weight: c.perceptual_weight,
                disc_start: c.disc_start,
                disc_factor: c.disc_factor,
                disc_weight: c.disc_weight,
                disc_loss: c.disc_loss,
                regulariser_weight: c.kl_weight,
                discriminator: DiscriminatorConfig {
                    input_nc: c.disc_in_channels,
                    ndf: NDF,
                    n_layers: c.disc_num_layers,
                },
            },
            Self::Vq(c) => Shared {
                pixel_loss: c.pixel_loss,
                perceptual_weight: c.perceptual_weight,
                disc_start: c.disc_start,
                disc_factor: c.disc_factor,
                disc_weight: c.disc_weight,
                disc_loss: c.disc_loss,
                regulariser_weight: c.codebook_weight,
                discriminator: DiscriminatorConfig {
                    input_nc: c.disc_in_channels,
                    ndf: c.disc_ndf,
                    n_layers: c.disc_num_layers,
                },
            },
        }
    }
}

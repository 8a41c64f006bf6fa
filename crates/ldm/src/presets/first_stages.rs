//! The published first stages as a table.

use ldm_vae::{DdConfig, FirstStageConfig, KL_PRESETS, KlPreset, VqPreset};
use serde_json::json;

use crate::Target;

/// How well a first stage reconstructs ImageNet's validation pictures (paper, table 8).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reconstruction {
    /// FID between pictures and their reconstructions.
    pub r_fid: f64,
    /// Peak signal-to-noise ratio, in dB: mean and standard deviation.
    pub psnr: [f64; 2],
    /// Perceptual distance (LPIPS): mean and standard deviation.
    pub psim: [f64; 2],
}

/// A first stage that was published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FirstStagePreset {
    /// Its folder in the reference repository's `models/first_stage_models`.
    pub name: &'static str,
    /// Steps that it was trained for.
    pub train_steps: usize,
    /// What the model zoo and the paper's table 8 report.
    pub figures: Reconstruction,
}

const fn row(
    name: &'static str,
    r_fid: f64,
    train_steps: usize,
    psnr: [f64; 2],
    psim: [f64; 2],
) -> FirstStagePreset {
    FirstStagePreset { name, train_steps, figures: Reconstruction { r_fid, psnr, psim } }
}

/// All nine, as in `models/first_stage_models` of CompVis/latent-diffusion and its model zoo; their shapes are in
/// [`ldm_vae::KL_PRESETS`] and [`ldm_vae::VQ_PRESETS`].
pub const FIRST_STAGES: &[FirstStagePreset] = &[
    row("vq-f4", 0.58, 533_066, [27.43, 4.26], [0.53, 0.21]),
    row("vq-f4-noattn", 1.06, 658_131, [25.21, 4.17], [0.72, 0.26]),
    row("vq-f8", 1.14, 971_043, [23.07, 3.99], [1.17, 0.36]),
    row("vq-f8-n256", 1.49, 1_608_649, [22.35, 3.81], [1.26, 0.37]),
    row("vq-f16", 5.15, 1_101_166, [20.83, 3.61], [1.73, 0.43]),
    row("kl-f4", 0.27, 176_991, [27.53, 4.54], [0.55, 0.24]),
    row("kl-f8", 0.90, 246_803, [24.19, 4.19], [1.02, 0.35]),
    row("kl-f16", 0.87, 442_998, [24.08, 4.22], [1.07, 0.36]),
    row("kl-f32", 2.04, 406_763, [22.27, 3.93], [1.41, 0.40]),
];

impl FirstStagePreset {
    /// Its config; latents are not scaled (a diffusion model says how).
    pub fn config(&self) -> FirstStageConfig {
        match (VqPreset::find(self.name), KlPreset::find(self.name)) {
            (Some(vq), _) => FirstStageConfig::Vq(vq.config()),
            // Every row is in one of the tables, which a test asserts.
            (None, kl) => FirstStageConfig::Kl(kl.unwrap_or(&KL_PRESETS[0]).config()),
        }
    }

    /// `model` of its own YAML.
    pub fn target(&self) -> Target {
        self.named("VQModel")
    }

    /// `first_stage_config` of a diffusion model's YAML: a VQ model's latent is taken before quantisation.
    pub fn interface(&self) -> Target {
        self.named("VQModelInterface")
    }

    fn named(&self, vq: &str) -> Target {
        let ddconfig = |config: &DdConfig| serde_json::to_value(config).unwrap_or_default();
        let (class, params) = match self.config() {
            FirstStageConfig::Vq(c) => {
                let params = json!({ "embed_dim": c.embed_dim, "n_embed": c.n_embed, "ddconfig": ddconfig(&c.ddconfig) });
                (vq, params)
            }
            FirstStageConfig::Kl(c) => {
                ("AutoencoderKL", json!({ "embed_dim": c.embed_dim, "ddconfig": ddconfig(&c.ddconfig) }))
            }
            FirstStageConfig::Identity(..) => ("IdentityFirstStage", json!({})),
        };
        let mut target = Target::new(format!("ldm.models.autoencoder.{class}"), params);
        target.params["lossconfig"] = json!({ "target": "torch.nn.Identity" });
        target
    }
}

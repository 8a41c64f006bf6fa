//! Which published model a single file holds, told by its keys.

use ldm_nn::weights::WeightFile;
use ldm_unet::UNetConfig;
use ldm_vae::{AutoencoderKlConfig, KlPreset};

use super::shapes::{Heads, Shapes};
use super::single_file::{UNET, VAE};
use crate::Family;

/// A published model that is known without its YAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Stable Diffusion 1.x, for inpainting too.
    Sd1,
    /// Stable Diffusion 2.x, for inpainting too.
    Sd2,
    /// Stable Diffusion XL base, for inpainting too.
    SdXl,
}

/// What a file's shapes don't tell about a model.
struct Row {
    known: Known,
    /// A key that only this model's text encoder has.
    key: &'static str,
    heads: Heads,
    /// Side of the latent that it was trained for.
    latent: usize,
    first_stage: &'static str,
    scheduler: &'static str,
}

const TABLE: &[Row] = &[
    Row {
        known: Known::Sd1,
        key: "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        heads: Heads::Count(8),
        latent: 64,
        first_stage: "stable-diffusion-v1",
        scheduler: PNDM,
    },
    Row {
        known: Known::Sd2,
        key: "cond_stage_model.model.token_embedding.weight",
        heads: Heads::Width(64),
        latent: 96,
        first_stage: "stable-diffusion-v2",
        scheduler: DDIM,
    },
    Row {
        known: Known::SdXl,
        key: "conditioner.embedders.1.model.token_embedding.weight",
        heads: Heads::Width(64),
        latent: 128,
        first_stage: "stable-diffusion-xl",
        scheduler: EULER,
    },
];

/// The schedulers that the models were published with, in diffusers' words.
const PNDM: &str = r#"{"_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true,
    "steps_offset": 1, "clip_sample": false}"#;
const DDIM: &str = r#"{"_class_name": "DDIMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true,
    "steps_offset": 1, "clip_sample": false}"#;
const EULER: &str = r#"{"_class_name": "EulerDiscreteScheduler", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
    "timestep_spacing": "leading", "interpolation_type": "linear", "use_karras_sigmas": false,
    "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "clip_sample": false}"#;

impl Known {
    /// The model whose keys the file holds, if it is a known one.
    pub fn recognise(file: &WeightFile) -> Option<Self> {
        TABLE.iter().find(|row| file.contains(row.key)).map(|row| row.known)
    }

    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.known == self).unwrap_or(&TABLE[0])
    }

    /// The family, which is that of its text encoders.
    pub fn family(self) -> Family {
        if self == Self::SdXl { Family::StableDiffusionXl } else { Family::StableDiffusion }
    }

    /// The U-Net's config, where `file` has one.
    pub(super) fn unet(self, file: &WeightFile, prediction: &str) -> Option<UNetConfig> {
        let row = self.row();
        let mut config = Shapes::new(file, UNET).unet(row.heads)?;
        // Of the Stable Diffusion 2 models, those for 768 pixels predict v; their attention overflows f16.
        let large = self == Self::Sd2 && prediction == "v_prediction";
        config.upcast_attention = large;
        let latent = if self == Self::Sd2 && !large { 64 } else { row.latent };
        config.sample_size = Some([latent; 2]);
        Some(config)
    }

    /// The first stage's config, where `file` has one.
    pub(super) fn vae(self, file: &WeightFile) -> Option<AutoencoderKlConfig> {
        Shapes::new(file, VAE).vae(KlPreset::find(self.row().first_stage)?)
    }

    /// The scheduler config that the model was published with, and what its U-Net predicts unless someone
    /// says otherwise. As diffusers does, a Stable Diffusion 2 is taken for one that predicts v; those for
    /// inpainting (9 channels) predict the noise.
    pub(super) fn scheduler(self, file: &WeightFile) -> (&'static str, &'static str) {
        let channels =
            file.info(&format!("{UNET}input_blocks.0.0.weight")).and_then(|info| info.shape.get(1));
        let v = self == Self::Sd2 && channels == Some(&4);
        (self.row().scheduler, if v { "v_prediction" } else { "epsilon" })
    }
}

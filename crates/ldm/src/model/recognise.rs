//! Which model a single file holds, told by its keys and their shapes.

use ldm_nn::weights::WeightFile;
use ldm_unet::presets::Preset;
use ldm_vae::KlPreset;

use super::single_file::UNET;
use crate::Family;

/// A published model that is known without its YAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Stable Diffusion 1.x.
    Sd1,
    /// Stable Diffusion 1.x inpainting.
    Sd1Inpaint,
    /// Stable Diffusion 2.x.
    Sd2,
    /// Stable Diffusion 2 inpainting.
    Sd2Inpaint,
    /// Stable Diffusion XL base.
    SdXl,
    /// Stable Diffusion XL inpainting.
    SdXlInpaint,
}

/// A model's row: the key of its (second) text encoder, the U-Net's input channels, its parts' presets.
struct Row(Known, &'static str, usize, Preset, &'static str);

const SD1: &str = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight";
const SD2: &str = "cond_stage_model.model.token_embedding.weight";
const SDXL: &str = "conditioner.embedders.1.model.token_embedding.weight";

const TABLE: &[Row] = &[
    Row(Known::Sd1, SD1, 4, Preset::Sd1, "stable-diffusion-v1"),
    Row(Known::Sd1Inpaint, SD1, 9, Preset::Sd1Inpaint, "stable-diffusion-v1"),
    Row(Known::Sd2, SD2, 4, Preset::Sd2V, "stable-diffusion-v2"),
    Row(Known::Sd2Inpaint, SD2, 9, Preset::Sd2Inpaint, "stable-diffusion-v2"),
    Row(Known::SdXl, SDXL, 4, Preset::Sdxl, "stable-diffusion-xl"),
    Row(Known::SdXlInpaint, SDXL, 9, Preset::SdxlInpaint, "stable-diffusion-xl"),
];

/// Of the schedulers that the models were published with, in diffusers' words.
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
        let channels = *file.info(&format!("{UNET}input_blocks.0.0.weight"))?.shape.get(1)?;
        let row = TABLE.iter().find(|Row(_, key, c, ..)| *c == channels && file.contains(key));
        row.map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }

    /// The family, which is that of its text encoders.
    pub fn family(self) -> Family {
        if self.row().1 == SDXL { Family::StableDiffusionXl } else { Family::StableDiffusion }
    }

    /// The U-Net's preset.
    pub fn unet(self) -> Preset {
        self.row().3
    }

    /// The first stage's preset.
    pub fn vae(self) -> Option<&'static KlPreset> {
        KlPreset::find(self.row().4)
    }

    /// The scheduler config that it was published with, and what its U-Net predicts unless someone says
    /// otherwise: of the Stable Diffusion 2 models those for 768 pixels predict v, and diffusers assumes one.
    pub fn scheduler(self) -> (&'static str, &'static str) {
        match self {
            Self::Sd1 | Self::Sd1Inpaint => (PNDM, "epsilon"),
            Self::Sd2 => (DDIM, "v_prediction"),
            Self::Sd2Inpaint => (DDIM, "epsilon"),
            Self::SdXl | Self::SdXlInpaint => (EULER, "epsilon"),
        }
    }
}

//! LoRA files on top of a model.

use std::path::Path;

use ldm_conditioning::clip::{ClipKeys, ClipTextEncoder};
use ldm_nn::lora::{LoraFile, LoraPart, LoraUpdate};

use super::StableDiffusion;
use crate::Error;
use crate::pipeline::TextEncoder;

/// The file that diffusers writes into a folder of its own.
const IN_FOLDER: &str = "pytorch_lora_weights.safetensors";

impl StableDiffusion {
    /// Adds `scale` times a LoRA to the weights of the U-Net and of the text encoders: a file of diffusers'
    /// (`pytorch_lora_weights.safetensors`, or the folder that holds it), of its older namings, or kohya's. Several may
    /// follow each other; to be without one, load the model anew.
    ///
    /// # Errors
    /// [`Error::Lora`] names the tensors that have no place in this model or don't fit.
    pub fn load_lora(mut self, path: impl AsRef<Path>, scale: f64) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = LoraFile::open(if path.is_dir() { path.join(IN_FOLDER) } else { path.into() })?;
        let unet = self.unet.lora_update(&file)?;
        let first = match &self.text.first {
            TextEncoder::Clip(text) => {
                text_update(&file, &text.encoder, "text_encoder", &["lora_te", "lora_te1"])?
            }
            TextEncoder::Bert(_) => LoraUpdate::default(),
        };
        let second = match &self.text.second {
            Some(text) => text_update(&file, &text.encoder, "text_encoder_2", &["lora_te2"])?,
            None => LoraUpdate::default(),
        };
        file.check_all_used(&[&unet, &first, &second])?;
        self.unet = file.fuse(self.unet, &unet, scale)?;
        if let TextEncoder::Clip(text) = &mut self.text.first {
            text.encoder = file.fuse(text.encoder.clone(), &first, scale)?;
        }
        if let Some(text) = &mut self.text.second {
            text.encoder = file.fuse(text.encoder.clone(), &second, scale)?;
        }
        Ok(self)
    }
}

fn text_update(
    file: &LoraFile,
    encoder: &ClipTextEncoder,
    name: &str,
    kohya: &[&str],
) -> Result<LoraUpdate, Error> {
    // Also without `text_model.`, as transformers 5 names a CLIPTextModel's layers.
    let bare =
        |path: &str| ldm_nn::weights::KeyMap::entries(&ClipKeys::Transformers, path).into_iter().nth(1);
    let with_root = file.update(encoder, &LoraPart { name, kohya, keys: vec![&ClipKeys::Transformers] })?;
    match with_root.is_empty() {
        false => Ok(with_root),
        true => Ok(file.update(encoder, &LoraPart { name, kohya, keys: vec![&bare] })?),
    }
}

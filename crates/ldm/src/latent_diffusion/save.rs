//! A whole model as one file with the reference's names, or as a directory of diffusers'.

use std::path::Path;

use burn::tensor::{DType, TensorData};
use ldm_nn::weights::Saver;
use ldm_vae::{FirstStage, Naming};

use super::load::COND_STAGE;
use super::{LatentDiffusion, diffusers};
use crate::Error;
use crate::model::{UNET, VAE};

impl LatentDiffusion {
    /// Writes a `.safetensors` with the reference's names, weights in `dtype`; [`config`](Self::config) as YAML goes
    /// with it. A scale factor that training measured (`scale_by_std`) is written as the reference's buffer.
    ///
    /// # Errors
    /// [`Error::Config`] where the reference has no such U-Net; [`Error::Weights`] names the file.
    pub fn save_checkpoint(&self, file: impl AsRef<Path>, dtype: DType) -> Result<(), Error> {
        let path = file.as_ref();
        let keys = self.unet.config().compvis_keys().map_err(|e| Error::config(path, e))?;
        let names = self.first_stage.weight_names(Naming::CompVis);
        let encoder = self.cond_stage.as_ref().map(|stage| (stage, stage.compvis_keys()));
        let mut saver = Saver::new().dtype(dtype).add(&self.unet, &keys, UNET);
        if !matches!(self.first_stage, FirstStage::Identity(_)) {
            saver = saver.add(&self.first_stage, &names, VAE);
        }
        if let Some((stage, keys)) = &encoder {
            saver = saver.add(*stage, keys, COND_STAGE);
        }
        if self.config.as_ref().is_some_and(|config| config.scale_by_std) {
            let factor = self.scaling.scaling_factor as f32;
            saver = saver.add_tensor("scale_factor", TensorData::new(vec![factor], Vec::<usize>::new()));
        }
        Ok(saver.write(path)?)
    }

    /// Writes a directory that diffusers reads, weights in `dtype`: `LDMTextToImagePipeline` for texts through a
    /// BERTEmbedder, `LDMSuperResolutionPipeline` for a picture that is joined to the latent as it is, `LDMPipeline` where
    /// there is no condition.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names what none of the three has; [`Error::Config`] and [`Error::Vae`] a part that diffusers'
    /// classes can't express; [`Error::Io`] and [`Error::Weights`] the file.
    pub fn save_directory(&self, directory: impl AsRef<Path>, dtype: DType) -> Result<(), Error> {
        diffusers::save(self, directory.as_ref(), dtype)
    }
}

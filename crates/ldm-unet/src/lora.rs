//! LoRA in a U-Net's attention layers.

use std::path::Path;

use burn::tensor::DType;
use ldm_nn::lora::{self, LoraConfig, LoraError, LoraFile, LoraKeys, LoraPart, LoraUpdate, METADATA};
use ldm_nn::weights::{KeyMap, Loader, Saver, WeightFile};

use crate::UNet;
use crate::keys::DiffusersKeys;

/// The layers that LoRA adapts, in diffusers' words.
pub const LORA_TARGETS: [&str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];

/// The same as the ends of our parameters' paths.
const PATHS: [&str; 4] = [".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.weight"];

/// The U-Net's name in diffusers' files, and in kohya's.
const PART: &str = "unet";
const KOHYA: [&str; 1] = ["lora_unet"];

impl UNet {
    /// Freezes the model and attaches trainable factors of rank `config.r` to all its attention layers; the output is
    /// the same at first. See [`ldm_nn::lora::attach`]; `materialize()` merges the product into the weights.
    ///
    /// # Errors
    /// A rank of 0; a model without attention.
    pub fn with_lora(self, config: &LoraConfig, seed: u64) -> Result<Self, LoraError> {
        lora::attach(self, config, &PATHS, seed)
    }

    /// Writes the factors of a model with [`with_lora`](Self::with_lora) as diffusers' `load_lora_weights` reads them
    /// (`pytorch_lora_weights.safetensors`): `unet.` + path + `.lora_A.weight` `[r, in]`, `.lora_B.weight` `[out, r]`, and
    /// `config` as a note.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn save_lora(
        &self,
        config: &LoraConfig,
        path: impl AsRef<Path>,
        dtype: DType,
    ) -> Result<(), LoraError> {
        let keys = self.lora_keys()?;
        let keys = LoraKeys::new(&keys, PART);
        let note = config.metadata(PART, &LORA_TARGETS);
        Ok(Saver::new().dtype(dtype).metadata(METADATA, note).add(self, &keys, "").write(path)?)
    }

    /// The rank and alpha of a file's factors, which is what [`resume_lora`](Self::resume_lora) goes on with.
    ///
    /// # Errors
    /// As [`LoraFile::update`]; [`LoraError::Unused`] names the tensors that the U-Net has no place for,
    /// [`LoraError::NoFactors`] says that there are none, and [`LoraError::Uneven`] that its layers differ.
    pub fn lora_config(&self, path: impl AsRef<Path>) -> Result<LoraConfig, LoraError> {
        let file = LoraFile::open(path)?;
        let update = self.lora_update(&file)?;
        file.check_all_used(&[&update])?;
        update.config().ok_or_else(|| LoraError::Uneven { path: file.path().into() })
    }

    /// Gives a model with [`with_lora`](Self::with_lora) of `config` the factors of a file of
    /// [`save_lora`](Self::save_lora)'s names, to go on training them.
    ///
    /// # Errors
    /// As [`lora_config`](Self::lora_config); [`LoraError::Unused`] also names factors of layers that have none here, as
    /// [`with_lora`](Self::with_lora) gives them to the attention layers alone: the next file would be without them.
    /// [`LoraError::Differs`] where the file's rank or alpha is not `config`'s. Where tensors are missing or of another
    /// shape.
    pub fn resume_lora(self, config: &LoraConfig, path: impl AsRef<Path>) -> Result<Self, LoraError> {
        let path = path.as_ref();
        let found = self.lora_config(path)?;
        if !found.agrees_with(config) {
            return Err(LoraError::Differs { path: path.into(), found, expected: *config });
        }
        let file = WeightFile::open(path)?;
        let keys = self.lora_keys()?;
        let keys = LoraKeys::new(&keys, PART);
        let (unet, report) = Loader::new(&keys).load(self, &file)?;
        // The alphas are in `config`.
        let unused = report.unknown.into_iter().filter(|name| !name.ends_with(".alpha"));
        let keys: Vec<String> = unused.collect();
        match keys.is_empty() {
            true => Ok(unet),
            false => Err(LoraError::Unused { path: path.into(), keys }),
        }
    }

    /// What a LoRA file adds to this model's weights, in diffusers' namings or kohya's; [`LoraFile::fuse`] adds it.
    ///
    /// # Errors
    /// As [`LoraFile::update`].
    pub fn lora_update(&self, file: &LoraFile) -> Result<LoraUpdate, LoraError> {
        let (diffusers, compvis) = (self.lora_keys()?, self.config().compvis_keys());
        let mut keys: Vec<&dyn KeyMap> = vec![&diffusers];
        if let Ok(compvis) = &compvis {
            keys.push(compvis);
        }
        file.update(self, &LoraPart { name: PART, kohya: &KOHYA, keys })
    }

    fn lora_keys(&self) -> Result<DiffusersKeys, LoraError> {
        self.config().diffusers_keys().map_err(|e| LoraError::Names { what: e.to_string() })
    }
}

//! What a diffusion model's training starts with.

use std::path::Path;

use burn::module::Param;
use burn::tensor::{DType, Tensor, TensorData};
use ldm_nn::weights::{Entry, KeyMap, Loader, TensorProblem, WeightError, WeightFile};
use ldm_unet::UNet;

use super::diffusion::Denoiser;
use crate::{ObjectiveConfig, RunError};

const UNET: &str = "model.diffusion_model.";
const AVERAGE: &str = "model_ema.";

/// The networks before the first step.
pub(super) struct Start {
    pub denoiser: Denoiser,
    /// The U-Net's average and the number of its updates, where the file has one.
    pub average: Option<(UNet, u64)>,
    /// What latents are multiplied with, where it is not measured on the first batch.
    pub scale: Option<f64>,
}

impl Start {
    /// With the weights that the networks have.
    pub fn fresh(denoiser: Denoiser, objective: &ObjectiveConfig) -> Self {
        let scale = (!objective.scale_by_std).then_some(objective.scale_factor);
        Self { denoiser, average: None, scale }
    }

    /// With those of a whole model's file (`init_from_ckpt` of the reference's `ddpm.py`): the U-Net's, its average's,
    /// the log-variances' and the scale; tau_theta has been read before.
    ///
    /// # Errors
    ///
    /// A file that can't be read or lacks tensors, which are named.
    pub fn read(path: &Path, denoiser: Denoiser, objective: &ObjectiveConfig) -> Result<Self, RunError> {
        let file = WeightFile::open(path)?;
        let keys = denoiser.model.config().compvis_keys()?;
        let averaged = |path: &str| -> Option<Entry> {
            let mut entry = keys.entry(path)?;
            // LitEma's names lose their dots.
            entry.key = format!("diffusion_model{}", entry.key).replace('.', "");
            Some(entry)
        };
        let mut start = Self::fresh(denoiser, objective);
        if file.tensors().any(|tensor| tensor.name.starts_with(&format!("{AVERAGE}diffusion_model"))) {
            let average = start.denoiser.model.clone();
            let (average, _) = Loader::new(&averaged).prefix(AVERAGE).load(average, &file)?;
            let updates = match file.contains("model_ema.num_updates") {
                true => file.read_i64("model_ema.num_updates")?.1.first().copied().unwrap_or(0),
                false => 0,
            };
            start.average = Some((average, u64::try_from(updates).unwrap_or(0)));
        }
        start.denoiser.model = Loader::new(&keys).prefix(UNET).load(start.denoiser.model, &file)?.0;
        if let Some(logvar) = &mut start.denoiser.logvar
            && file.contains("logvar")
        {
            let (shape, values) = file.read_f32("logvar")?;
            let expected = logvar.logvar.lazy_shape().to_vec();
            if shape != expected {
                let problem = TensorProblem::Shape { key: "logvar".into(), expected, found: shape };
                return Err(WeightError::Tensors { path: path.into(), problems: vec![problem] }.into());
            }
            let (device, n) = (logvar.logvar.lazy_device(), values.len());
            let values = Tensor::<1>::from_data(TensorData::new(values, [n]), (&device, DType::F32));
            logvar.logvar = Param::initialized(logvar.logvar.id, values);
        }
        // A model that was trained with a scale keeps it, and one without keeps going without.
        let scale = match file.contains("scale_factor") {
            true => file.read_f32("scale_factor")?.1.first().copied().map(f64::from),
            false => None,
        };
        start.scale = Some(scale.unwrap_or(objective.scale_factor));
        Ok(start)
    }
}

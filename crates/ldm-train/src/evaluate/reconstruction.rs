use burn::tensor::{Device, Tensor};

use super::{EvaluateError, ModelError};
use crate::data::Loader;
use crate::metrics::psnr;

/// PSNR in dB between each of the loader's pictures and what `reconstruct` makes of it, by name, in the data's order.
///
/// `reconstruct`: `[b, 3, h, w]` in [-1, 1] to the same shape; it is clamped to [-1, 1], as a picture would be.
///
/// # Errors
///
/// What the data or the model says; a reconstruction of another shape.
pub fn reconstruction(
    loader: &Loader,
    device: &Device,
    mut reconstruct: impl FnMut(Tensor<4>) -> Result<Tensor<4>, ModelError>,
) -> Result<Vec<(String, f64)>, EvaluateError> {
    let mut all = Vec::new();
    for batch in loader.once()? {
        let batch = batch?;
        let pictures = batch.to_tensor(device);
        let again = reconstruct(pictures.clone()).map_err(EvaluateError::Model)?;
        let decibels = psnr(pictures, again.clamp(-1.0, 1.0))?;
        all.extend(batch.keys.into_iter().zip(decibels));
    }
    Ok(all)
}

/// The mean of the figures.
pub fn mean(figures: &[(String, f64)]) -> f64 {
    figures.iter().map(|(_, figure)| figure).sum::<f64>() / figures.len().max(1) as f64
}

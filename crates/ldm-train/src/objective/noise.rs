use burn::tensor::Tensor;

use super::ObjectiveError;

/// Noise with an offset for each channel: `noise + strength * offset`.
///
/// `noise` `[b, c, h, w]` and `offset` `[b, c, 1, 1]` are standard normal; `strength` is the config's
/// `noise_offset`. What it gives is both added to the latent and the target. Source: diffusers'
/// train_text_to_image.py, `noise_offset`.
///
/// # Errors
/// [`ObjectiveError::Shape`] where the offset is not one number for each channel.
pub fn offset_noise(noise: Tensor<4>, offset: Tensor<4>, strength: f64) -> Result<Tensor<4>, ObjectiveError> {
    let [b, c, _, _] = noise.dims();
    if offset.dims() != [b, c, 1, 1] {
        let (actual, expected) = (offset.dims().to_vec(), vec![b, c, 1, 1]);
        return Err(ObjectiveError::Shape { what: "noise offset", actual, expected });
    }
    Ok(noise + offset * strength)
}

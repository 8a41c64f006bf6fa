//! Inpainting with a model that sees the masked picture: `scripts/inpaint.py` of the reference.

use burn::tensor::{DType, Tensor};
use ldm_nn::{Conditioning, upsample_nearest};

use super::{LatentDiffusion, Sampled, Sampling};
use crate::Error;
use crate::pipeline::{Observer, Silent};

/// A picture with a part to be painted anew.
#[derive(Clone)]
pub struct Inpainting<'a> {
    /// How the part is drawn.
    pub sampling: Sampling<'a>,
    picture: Tensor<4>,
    mask: Tensor<4>,
    truncate: bool,
}

impl LatentDiffusion {
    /// Paints `picture` `[b, 3, h, w]` in [-1, 1] anew where `mask` `[b, 1, h, w]` is at least half.
    ///
    /// For a model that was trained to (inpainting_big: latent, latent of the masked picture, mask: 3 + 3 + 1
    /// channels). Any other model can keep a part of a latent with [`Sampling::keep`].
    ///
    /// # Errors
    /// [`Error::Argument`] where the mask is not as large as the picture, or the model takes other channels;
    /// [`Error::Vae`] for a size that f does not divide.
    pub fn inpaint(&self, picture: Tensor<4>, mask: Tensor<4>) -> Result<Inpainting<'_>, Error> {
        let [b, _, h, w] = picture.dims();
        if mask.dims() != [b, 1, h, w] {
            let reason = format!("its shape is {:?}, the picture needs {:?}", mask.dims(), [b, 1, h, w]);
            return Err(Error::argument("mask", reason));
        }
        let channels = 2 * self.channels() + 1;
        if self.unet.in_channels() != channels {
            let reason =
                format!("its U-Net takes {} channels, inpainting gives {channels}", self.unet.in_channels());
            return Err(Error::argument("model", reason));
        }
        let picture = picture.to_device(&self.device).cast(DType::F32);
        let mask = mask.to_device(&self.device).greater_equal_elem(0.5).float().cast(DType::F32);
        // In [0, 1], where a masked pixel is black.
        let unit = (picture.clone() + 1.0) / 2.0;
        let masked = (mask.clone() * -1.0 + 1.0) * unit * 2.0 - 1.0;
        let c = self.encode_unscaled(masked)?;
        let [_, _, ch, cw] = c.dims();
        let small = upsample_nearest(mask.clone() * 2.0 - 1.0, [ch, cw]);
        let conditioning = Conditioning::concat(Tensor::cat(vec![c, small], 1));
        let sampling = Sampling::new(self, conditioning, b);
        Ok(Inpainting { sampling, picture, mask, truncate: self.truncate })
    }
}

impl Inpainting<'_> {
    /// Draws, and puts what is drawn into the picture's hole.
    ///
    /// # Errors
    /// As [`Sampling::run`].
    pub fn run(&self) -> Result<Sampled, Error> {
        self.run_observed(&mut Silent)
    }

    /// As [`run`](Self::run), showing every step to `observer`.
    ///
    /// # Errors
    /// As [`Sampling::run_observed`].
    pub fn run_observed(&self, observer: &mut dyn Observer) -> Result<Sampled, Error> {
        let drawn = self.sampling.run_observed(observer)?;
        let unit = |x: Tensor<4>| ((x + 1.0) / 2.0).clamp(0.0, 1.0);
        let kept = (self.mask.clone() * -1.0 + 1.0) * unit(self.picture.clone());
        let pictures = (kept + self.mask.clone() * unit(drawn.pictures)) * 2.0 - 1.0;
        Ok(Sampled::new(drawn.latents, pictures, self.truncate))
    }
}

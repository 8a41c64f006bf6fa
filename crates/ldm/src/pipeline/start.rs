//! Where a run starts: noise alone, or a picture with noise on it.

use burn::tensor::{DType, Tensor};
use image::RgbImage;
use ldm_nn::upsample_nearest;
use ldm_scheduler::{Noise, Sampler, randn};

use super::Blend;
use crate::image::{Mask, resize, resize_mask, to_tensor};
use crate::{Error, Family, StableDiffusion};

/// What a run is given beside its prompt.
#[derive(Clone)]
pub(super) enum Task {
    /// Nothing.
    Text,
    /// A picture to start from.
    Image(RgbImage),
    /// A picture, and what to paint anew in it.
    Inpaint(RgbImage, Mask),
}

/// One generator for all items, or one each.
pub(super) type Generators = Vec<Box<dyn Noise>>;

/// What the start depends on, whatever the task.
pub(super) struct Start<'a> {
    pub model: &'a StableDiffusion,
    /// Width and height in pixels.
    pub size: [u32; 2],
    pub batch: usize,
    pub strength: f64,
    /// Given by the caller.
    pub latents: Option<Tensor<4>>,
}

/// The first latents, and what the loop needs beside them.
pub(super) struct Started {
    pub latents: Tensor<4>,
    /// Channels beside the latent's (mask and masked picture of an inpainting model).
    pub concat: Option<Tensor<4>>,
    pub blend: Option<Blend>,
}

impl Start<'_> {
    /// Draws in diffusers' order, so that one seed gives one picture in both worlds.
    pub fn of(self, task: &Task, sampler: &Sampler<4>, noise: &mut Generators) -> Result<Started, Error> {
        match task {
            Task::Text => {
                self.needs_channels(self.channels())?;
                let latents = self.noise(noise)? * sampler.init_noise_sigma();
                Ok(Started { latents, concat: None, blend: None })
            }
            Task::Image(picture) => {
                self.needs_channels(self.channels())?;
                let picture = to_tensor(&self.resized(picture)?, self.model.device());
                // One generator draws one posterior for all items; a list of them draws one each.
                let draws = if noise.len() > 1 { self.batch } else { 1 };
                let statistics = self.model.family == Family::StableDiffusionXl;
                let z = self.encode(picture, draws, statistics, noise)?;
                let latents = sampler.add_noise(z, self.noise(noise)?)?;
                Ok(Started { latents, concat: None, blend: None })
            }
            Task::Inpaint(picture, mask) => self.inpaint(picture, mask, sampler, noise),
        }
    }

    fn inpaint(
        &self,
        picture: &RgbImage,
        mask: &Mask,
        sampler: &Sampler<4>,
        noise: &mut Generators,
    ) -> Result<Started, Error> {
        let (device, channels) = (self.model.device(), self.channels());
        // Beside the latent: the mask, and the latent of the masked picture.
        let sees_mask = self.model.unet.config().in_channels == 2 * channels + 1;
        if !sees_mask {
            self.needs_channels(channels)?;
        }
        let [width, height] = self.size;
        let picture = to_tensor(&self.resized(picture)?, device);
        let mask = resize_mask(mask, width, height)?.to_tensor(device);

        // Unlike image to image, diffusers draws these posteriors from the first generator alone.
        let from_noise = self.strength >= 1.0;
        let z = match sees_mask && from_noise {
            true => None,
            false => Some(self.encode(picture.clone(), 1, false, &mut noise[0])?),
        };
        let drawn = self.noise(noise)?;
        let latents = match &z {
            Some(z) if !from_noise => sampler.add_noise(z.clone(), drawn.clone())?,
            _ => drawn.clone() * sampler.init_noise_sigma(),
        };
        let [_, _, h, w] = drawn.dims();
        let small = upsample_nearest(mask.clone(), [h, w]).repeat_dim(0, self.batch);
        // diffusers encodes the masked picture for every model: a posterior drawn here moves the generator
        // also where only the samplers' own noise comes after it.
        let masked = self.encode(picture * (mask * -1.0 + 1.0), 1, false, &mut noise[0])?;
        if sees_mask {
            let concat = Tensor::cat(vec![small, masked], 1);
            return Ok(Started { latents, concat: Some(concat), blend: None });
        }
        let blend = z.map(|original| Blend { mask: small, original, noise: drawn });
        Ok(Started { latents, concat: None, blend })
    }

    /// Channels of a latent.
    fn channels(&self) -> usize {
        self.model.vae.config().embed_dim
    }

    fn needs_channels(&self, needed: usize) -> Result<(), Error> {
        let channels = self.model.unet.config().in_channels;
        if channels == needed {
            return Ok(());
        }
        let reason = format!("its U-Net takes {channels} channels, this task gives {needed}");
        Err(Error::argument("model", reason))
    }

    fn resized(&self, picture: &RgbImage) -> Result<RgbImage, Error> {
        resize(picture, self.size[0], self.size[1])
    }

    /// The picture's latent, scaled for the U-Net, once for each item of the batch.
    ///
    /// `draws` posteriors are drawn from it: one that all items share, or one each. Inpainting scales without the channels' `statistics`,
    /// as diffusers' pipelines do even where they decode with them.
    fn encode(
        &self,
        picture: Tensor<4>,
        draws: usize,
        statistics: bool,
        noise: &mut dyn Noise,
    ) -> Result<Tensor<4>, Error> {
        let posterior = self.model.encode(picture)?;
        let mean = posterior.mean();
        let [_, c, h, w] = mean.dims();
        let drawn = randn(noise, [draws, c, h, w], &mean.device(), self.model.dtype())?.cast(mean.dtype());
        let z = mean + posterior.std() * drawn;
        let z = self.model.scaling(statistics).scale(z.cast(DType::F32));
        Ok(if draws == 1 { z.repeat_dim(0, self.batch) } else { z })
    }

    /// Standard normal latents: the caller's, or drawn.
    fn noise(&self, noise: &mut Generators) -> Result<Tensor<4>, Error> {
        let factor = self.model.vae.factor();
        let [w, h] = self.size.map(|side| side as usize / factor);
        let shape = [self.batch, self.channels(), h, w];
        match &self.latents {
            None => Ok(randn(noise, shape, self.model.device(), self.model.dtype())?.cast(DType::F32)),
            Some(latents) if latents.dims() == shape => {
                Ok(latents.clone().to_device(self.model.device()).cast(DType::F32))
            }
            Some(latents) => {
                let reason = format!("their shape is {:?}, this run needs {shape:?}", latents.dims());
                Err(Error::argument("latents", reason))
            }
        }
    }
}

//! A U-Net, its conditioning and guidance as the one function of latent and timestep that a sampler sees.

use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_unet::UNet;

use super::{Guidance, PromptConditioning};
use crate::Error;

/// What SDXL is told about the picture's size beside the prompt, in pixels.
///
/// Source: Podell et al. 2023, section 2.2 ("micro-conditioning").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeConditioning {
    /// Height and width that the training picture had before resizing.
    pub original: [u32; 2],
    /// Top and left of the crop.
    pub crop: [u32; 2],
    /// Height and width of the picture that is drawn.
    pub target: [u32; 2],
}

impl SizeConditioning {
    /// A picture that was neither resized nor cropped.
    pub fn of(height: u32, width: u32) -> Self {
        Self { original: [height, width], crop: [0, 0], target: [height, width] }
    }

    /// `[1, 6]`.
    fn time_ids(&self, device: &Device) -> Tensor<2> {
        let ids = [self.original, self.crop, self.target].concat();
        let ids: Vec<f32> = ids.into_iter().map(|v| v as f32).collect();
        Tensor::from_data(TensorData::new(ids, [1, 6]), (device, DType::F32))
    }
}

/// epsilon_theta with everything but `z_t` and `t` fixed: conditioning, guidance, extra input channels.
#[derive(Debug)]
pub struct Denoiser<'a> {
    unet: &'a UNet,
    conditioning: ldm_unet::Conditioning,
    guidance: Guidance,
    /// Whether the conditioning holds a negative half before the positive one.
    guided: bool,
    /// `[b, c, h, w]`, joined to the latent's channels (mask and masked picture of an inpainting model).
    extra: Option<Tensor<4>>,
}

impl<'a> Denoiser<'a> {
    /// Fixes the conditioning; `size` is for models that take it (SDXL).
    pub fn new(
        unet: &'a UNet,
        prompts: PromptConditioning,
        guidance: Guidance,
        size: Option<SizeConditioning>,
    ) -> Self {
        let guided = prompts.negative.is_some();
        let joined = prompts.joined();
        let context = joined.context;
        let (batch, device) = match &context {
            Some(context) => (context.dims()[0], context.device()),
            None => (1, unet.device()),
        };
        let width = unet.config().time_cond_proj_dim;
        let conditioning = ldm_unet::Conditioning {
            context,
            text_embeds: joined.pooled,
            time_ids: size.map(|size| size.time_ids(&device).repeat_dim(0, batch)),
            timestep_cond: width.map(|width| guidance_embedding(guidance.scale - 1.0, width, batch, &device)),
            ..ldm_unet::Conditioning::none()
        };
        Self { unet, conditioning, guidance, guided, extra: None }
    }

    /// Joins these channels to the latent at every step.
    pub fn with_extra(mut self, extra: Option<Tensor<4>>) -> Self {
        self.extra = extra;
        self
    }

    /// The guided prediction for `z_t` `[b, z, h, w]` at timestep `t`: one batched call of the U-Net.
    ///
    /// # Errors
    /// [`Error::UNet`] where latent and conditioning don't fit the U-Net.
    pub fn predict(&self, latent: Tensor<4>, t: f64) -> Result<Tensor<4>, Error> {
        let batch = latent.dims()[0];
        let mut input = latent;
        if let Some(extra) = &self.extra {
            input = Tensor::cat(vec![input, extra.clone()], 1);
        }
        if self.guided {
            input = Tensor::cat(vec![input.clone(), input], 0);
        }
        let items = input.dims()[0];
        let timesteps = Tensor::<1>::full([items], t, (&input.device(), DType::F32));
        let prediction = self.unet.forward(input, timesteps, &self.conditioning)?;
        if !self.guided {
            return Ok(prediction);
        }
        let [unconditional, conditional] = [0, batch].map(|at| prediction.clone().narrow(0, at, batch));
        Ok(self.guidance.apply(unconditional, conditional))
    }
}

/// The guidance scale as a vector `[batch, width]`, for models that were distilled with it as an input.
///
/// Source: Meng et al. 2022 ("On Distillation of Guided Diffusion Models"); diffusers'
/// `get_guidance_scale_embedding`.
fn guidance_embedding(w: f64, width: usize, batch: usize, device: &Device) -> Tensor<2> {
    let half = width / 2;
    let step = 10_000f64.ln() / (half as f64 - 1.0);
    let angle = |i: usize| (1000.0 * w * (-step * i as f64).exp()) as f32;
    let mut values: Vec<f32> = (0..half).map(|i| angle(i).sin()).collect();
    values.extend((0..half).map(|i| angle(i).cos()));
    values.resize(width, 0.0);
    Tensor::<2>::from_data(TensorData::new(values, [1, width]), (device, DType::F32)).repeat_dim(0, batch)
}

//! A U-Net, its conditioning and guidance as the one function of latent and timestep that a sampler sees.

use std::sync::OnceLock;

use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_conditioning::{Conditioning, ConditioningError};
use ldm_scheduler::{Noise, Sampler};
use ldm_unet::{Prepared, UNet};

use super::{Blend, Evaluator, Guidance, Observer, Passes, PromptConditioning, Recorder, denoise};
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

/// epsilon_theta with everything but `z_t` and `t` fixed: conditioning and guidance.
#[derive(Debug)]
pub struct Denoiser<'a> {
    unet: &'a UNet,
    conditioning: Conditioning,
    guidance: Guidance,
    /// Whether the conditioning holds a negative half before the positive one.
    guided: bool,
    replay: bool,
    /// What every prediction reads of the conditioning; made for the first one.
    prepared: OnceLock<Prepared>,
}

impl<'a> Denoiser<'a> {
    /// Fixes the conditioning; `size` is for models that take it (SDXL).
    ///
    /// # Errors
    /// [`Error::Conditioning`] where positive and negative don't have the same parts and shapes.
    pub fn new(
        unet: &'a UNet,
        prompts: PromptConditioning,
        guidance: Guidance,
        size: Option<SizeConditioning>,
    ) -> Result<Self, Error> {
        let guided = prompts.negative.is_some();
        let mut conditioning = prompts.joined()?;
        let batch = conditioning.batch().map_err(ConditioningError::from)?.unwrap_or(1);
        let device = match &conditioning.context {
            Some(context) => context.device(),
            None => unet.device(),
        };
        if let Some(size) = size {
            conditioning.time_ids = Some(size.time_ids(&device).repeat_dim(0, batch));
        }
        if let Some(width) = unet.config().time_cond_proj_dim {
            conditioning.timestep_cond =
                Some(guidance_embedding(guidance.scale - 1.0, width, batch, &device));
        }
        Ok(Self { unet, conditioning, guidance, guided, replay: false, prepared: OnceLock::new() })
    }

    /// Joins these channels `[b, c, h, w]` to the latent's at every step, guided or not.
    pub fn with_concat(mut self, concat: Option<Tensor<4>>) -> Self {
        if let Some(concat) = concat {
            let halves = if self.guided { vec![concat.clone(), concat] } else { vec![concat] };
            self.conditioning.concat = Some(Tensor::cat(halves, 0));
            self.prepared = OnceLock::new();
        }
        self
    }

    /// Whether [`denoise`](Self::denoise) replays a recorded step; see [`Request::replay`](super::Request::replay).
    pub fn with_replay(mut self, replay: bool) -> Self {
        self.replay = replay;
        self
    }

    /// Drives `sampler` from `latents` to the end, as the function [`denoise`](super::denoise()). Predictions are in the
    /// U-Net's type, as diffusers has it: samplers that add noise draw it in the type of the prediction.
    ///
    /// # Errors
    /// [`Error::UNet`] where latents and conditioning don't fit the U-Net; those of the sampler; [`Error::Cancelled`] where
    /// the observer breaks off.
    pub fn denoise(
        &self,
        sampler: Sampler<4>,
        latents: Tensor<4>,
        noise: &mut dyn Noise,
        blend: Option<&Blend>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor<4>, Error> {
        let recorder = Recorder::new(self.unet);
        let recorder = if self.replay { Some(&recorder as &dyn Passes) } else { None };
        self.denoise_by(recorder, sampler, latents, noise, blend, observer)
    }

    /// The same, by a recording that outlives the run.
    ///
    /// # Errors
    /// As [`denoise`](Self::denoise), and [`Error::Argument`] where the recorder is for another model.
    pub fn denoise_recorded(
        &self,
        recorder: &Recorder<'_>,
        sampler: Sampler<4>,
        latents: Tensor<4>,
        noise: &mut dyn Noise,
        blend: Option<&Blend>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor<4>, Error> {
        self.denoise_by(Some(recorder), sampler, latents, noise, blend, observer)
    }

    fn denoise_by(
        &self,
        recorder: Option<&dyn Passes>,
        sampler: Sampler<4>,
        latents: Tensor<4>,
        noise: &mut dyn Noise,
        blend: Option<&Blend>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor<4>, Error> {
        let dtype = self.unet.dtype();
        let mut evaluator = Evaluator::new(self.unet, self.prepared()?, recorder)?;
        let halves = if self.guided { 2 } else { 1 };
        evaluator.embed_ahead(sampler.timesteps(), halves * latents.dims()[0])?;
        let predict = |x: Tensor<4>, t: f32| -> Result<Tensor<4>, Error> {
            Ok(self.guide(x, |x| evaluator.evaluate(x, t))?.cast(dtype))
        };
        denoise(sampler, latents, noise, blend, observer, predict)
    }

    /// The guided prediction for `z_t` `[b, z, h, w]` at timestep `t`: one batched call of the U-Net.
    ///
    /// # Errors
    /// [`Error::UNet`] where latent and conditioning don't fit the U-Net.
    pub fn predict(&self, latent: Tensor<4>, t: f64) -> Result<Tensor<4>, Error> {
        let prepared = self.prepared()?;
        self.predict_with(latent, t, |x, t, _| Ok(self.unet.forward_prepared(x, t, prepared)?))
    }

    /// As [`predict`](Self::predict), with another function in the U-Net's place. It is called once, with the latents
    /// `[b, z, h, w]`, a timestep an item, and the conditions; a guided batch is twice as large, its negative half first.
    ///
    /// # Errors
    /// Those of `network`; [`Error::Argument`] where its prediction is not one for each of its latents, of their size. It
    /// may have other channels: a learned variance has twice as many.
    pub fn predict_with(
        &self,
        latent: Tensor<4>,
        t: f64,
        network: impl FnOnce(Tensor<4>, Tensor<1>, &Conditioning) -> Result<Tensor<4>, Error>,
    ) -> Result<Tensor<4>, Error> {
        self.guide(latent, |input| {
            let timesteps = Tensor::full([input.dims()[0]], t, (&input.device(), DType::F32));
            network(input, timesteps, &self.conditioning)
        })
    }

    /// The guided prediction of a network that knows timestep and conditions.
    fn guide(
        &self,
        latent: Tensor<4>,
        network: impl FnOnce(Tensor<4>) -> Result<Tensor<4>, Error>,
    ) -> Result<Tensor<4>, Error> {
        let batch = latent.dims()[0];
        let input = if self.guided { latent.repeat_dim(0, 2) } else { latent };
        let [items, _, h, w] = input.dims();
        let prediction = network(input)?;
        let found = prediction.dims();
        if [found[0], found[2], found[3]] != [items, h, w] {
            let reason = format!("it gives {found:?} for {items} latents of {h} x {w}");
            return Err(Error::argument("network", reason));
        }
        if !self.guided {
            return Ok(prediction);
        }
        let [unconditional, conditional] = [0, batch].map(|at| prediction.clone().narrow(0, at, batch));
        Ok(self.guidance.apply(unconditional, conditional))
    }
}

impl Denoiser<'_> {
    fn prepared(&self) -> Result<&Prepared, Error> {
        if let Some(prepared) = self.prepared.get() {
            return Ok(prepared);
        }
        let prepared = self.unet.prepare(&self.conditioning)?;
        Ok(self.prepared.get_or_init(|| prepared))
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

//! The reference's samplers over a whole model: `ldm/models/diffusion/ddim.py` and `plms.py`.

use std::ops::ControlFlow;

use burn::tensor::{DType, Tensor};
use image::RgbImage;
use ldm_conditioning::ConditioningError;
use ldm_nn::Conditioning;
use ldm_scheduler::{DenoisedFn, Noise, Sampler, SamplerKind, SamplerOptions, Scheduler, randn};
use ldm_unet::Prepared;
use ldm_vae::VaeError;

use super::{LatentDiffusion, Score, ScoreCorrector};
use crate::Error;
use crate::image::{from_tensor, from_tensor_truncated};
use crate::pipeline::{
    Evaluator, Guidance, LARGEST_BATCH, LARGEST_SIDE, Observer, Passes, Progress, Recorder, Rng, Silent,
};

/// The part of a picture that stays while the rest is drawn.
#[derive(Debug, Clone)]
struct Known {
    mask: Tensor<4>,
    x0: Tensor<4>,
}

/// A run of a sampler: built by setting what differs from the defaults, then [`run`](Self::run).
///
/// The defaults are 50 DDIM steps at eta 0 without guidance, seed 0, at the size that the model was trained for.
#[derive(Clone)]
pub struct Sampling<'a> {
    model: &'a LatentDiffusion,
    conditioning: Conditioning,
    unconditional: Option<Conditioning>,
    /// A conditioning for each patch, where it depends on the patch, and the size of the latent that was split.
    patch_conditions: Option<([usize; 2], Vec<Conditioning>)>,
    batch: usize,
    size: [usize; 2],
    kind: Option<SamplerKind>,
    options: SamplerOptions,
    guidance: Guidance,
    quantize_denoised: bool,
    known: Option<Known>,
    corrector: Option<&'a dyn ScoreCorrector>,
    start: Option<Tensor<4>>,
    seeds: Vec<u64>,
    rng: Rng,
    replay: bool,
}

/// What a run gives.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// The latents, scaled as the U-Net has them, `[b, z, h / f, w / f]`.
    pub latents: Tensor<4>,
    /// The pictures, `[b, c, h, w]`, about [-1, 1].
    pub pictures: Tensor<4>,
    /// Whether 8-bit pixels are rounded down, as the reference's scripts do, or to the nearest (diffusers).
    truncate: bool,
}

impl Sampled {
    pub(super) fn new(latents: Tensor<4>, pictures: Tensor<4>, truncate: bool) -> Self {
        Self { latents, pictures, truncate }
    }

    /// The pictures in 8 bits.
    ///
    /// # Errors
    /// [`Error::Argument`] unless they have three channels.
    pub fn images(&self) -> Result<Vec<RgbImage>, Error> {
        let pictures = self.pictures.clone();
        if self.truncate { from_tensor_truncated(pictures) } else { from_tensor(pictures) }
    }
}

impl<'a> Sampling<'a> {
    pub(super) fn new(model: &'a LatentDiffusion, conditioning: Conditioning, batch: usize) -> Self {
        let size = match &conditioning.concat {
            Some(concat) => [concat.dims()[2], concat.dims()[3]],
            None => model.latent_size(),
        };
        Self {
            model,
            conditioning,
            unconditional: None,
            patch_conditions: None,
            batch,
            size,
            kind: None,
            options: SamplerOptions::steps(50),
            guidance: Guidance::new(1.0),
            quantize_denoised: false,
            known: None,
            corrector: None,
            start: None,
            seeds: vec![0],
            rng: Rng::default(),
            replay: false,
        }
    }

    /// What the U-Net is conditioned on.
    pub fn conditioning(&self) -> &Conditioning {
        &self.conditioning
    }

    /// Denoising steps. As in the reference, DDIM and PLMS of a model of 1000 steps take `range(0, 1000, 1000 / steps) + 1`,
    /// which may be more.
    pub fn steps(mut self, steps: usize) -> Self {
        self.options.steps = steps;
        self
    }

    /// The sampler (the model's own: DDIM for the reference's files); `SamplerKind::Pndm` is PLMS.
    pub fn sampler(mut self, kind: SamplerKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// DDIM's eta (0).
    pub fn eta(mut self, eta: f64) -> Self {
        self.options.eta = eta;
        self
    }

    /// Multiplies the noise that a step adds (1).
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.options.temperature = temperature;
        self
    }

    /// The part of that noise which is dropped (0).
    pub fn noise_dropout(mut self, dropout: f64) -> Self {
        self.options.noise_dropout = dropout;
        self
    }

    /// Whether each x0 that a step predicts is replaced by the codebook's nearest (no).
    pub fn quantize_denoised(mut self, quantize: bool) -> Self {
        self.quantize_denoised = quantize;
        self
    }

    /// Classifier-free guidance of this scale (1: none).
    pub fn guidance(mut self, scale: f64) -> Self {
        self.guidance = Guidance::new(scale);
        self
    }

    /// What guidance leads away from; models of texts, of classes with a null class, and of retrieval set their own.
    pub fn unconditional(mut self, conditioning: Conditioning) -> Self {
        self.unconditional = Some(conditioning);
        self
    }

    /// Changes each score, by a classifier's gradient for one.
    pub fn score_corrector(mut self, corrector: &'a dyn ScoreCorrector) -> Self {
        self.corrector = Some(corrector);
        self
    }

    /// Keeps the latent `x0` `[b or 1, z, h, w]` where `mask` `[b or 1, 1, h, w]` is 1 and draws where it is 0: before each
    /// step the known part is shown through fresh noise. Works with any model.
    pub fn keep(mut self, x0: Tensor<4>, mask: Tensor<4>) -> Self {
        self.size = [x0.dims()[2], x0.dims()[3]];
        let x0 = if x0.dims()[0] == 1 { x0.repeat_dim(0, self.batch.max(1)) } else { x0 };
        self.known = Some(Known { mask, x0 });
        self
    }

    /// Height and width of the latent, where it is not the model's own: the U-Net is run convolutionally, or in
    /// patches where [`LatentDiffusion::patches`] says so. A condition that is joined to the latent fixes its size.
    /// A picture has up to 16384 pixels a side.
    pub fn latent_size(mut self, height: usize, width: usize) -> Self {
        self.size = [height, width];
        self
    }

    /// Starts from this noise, `[b, z, h, w]`, instead of drawing it.
    pub fn start(mut self, x: Tensor<4>) -> Self {
        self.start = Some(x);
        self
    }

    /// One seed for the whole batch (0).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seeds = vec![seed];
        self
    }

    /// A seed for each item of the batch.
    pub fn seeds(mut self, seeds: impl Into<Vec<u64>>) -> Self {
        self.seeds = seeds.into();
        self
    }

    /// Where noise comes from.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Whether the launches of the U-Net are recorded once a run and then replayed, where the device can do that (no); see
    /// [`Request::replay`](crate::pipeline::Request::replay). A run in several patches is not recorded.
    pub fn replay(mut self, replay: bool) -> Self {
        self.replay = replay;
        self
    }

    /// Gives each patch of a latent of this size a conditioning of its own.
    pub(super) fn patch_conditions(mut self, size: [usize; 2], conditions: Vec<Conditioning>) -> Self {
        self.size = size;
        self.patch_conditions = Some((size, conditions));
        self
    }

    /// Draws the latents and decodes them.
    ///
    /// # Errors
    /// [`Error::Argument`] names an argument that makes no sense; those of the model's parts.
    pub fn run(&self) -> Result<Sampled, Error> {
        self.run_observed(&mut Silent)
    }

    /// As [`run`](Self::run), showing every step to `observer`, which may cancel.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`Error::Cancelled`].
    pub fn run_observed(&self, observer: &mut dyn Observer) -> Result<Sampled, Error> {
        let latents = self.latents(observer)?;
        let pictures = self.model.decode(latents.clone())?;
        Ok(Sampled { latents, pictures, truncate: self.model.truncate })
    }

    /// The latents alone.
    fn latents(&self, observer: &mut dyn Observer) -> Result<Tensor<4>, Error> {
        let model = self.model;
        self.check()?;
        let kind = match self.kind {
            Some(kind) => kind,
            None => model.scheduler.kind()?,
        };
        let scheduler = Scheduler::from_config(kind, &model.scheduler)?;
        let mut sampler = scheduler.sampler::<4>(self.options)?;
        let mut noise: Vec<_> = self.seeds.iter().map(|seed| self.rng.seeded(*seed)).collect();
        let mut x = match &self.start {
            Some(x) => x.clone().to_device(&model.device).cast(DType::F32),
            None => {
                let shape = [self.batch, model.channels(), self.size[0], self.size[1]];
                randn(&mut noise, shape, &model.device, DType::F32)? * sampler.init_noise_sigma()
            }
        };
        let prepared = self.prepare()?;
        // Each recording keeps the memory of its own pass.
        let replay = self.replay && prepared.len() == 1;
        let recorder = Recorder::new(&model.unet);
        let recorder = if replay { Some(&recorder as &dyn Passes) } else { None };
        let items = if self.away_from().is_some() { 2 * x.dims()[0] } else { x.dims()[0] };
        let evaluator = |prepared| -> Result<Evaluator<'_>, Error> {
            let mut evaluator = Evaluator::new(&model.unet, prepared, recorder)?;
            evaluator.embed_ahead(sampler.timesteps(), items)?;
            Ok(evaluator)
        };
        let mut evaluators = prepared.iter().map(evaluator).collect::<Result<Vec<_>, _>>()?;
        let of = sampler.timesteps().len();
        let mut failure: Option<VaeError> = None;
        while let Some(t) = sampler.timestep() {
            if let (Some(known), true) = (&self.known, begins_a_step(&sampler)) {
                x = blend(known, x, &sampler, &mut noise)?;
            }
            let mut e_t = self.predict(sampler.scale_model_input(x.clone()), t, &mut evaluators)?;
            if let Some(corrector) = self.corrector {
                let alpha_bar = scheduler.schedule().alphas_bar().get(t as usize).copied();
                let sigma = (1.0f32 - alpha_bar.unwrap_or(1.0)).sqrt();
                let score = Score { x: &x, t, sigma, conditioning: &self.conditioning };
                e_t = corrector.modify_score(e_t, score)?;
            }
            let mut quantize = |x0: Tensor<4>| match model.first_stage.quantize(x0.clone()) {
                Ok(x0) => x0,
                Err(error) => {
                    failure = Some(error);
                    x0
                }
            };
            let hook: Option<DenoisedFn<'_, 4>> =
                if self.quantize_denoised { Some(&mut quantize) } else { None };
            x = sampler.step_with(e_t, x, &mut noise, hook)?;
            if let Some(error) = failure.take() {
                return Err(error.into());
            }
            let step = sampler.done();
            if observer.step(Progress { step, of, latents: &x }) == ControlFlow::Break(()) {
                return Err(Error::Cancelled { step, of });
            }
        }
        Ok(x)
    }

    /// What guidance leads away from, where it is on.
    fn away_from(&self) -> Option<&Conditioning> {
        self.unconditional.as_ref().filter(|_| self.guidance.scale != 1.0)
    }

    /// The conditions as the U-Net reads them, for both halves of a guided batch.
    fn prepare(&self) -> Result<Vec<Prepared>, Error> {
        let patches = self.patch_conditions.as_ref().map(|(_, conditions)| conditions.as_slice());
        let Some(unconditional) = self.away_from() else {
            return self.model.prepare(self.size, &self.conditioning, patches);
        };
        let both = |conditional: &Conditioning| -> Result<Conditioning, Error> {
            let both = Conditioning::cat(&[unconditional.clone(), conditional.clone()]);
            Ok(both.map_err(ConditioningError::from)?)
        };
        let patches = patches.map(|all| all.iter().map(both).collect::<Result<Vec<_>, _>>()).transpose()?;
        self.model.prepare(self.size, &both(&self.conditioning)?, patches.as_deref())
    }

    /// The guided prediction: one call of the U-Net.
    fn predict(&self, x: Tensor<4>, t: f32, evaluators: &mut [Evaluator<'_>]) -> Result<Tensor<4>, Error> {
        if self.away_from().is_none() {
            return self.model.apply(x, t, evaluators);
        }
        let b = x.dims()[0];
        let e = self.model.apply(x.repeat_dim(0, 2), t, evaluators)?;
        let [unconditional, conditional] = [0, b].map(|at| e.clone().narrow(0, at, b));
        Ok(self.guidance.apply(unconditional, conditional))
    }

    fn check(&self) -> Result<(), Error> {
        let (batch, channels) = (self.batch, self.model.channels());
        if batch == 0 {
            return Err(Error::argument("batch", "there is nothing to draw"));
        }
        if batch > LARGEST_BATCH {
            return Err(Error::argument("batch", format!("{batch} pictures; 1 to {LARGEST_BATCH}")));
        }
        if self.seeds.len() != 1 && self.seeds.len() != batch {
            let reason = format!("{} for {batch} pictures: give one, or one each", self.seeds.len());
            return Err(Error::argument("seeds", reason));
        }
        if !self.guidance.scale.is_finite() {
            return Err(Error::argument("guidance", format!("{} is no number", self.guidance.scale)));
        }
        if self.guidance.scale != 1.0 && self.unconditional.is_none() {
            let reason = "the model has no condition that stands for none; give one";
            return Err(Error::argument("guidance", reason));
        }
        if self.corrector.is_some() && self.model.prediction()? != ldm_scheduler::Prediction::Epsilon {
            return Err(Error::argument("score_corrector", "it needs a model that predicts the noise"));
        }
        let shape = [batch, channels, self.size[0], self.size[1]];
        if self.size.contains(&0) {
            return Err(Error::argument("latent_size", format!("{:?}: a side is zero", self.size)));
        }
        let largest = LARGEST_SIDE as usize / self.model.first_stage.factor();
        if self.size.iter().any(|side| *side > largest) {
            let reason = format!("{:?}: a side is longer than {largest}", self.size);
            return Err(Error::argument("latent_size", reason));
        }
        if let Some((split, _)) = self.patch_conditions.as_ref().filter(|(split, _)| *split != self.size) {
            let reason = format!("{:?}, but the patches were told their places in {split:?}", self.size);
            return Err(Error::argument("latent_size", reason));
        }
        for (name, x) in [("start", self.start.as_ref()), ("x0", self.known.as_ref().map(|k| &k.x0))] {
            if let Some(x) = x.filter(|x| x.dims() != shape) {
                let reason = format!("its shape is {:?}, this run needs {shape:?}", x.dims());
                return Err(Error::argument(name, reason));
            }
        }
        if let Some(Known { mask, .. }) = &self.known {
            let [b, c, h, w] = mask.dims();
            if !(b == 1 || b == batch) || c != 1 || [h, w] != self.size {
                let reason = format!("its shape is {:?}, this run needs [{batch}, 1, {h}, {w}]", mask.dims());
                return Err(Error::argument("mask", reason));
            }
        }
        if let Some(concat) = self.conditioning.concat.as_ref().filter(|c| c.dims()[2..] != self.size) {
            let reason =
                format!("{:?}, but the condition joined to it is {:?}", self.size, &concat.dims()[2..]);
            return Err(Error::argument("latent_size", reason));
        }
        Ok(())
    }
}

/// PLMS calls its denoiser twice in its first step: the next timestep then comes twice.
fn begins_a_step(sampler: &Sampler<4>) -> bool {
    let at = sampler.done();
    let timesteps = sampler.timesteps();
    timesteps.get(at) != timesteps.get(at + 1)
}

/// The known part as it is at the sampler's timestep, with noise drawn anew each time.
fn blend(
    known: &Known,
    x: Tensor<4>,
    sampler: &Sampler<4>,
    noise: &mut dyn Noise,
) -> Result<Tensor<4>, Error> {
    let (mask, x0) = (known.mask.clone(), known.x0.clone().cast(DType::F32));
    let z = randn(noise, x0.dims(), &x0.device(), DType::F32)?;
    let x0 = sampler.add_noise(x0, z)?;
    Ok(x0 * mask.clone() + (mask * -1.0 + 1.0) * x)
}

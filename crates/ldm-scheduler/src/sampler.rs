use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::{Error, Noise, SamplerKind, Scheduler, noise::randn, samplers, schedule::same_shape};

/// What a run is to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerOptions {
    /// Denoising steps of a whole run (diffusers' `num_inference_steps`).
    pub steps: usize,
    /// How much of the run to do, in [0, 1]: image to image leaves out the first `1 - strength`.
    pub strength: f64,
    /// DDIM's eta: 0 is deterministic, 1 is DDPM. The other samplers have none and ignore it.
    pub eta: f64,
    /// Multiplies the noise that a step adds; at least 0.
    pub temperature: f64,
    /// The part of that noise which is dropped, in [0, 1); the rest grows so that its mean stays
    /// (`noise_dropout` of the reference's samplers).
    pub noise_dropout: f64,
}

impl SamplerOptions {
    /// A whole run of `steps`, with eta 0, temperature 1 and no dropout.
    pub fn steps(steps: usize) -> Self {
        Self { steps, strength: 1.0, eta: 0.0, temperature: 1.0, noise_dropout: 0.0 }
    }

    /// The same with another strength.
    pub fn strength(self, strength: f64) -> Self {
        Self { strength, ..self }
    }

    /// The same with another eta.
    pub fn eta(self, eta: f64) -> Self {
        Self { eta, ..self }
    }

    /// The same with another temperature.
    pub fn temperature(self, temperature: f64) -> Self {
        Self { temperature, ..self }
    }

    /// The same with another noise dropout.
    pub fn noise_dropout(self, noise_dropout: f64) -> Self {
        Self { noise_dropout, ..self }
    }
}

/// One run of a sampler: a state machine that the caller drives, and may leave at any step.
///
/// It sees a latent and what a denoiser said about it, nothing else:
///
/// ```
/// # use burn::tensor::{DType, Device, Tensor, TensorData};
/// use ldm_scheduler::{SamplerKind, SamplerOptions, Scheduler, SchedulerConfig, TorchRng, randn};
/// # fn unet(x: Tensor<4>, _t: f32) -> Tensor<4> { x }
/// # fn main() -> Result<(), ldm_scheduler::Error> {
/// # let device = Device::default();
/// let config = SchedulerConfig::from_json(r#"{"beta_schedule": "scaled_linear"}"#)?;
/// let scheduler = Scheduler::from_config(SamplerKind::Euler, &config)?;
/// let mut sampler = scheduler.sampler(SamplerOptions::steps(20))?;
/// let mut noise = TorchRng::new(42);
///
/// let mut x = randn(&mut noise, [1, 4, 8, 8], &device, DType::F32)? * sampler.init_noise_sigma();
/// while let Some(t) = sampler.timestep() {
///     let output = unet(sampler.scale_model_input(x.clone()), t);
///     x = sampler.step(output, x, &mut noise)?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Sampler<const D: usize> {
    kind: SamplerKind,
    solver: Box<dyn Solver<D>>,
    path: Path,
    index: usize,
    begin: usize,
    temperature: f32,
    noise_dropout: f64,
}

/// What may be done to each x0 that a step predicts, before the step goes on with it.
pub type DenoisedFn<'a, const D: usize> = &'a mut dyn FnMut(Tensor<D>) -> Tensor<D>;

/// One sampler's algorithm: from `x` at the run's index `i` and the denoiser's output there to the next x,
/// all in f32.
pub(crate) trait Solver<const D: usize>: Send {
    fn step(
        &mut self,
        i: usize,
        x: Tensor<D>,
        output: Tensor<D>,
        z: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error>;
}

/// Where a run goes: one entry for each call of the denoiser.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path {
    pub timesteps: Vec<f32>,
    /// The noise levels, and the one at which the run ends; empty where the sampler speaks of alpha-bar.
    pub sigmas: Vec<f32>,
    pub levels: Vec<Level>,
    pub init_noise_sigma: f32,
}

/// `x = signal x0 + noise z`; the denoiser sees `x / scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Level {
    pub signal: f32,
    pub noise: f32,
    pub scale: f32,
}

/// The noise of one step, in the shape of x, and what is done to the x0 that it predicts.
pub(crate) struct Draw<'a, const D: usize> {
    noise: &'a mut dyn Noise,
    shape: [usize; D],
    device: Device,
    dtype: DType,
    temperature: f32,
    dropout: f64,
    denoised: Option<DenoisedFn<'a, D>>,
}

impl<const D: usize> Draw<'_, D> {
    /// Drawn in the denoiser's type, as diffusers does; returned in f32.
    pub fn normal(&mut self) -> Result<Tensor<D>, Error> {
        self.normal_in(self.dtype)
    }

    /// Drawn in f32 whatever the denoiser's type.
    pub fn normal_f32(&mut self) -> Result<Tensor<D>, Error> {
        self.normal_in(DType::F32)
    }

    fn normal_in(&mut self, dtype: DType) -> Result<Tensor<D>, Error> {
        let mut z = randn(self.noise, self.shape, &self.device, dtype)?.cast(DType::F32);
        if self.temperature != 1.0 {
            z = z * self.temperature;
        }
        if self.dropout == 0.0 {
            return Ok(z);
        }
        let keep = 1.0 - self.dropout;
        let kept = self.noise.keep(&self.shape, keep)?;
        let scale = kept.into_iter().map(|kept| if kept { (1.0 / keep) as f32 } else { 0.0 });
        let scale = TensorData::new(scale.collect::<Vec<f32>>(), self.shape);
        Ok(z * Tensor::<D>::from_data(scale, (&self.device, DType::F32)))
    }

    /// Whether [`denoised`](Self::denoised) does anything.
    pub fn changes_denoised(&self) -> bool {
        self.denoised.is_some()
    }

    /// The predicted x0 as the caller wants it.
    pub fn denoised(&mut self, x0: Tensor<D>) -> Tensor<D> {
        match &mut self.denoised {
            Some(change) => change(x0),
            None => x0,
        }
    }
}

impl<const D: usize> Sampler<D> {
    /// See [`Scheduler::sampler`].
    pub(crate) fn new(scheduler: &Scheduler, options: SamplerOptions) -> Result<Self, Error> {
        let SamplerOptions { steps, strength, eta, temperature, noise_dropout } = options;
        if !(0.0..=1.0).contains(&strength) {
            return Err(Error::Strength(strength));
        }
        if !(eta >= 0.0 && eta.is_finite()) {
            return Err(Error::Eta(eta));
        }
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(Error::Temperature(temperature));
        }
        if !(0.0..1.0).contains(&noise_dropout) {
            return Err(Error::NoiseDropout(noise_dropout));
        }
        let (solver, path) = samplers::new(scheduler, steps, eta)?;
        // As diffusers' image-to-image pipelines count (get_timesteps).
        let kept = ((steps as f64 * strength) as usize).min(steps);
        let begin = (steps - kept) * scheduler.kind().order();
        if kept == 0 || begin >= path.timesteps.len() {
            return Err(Error::NoStepLeft { begin, len: path.timesteps.len() });
        }
        let (kind, temperature) = (scheduler.kind(), temperature as f32);
        Ok(Self { kind, solver, path, index: begin, begin, temperature, noise_dropout })
    }

    /// Which sampler this is.
    pub fn kind(&self) -> SamplerKind {
        self.kind
    }

    /// The timesteps of the run from its start, one for each call of the denoiser: diffusers'
    /// `scheduler.timesteps`, from `begin_index` on. Heun's are doubled, PLMS repeats its second.
    pub fn timesteps(&self) -> &[f32] {
        &self.path.timesteps[self.begin..]
    }

    /// The noise levels of a whole run, the last being where it ends: diffusers' `scheduler.sigmas`. Empty
    /// for DDPM, DDIM, PNDM and LCM.
    pub fn sigmas(&self) -> &[f32] {
        &self.path.sigmas
    }

    /// How many steps are done.
    pub fn done(&self) -> usize {
        self.index - self.begin
    }

    /// The timestep to denoise at now; `None` when the run is over.
    pub fn timestep(&self) -> Option<f32> {
        self.path.timesteps.get(self.index).copied()
    }

    /// What to multiply standard normal noise by for a run that starts from noise alone.
    pub fn init_noise_sigma(&self) -> f32 {
        self.path.init_noise_sigma
    }

    /// What the denoiser is to see for `x` at the current timestep.
    pub fn scale_model_input(&self, x: Tensor<D>) -> Tensor<D> {
        match self.path.levels.get(self.index) {
            Some(level) if level.scale != 1.0 => x / level.scale,
            _ => x,
        }
    }

    /// `x0` with the noise of the current timestep: where image to image starts, and what inpainting puts
    /// back around its hole. When the run is over, `x0` itself.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn add_noise(&self, x0: Tensor<D>, noise: Tensor<D>) -> Result<Tensor<D>, Error> {
        same_shape("noise", &noise, &x0)?;
        Ok(match self.path.levels.get(self.index) {
            Some(level) => x0 * level.signal + noise * level.noise,
            None => x0,
        })
    }

    /// Goes one step: from `x` at [`Self::timestep`] and the denoiser's output there to the next x, in the
    /// type of `x`; computed in f32.
    ///
    /// `output` has the shape of `x`; for DDPM with a learned variance, twice as many channels.
    ///
    /// # Errors
    /// A run that is over, shapes that don't fit, a noise source that refuses.
    pub fn step(
        &mut self,
        output: Tensor<D>,
        x: Tensor<D>,
        noise: &mut dyn Noise,
    ) -> Result<Tensor<D>, Error> {
        self.step_with(output, x, noise, None)
    }

    /// As [`step`](Self::step), with `denoised` between the x0 that DDIM or PLMS predicts and what they
    /// make of it (`quantize_denoised` of the reference's samplers). Gets and gives x0 in f32.
    ///
    /// # Errors
    /// As [`step`](Self::step); [`Error::Denoised`] for other samplers, which don't go by x0.
    pub fn step_with<'a>(
        &mut self,
        output: Tensor<D>,
        x: Tensor<D>,
        noise: &'a mut dyn Noise,
        denoised: Option<DenoisedFn<'a, D>>,
    ) -> Result<Tensor<D>, Error> {
        if denoised.is_some() && !matches!(self.kind, SamplerKind::Ddim | SamplerKind::Pndm) {
            return Err(Error::Denoised(self.kind));
        }
        if self.index >= self.path.timesteps.len() {
            return Err(Error::Finished(self.done()));
        }
        if self.kind != SamplerKind::Ddpm {
            same_shape("model output", &output, &x)?; // DDPM may learn its variance, and checks for itself
        }
        let dtype = x.dtype();
        let mut draw = Draw {
            noise,
            shape: x.dims(),
            device: x.device(),
            dtype: output.dtype(),
            temperature: self.temperature,
            dropout: self.noise_dropout,
            denoised,
        };
        let next = self.solver.step(self.index, x.cast(DType::F32), output.cast(DType::F32), &mut draw)?;
        self.index += 1;
        Ok(next.cast(dtype))
    }

    /// The rest of the run in one go, with any function of `(input, timestep)` for a denoiser. An error from
    /// it ends the run and is returned.
    pub fn run<E: From<Error>>(
        mut self,
        mut x: Tensor<D>,
        noise: &mut dyn Noise,
        mut denoiser: impl FnMut(Tensor<D>, f32) -> Result<Tensor<D>, E>,
    ) -> Result<Tensor<D>, E> {
        while let Some(t) = self.timestep() {
            let output = denoiser(self.scale_model_input(x.clone()), t)?;
            x = self.step(output, x, noise)?;
        }
        Ok(x)
    }
}

impl Path {
    /// Where x keeps unit variance: `x = sqrt(a) x0 + sqrt(1 - a) z`.
    pub fn preserving(
        timesteps: &[i64],
        alpha_bar: impl Fn(i64) -> Result<f32, Error>,
    ) -> Result<Self, Error> {
        let level = |t: &i64| {
            let a = alpha_bar(*t)?;
            Ok(Level { signal: a.sqrt(), noise: (1.0 - a).sqrt(), scale: 1.0 })
        };
        Ok(Self {
            timesteps: timesteps.iter().map(|t| *t as f32).collect(),
            sigmas: vec![],
            levels: timesteps.iter().map(level).collect::<Result<_, Error>>()?,
            init_noise_sigma: 1.0,
        })
    }

    /// Where x0 keeps its size: `x = x0 + sigma z`, and the denoiser sees it at unit variance.
    pub fn exploding(timesteps: Vec<f32>, sigmas: Vec<f32>, init_noise_sigma: f32) -> Self {
        let level = |s: &f32| Level { signal: 1.0, noise: *s, scale: (s * s + 1.0).sqrt() };
        let levels = sigmas.iter().take(timesteps.len()).map(level).collect();
        Self { timesteps, sigmas, levels, init_noise_sigma }
    }

    /// Unit variance again, with the levels given as sigma.
    pub fn preserving_sigmas(timesteps: &[i64], sigmas: Vec<f32>) -> Self {
        let level = |s: &f32| {
            let (signal, noise) = alpha_sigma(*s);
            Level { signal, noise, scale: 1.0 }
        };
        Self {
            timesteps: timesteps.iter().map(|t| *t as f32).collect(),
            levels: sigmas.iter().take(timesteps.len()).map(level).collect(),
            sigmas,
            init_noise_sigma: 1.0,
        }
    }
}

/// Signal and noise of the variance-preserving x whose ratio is `sigma`.
pub(crate) fn alpha_sigma(sigma: f32) -> (f32, f32) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}

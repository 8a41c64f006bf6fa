use burn::tensor::Tensor;
use image::{DynamicImage, RgbImage};
use ldm_scheduler::{NativeRng, Noise, SamplerKind, SamplerOptions, Scheduler, TorchRng};

use super::start::{Start, Task};
use super::{Denoiser, Guidance, Observer, Recorder, Silent, SizeConditioning};
use crate::image::{Mask, from_tensor, to_rgb8};
use crate::{Error, Family, StableDiffusion};

/// The largest side of a picture that can be asked for.
pub(crate) const LARGEST_SIDE: u32 = 16_384;
/// The most pictures that can be asked for at once.
pub(crate) const LARGEST_BATCH: usize = 1_024;

/// Where noise comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rng {
    /// PyTorch's CPU generator: one seed gives one picture here and in diffusers.
    #[default]
    Torch,
    /// Our own generator.
    Native,
}

impl Rng {
    pub(crate) fn seeded(self, seed: u64) -> Box<dyn Noise> {
        match self {
            Self::Torch => Box::new(TorchRng::new(seed)),
            Self::Native => Box::new(NativeRng::new(seed)),
        }
    }
}

/// A picture to be drawn: built by setting what differs from the defaults, then [`run`](Self::run).
///
/// ```no_run
/// # fn main() -> Result<(), ldm::Error> {
/// let model = ldm::StableDiffusion::load("model", &ldm::LoadOptions::default())?;
/// let output = model.text_to_image("a lighthouse in a storm").negative_prompt("people").steps(30).seed(7).run()?;
/// output.images[0].save("lighthouse.png").ok();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Request<'a> {
    model: &'a StableDiffusion,
    task: Task,
    prompts: Vec<String>,
    negative: Option<Vec<String>>,
    steps: usize,
    guidance: Guidance,
    sampler: Option<SamplerKind>,
    eta: f64,
    strength: f64,
    seeds: Vec<u64>,
    rng: Rng,
    count: usize,
    size: Option<[u32; 2]>,
    size_conditioning: Option<SizeConditioning>,
    latents: Option<Tensor<4>>,
    replay: bool,
}

/// What a run gives.
#[derive(Debug, Clone)]
pub struct Output {
    /// One picture an item: the first prompt's `count` pictures, then the second's.
    pub images: Vec<RgbImage>,
    /// The latents that were decoded, `[b, z, h / f, w / f]`.
    pub latents: Tensor<4>,
}

impl StableDiffusion {
    /// Keeps the U-Net's recorded pass from one run to the next, for [`Request::run_recorded`].
    pub fn recorder(&self) -> Recorder<'_> {
        Recorder::new(&self.unet)
    }

    /// Draws a picture of `prompt`.
    pub fn text_to_image(&self, prompt: impl Into<String>) -> Request<'_> {
        Request::new(self, Task::Text, prompt.into(), 1.0)
    }

    /// Redraws `image` as `prompt` says; [`strength`](Request::strength) (0.8, SDXL 0.3) tells how far to go.
    pub fn image_to_image(&self, prompt: impl Into<String>, image: &DynamicImage) -> Request<'_> {
        let strength = self.family.defaults().image_strength;
        Request::new(self, Task::Image(to_rgb8(image)), prompt.into(), strength)
    }

    /// Paints what is white in `mask` anew. A model with 9 input channels sees mask and masked picture; any
    /// other has the rest of the picture put back at every step.
    pub fn inpaint(
        &self,
        prompt: impl Into<String>,
        image: &DynamicImage,
        mask: &DynamicImage,
    ) -> Request<'_> {
        let strength = self.family.defaults().inpaint_strength;
        Request::new(self, Task::Inpaint(to_rgb8(image), Mask::new(mask)), prompt.into(), strength)
    }
}

impl<'a> Request<'a> {
    fn new(model: &'a StableDiffusion, task: Task, prompt: String, strength: f64) -> Self {
        Self {
            model,
            task,
            prompts: vec![prompt],
            negative: None,
            steps: 50,
            guidance: Guidance::new(model.family.defaults().guidance),
            sampler: None,
            eta: 0.0,
            strength,
            seeds: vec![0],
            rng: Rng::Torch,
            count: 1,
            size: None,
            size_conditioning: None,
            latents: None,
            replay: false,
        }
    }

    /// Several prompts at once instead of the one.
    pub fn prompts(mut self, prompts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.prompts = prompts.into_iter().map(Into::into).collect();
        self
    }

    /// What the picture should not show.
    pub fn negative_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.negative = Some(vec![prompt.into()]);
        self
    }

    /// A negative prompt for each prompt.
    pub fn negative_prompts(mut self, prompts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.negative = Some(prompts.into_iter().map(Into::into).collect());
        self
    }

    /// Denoising steps (50).
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Guidance scale (7.5, SDXL and the paper's models 5); at 1 or below there is no guidance.
    pub fn guidance(mut self, scale: f64) -> Self {
        self.guidance.scale = scale;
        self
    }

    /// How much of the guided prediction's deviation is set back to the unguided one's, in [0, 1] (0).
    pub fn guidance_rescale(mut self, rescale: f64) -> Self {
        self.guidance.rescale = rescale;
        self
    }

    /// Another sampler than the model's own, built from the model's scheduler config.
    pub fn sampler(mut self, kind: SamplerKind) -> Self {
        self.sampler = Some(kind);
        self
    }

    /// DDIM's eta (0).
    pub fn eta(mut self, eta: f64) -> Self {
        self.eta = eta;
        self
    }

    /// How far from the given picture to go, above 0 and up to 1 (the defaults are diffusers').
    pub fn strength(mut self, strength: f64) -> Self {
        self.strength = strength;
        self
    }

    /// One seed for the whole batch (0).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seeds = vec![seed];
        self
    }

    /// A seed for each picture of the batch: each is drawn as if it were alone.
    pub fn seeds(mut self, seeds: impl Into<Vec<u64>>) -> Self {
        self.seeds = seeds.into();
        self
    }

    /// Where noise comes from.
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Pictures a prompt (1); 1,024 pictures in all at most.
    pub fn count(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    /// Width and height in pixels; by default the model's own; of image to image the given picture's.
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = Some([width, height]);
        self
    }

    /// What SDXL is told about sizes, by default a picture that was neither resized nor cropped.
    pub fn size_conditioning(mut self, size: SizeConditioning) -> Self {
        self.size_conditioning = Some(size);
        self
    }

    /// Starts from these latents, standard normal `[b, z, h / f, w / f]`, instead of drawing them.
    pub fn latents(mut self, latents: Tensor<4>) -> Self {
        self.latents = Some(latents);
        self
    }

    /// Whether the launches of the U-Net are recorded once a run and then replayed, where the device can do that (no).
    ///
    /// It pays where a device waits for launches and there are many steps: the second step is run three times more and
    /// recorded, and what it used stays allocated until the last ([`run_recorded`](Self::run_recorded) shares a recording among
    /// runs). While CUDA records, no other thread of the process
    /// may allocate device memory: that fails, and so does the recording, without which the run goes on.
    pub fn replay(mut self, replay: bool) -> Self {
        self.replay = replay;
        self
    }

    /// Draws the pictures.
    ///
    /// # Errors
    /// [`Error::Argument`] names an argument that makes no sense; those of the model's parts.
    pub fn run(&self) -> Result<Output, Error> {
        self.run_observed(&mut Silent)
    }

    /// As [`run`](Self::run), showing every step to `observer`, which may cancel.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`Error::Cancelled`].
    pub fn run_observed(&self, observer: &mut dyn Observer) -> Result<Output, Error> {
        self.run_by(None, observer)
    }

    /// As [`run_observed`](Self::run_observed), replaying what an earlier run recorded, or recording for later ones.
    ///
    /// # Errors
    /// As [`run_observed`](Self::run_observed), and [`Error::Argument`] where the recorder is another model's.
    pub fn run_recorded(
        &self,
        recorder: &Recorder<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Output, Error> {
        self.run_by(Some(recorder), observer)
    }

    fn run_by(&self, recorder: Option<&Recorder<'_>>, observer: &mut dyn Observer) -> Result<Output, Error> {
        let model = self.model;
        let size = self.checked_size()?;
        let batch = self.checked_batch()?;
        // A model distilled with guidance as an input takes one call at any scale.
        let active = match model.family {
            // `LDMTextToImagePipeline` guides at any other scale.
            Family::LatentDiffusion => self.guidance.scale != 1.0,
            Family::StableDiffusion | Family::StableDiffusionXl => self.guidance.is_active(),
        };
        let guided = active && model.unet.config().time_cond_proj_dim.is_none();
        let prompts = model.text.encode_guided(&self.prompts, self.negative.as_deref(), guided)?;
        let prompts = prompts.repeat(self.count)?;

        let scheduler = self.scheduler()?;
        let options = SamplerOptions::steps(self.steps).strength(self.strength).eta(self.eta);
        let sampler = scheduler.sampler(options)?;

        let mut noise: Vec<_> = self.seeds.iter().map(|seed| self.rng.seeded(*seed)).collect();
        let request = Start { model, size, batch, strength: self.strength, latents: self.latents.clone() };
        let start = request.of(&self.task, &sampler, &mut noise)?;

        let [width, height] = size;
        let size = self.size_conditioning.unwrap_or_else(|| SizeConditioning::of(height, width));
        let size = (model.family == Family::StableDiffusionXl).then_some(size);
        let denoiser = Denoiser::new(&model.unet, prompts, self.guidance, size)?
            .with_concat(start.concat)
            .with_replay(self.replay);
        let (latents, blend) = (start.latents, start.blend.as_ref());
        let latents = match recorder {
            Some(recorder) => {
                denoiser.denoise_recorded(recorder, sampler, latents, &mut noise, blend, observer)?
            }
            None => denoiser.denoise(sampler, latents, &mut noise, blend, observer)?,
        };
        let images = from_tensor(model.decode(latents.clone())?)?;
        Ok(Output { images, latents })
    }

    /// The sampler asked for, from the model's config as diffusers' pipelines mend it.
    fn scheduler(&self) -> Result<Scheduler, Error> {
        let mut config = self.model.scheduler.clone();
        let kind = match self.sampler {
            Some(kind) => kind,
            None => config.kind()?,
        };
        // Pipelines of latent consistency models, which take their guidance as an embedding, mend nothing.
        let consistent = self.model.unet.config().time_cond_proj_dim.is_some()
            && self.model.scheduler.kind().is_ok_and(|kind| kind == SamplerKind::Lcm);
        if self.model.family == Family::StableDiffusion && !consistent {
            config = match self.task {
                Task::Inpaint(..) => config.for_stable_diffusion_inpainting(kind),
                Task::Text | Task::Image(..) => config.for_stable_diffusion(kind),
            };
        }
        Ok(Scheduler::from_config(kind, &config)?)
    }

    /// Width and height, which must be multiples of the first stage's factor.
    fn checked_size(&self) -> Result<[u32; 2], Error> {
        let factor = self.model.vae.factor() as u32;
        let [width, height] = match (self.size, &self.task) {
            (Some(size), _) => size,
            (None, Task::Text) => match &self.latents {
                Some(latents) => {
                    let [_, _, h, w] = latents.dims();
                    [w as u32 * factor, h as u32 * factor]
                }
                None => self.model.default_size,
            },
            // A given picture is cut down to the next size that the model can have.
            (None, Task::Image(picture)) => {
                [picture.width(), picture.height()].map(|side| side / factor * factor)
            }
            (None, Task::Inpaint(..)) => self.model.default_size,
        };
        for (name, side) in [("width", width), ("height", height)] {
            if side == 0 || !side.is_multiple_of(factor) || side > LARGEST_SIDE {
                let reason = format!("{side} is no multiple of {factor} between {factor} and {LARGEST_SIDE}");
                return Err(Error::argument(name, reason));
            }
        }
        Ok([width, height])
    }

    /// Pictures in all.
    fn checked_batch(&self) -> Result<usize, Error> {
        let batch = self.prompts.len().checked_mul(self.count);
        let Some(batch) = batch.filter(|batch| (1..=LARGEST_BATCH).contains(batch)) else {
            let (prompts, count) = (self.prompts.len(), self.count);
            let reason = format!("{prompts} prompts with {count} pictures each; 1 to {LARGEST_BATCH} in all");
            return Err(Error::argument("count", reason));
        };
        if self.seeds.len() != 1 && self.seeds.len() != batch {
            let reason = format!("{} for {batch} pictures: give one, or one each", self.seeds.len());
            return Err(Error::argument("seeds", reason));
        }
        if !self.guidance.scale.is_finite() {
            return Err(Error::argument("guidance", format!("{} is no number", self.guidance.scale)));
        }
        if !(0.0..=1.0).contains(&self.guidance.rescale) {
            let reason = format!("{} is not between 0 and 1", self.guidance.rescale);
            return Err(Error::argument("guidance_rescale", reason));
        }
        Ok(batch)
    }
}

use std::hash::{BuildHasher, Hasher, RandomState};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use ldm::StableDiffusion;
use ldm::pipeline::{Output, Request, Rng};
use ldm::scheduler::SamplerKind;

use super::model::ModelArgs;
use super::output::Pictures;
use super::{Result, emoji};

/// Denoising steps, as in diffusers.
const STEPS: usize = 50;

/// Where noise comes from.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RngName {
    /// PyTorch's CPU generator: a seed gives the picture that it gives in diffusers
    Torch,
    /// Our own generator
    Native,
}

/// How to draw.
#[derive(Args, Debug)]
pub struct SamplingArgs {
    /// What the picture should show [default, without --model: man astronaut, dark skin tone]
    #[arg(long)]
    pub prompt: Option<String>,
    /// What it should not show
    #[arg(long)]
    pub negative_prompt: Option<String>,
    /// Denoising steps [default: 50, without --model 25]
    #[arg(long)]
    pub steps: Option<usize>,
    /// Guidance scale; 1 is no guidance [default: 7.5, SDXL and the paper's models 5, without --model 3]
    #[arg(long)]
    pub guidance: Option<f64>,
    /// How much of the guided prediction's deviation is set back, 0 to 1 (for models with zero terminal SNR)
    #[arg(long, default_value_t = 0.0)]
    pub guidance_rescale: f64,
    /// Sampler [default: the model's own]
    #[arg(long, value_parser = samplers())]
    pub sampler: Option<SamplerKind>,
    /// DDIM's eta: 0 is deterministic, 1 is DDPM
    #[arg(long, default_value_t = 0.0)]
    pub eta: f64,
    /// Seed of the noise [default: drawn, and told]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Generator of the noise
    #[arg(long, value_enum, default_value = "torch")]
    pub rng: RngName,
    /// Pictures to draw at once
    #[arg(long, default_value_t = 1)]
    pub count: usize,
    /// Width in pixels [default: the model's; of image to image the given picture's]
    #[arg(long)]
    pub width: Option<u32>,
    /// Height in pixels [default: the model's; of image to image the given picture's]
    #[arg(long)]
    pub height: Option<u32>,
    /// PNG to write; with --count, numbered
    #[arg(long, default_value = "output.png")]
    pub output: Pictures,
}

fn samplers() -> impl TypedValueParser<Value = SamplerKind> {
    let names: Vec<_> = SamplerKind::all().map(SamplerKind::name).collect();
    PossibleValuesParser::new(names).try_map(|name| name.parse::<SamplerKind>())
}

impl SamplingArgs {
    /// Fills in what suits the model of emoji, where no other is given.
    pub fn fill(&mut self, model: &ModelArgs) {
        if model.model.is_none() {
            self.prompt.get_or_insert_with(|| emoji::PROMPT.into());
            self.steps.get_or_insert(emoji::STEPS);
            self.guidance.get_or_insert(emoji::GUIDANCE);
            self.sampler.get_or_insert(emoji::SAMPLER);
        }
    }

    /// The prompt.
    pub fn prompt(&self) -> Result<&str> {
        self.prompt.as_deref().ok_or_else(|| "--prompt is missing: what should the picture show?".into())
    }

    /// The seed that was given, or one of the system's.
    pub fn seed(&self) -> u64 {
        // Four bytes are easier to type again.
        self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() & 0xffff_ffff)
    }

    /// Sets everything on a request but its size.
    pub fn apply<'a>(&self, mut request: Request<'a>, seed: u64) -> Request<'a> {
        request = request
            .steps(self.steps.unwrap_or(STEPS))
            .guidance_rescale(self.guidance_rescale)
            .eta(self.eta)
            .seed(seed)
            .count(self.count)
            .rng(match self.rng {
                RngName::Torch => Rng::Torch,
                RngName::Native => Rng::Native,
            });
        if let Some(prompt) = &self.negative_prompt {
            request = request.negative_prompt(prompt);
        }
        if let Some(scale) = self.guidance {
            request = request.guidance(scale);
        }
        if let Some(kind) = self.sampler {
            request = request.sampler(kind);
        }
        request
    }

    /// Width and height where one of them was given; `usual` fills in the other.
    pub fn size(&self, usual: [u32; 2]) -> Option<[u32; 2]> {
        let [width, height] = usual;
        let given = self.width.is_some() || self.height.is_some();
        given.then(|| [self.width.unwrap_or(width), self.height.unwrap_or(height)])
    }

    /// What a PNG says about how it was made, as other tools write and read it.
    pub fn parameters(
        &self,
        model: &ModelArgs,
        loaded: &StableDiffusion,
        output: &Output,
        seed: u64,
        task: &str,
    ) -> Result<String> {
        let sampler = match self.sampler {
            Some(kind) => kind,
            None => loaded.scheduler.kind()?,
        };
        let guidance = self.guidance.unwrap_or(loaded.family.defaults().guidance);
        let mut text = self.prompt.clone().unwrap_or_default();
        if let Some(negative) = &self.negative_prompt {
            text += &format!("\nNegative prompt: {negative}");
        }
        text += &format!(
            "\nSteps: {}, Sampler: {sampler}, CFG scale: {guidance}, Seed: {seed}, RNG: {:?}, Model: {}, Type: {}",
            self.steps.unwrap_or(STEPS),
            self.rng,
            model.name(),
            model.device.dtype,
        );
        if let Some(picture) = output.images.first() {
            text += &format!(", Size: {}x{}", picture.width(), picture.height());
        }
        if sampler == SamplerKind::Ddim && self.eta != 0.0 {
            text += &format!(", Eta: {}", self.eta);
        }
        if self.guidance_rescale != 0.0 {
            text += &format!(", Guidance rescale: {}", self.guidance_rescale);
        }
        if !task.is_empty() {
            text += &format!(", {task}");
        }
        Ok(text)
    }
}

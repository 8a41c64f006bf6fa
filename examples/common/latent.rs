//! What the examples of the paper's own models share.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ldm::image::{Mask, open, to_rgb8, to_tensor};
use ldm::latent_diffusion::{Patches, Sampled, Sampling};
use ldm::nn::upsample_nearest;
use ldm::scheduler::{SamplerKind, TorchRng};
use ldm::{LatentDiffusion, LoadOptions};

use super::Result;
use super::model::DeviceArgs;
use super::output::Pictures;
use super::progress::spinner;

/// Which of the paper's models.
#[derive(Args, Debug)]
pub struct LatentModelArgs {
    /// A checkpoint with the reference's names (.ckpt, .safetensors), a directory of diffusers', or `owner/name` of
    /// such a one on the hub
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// The checkpoint's YAML config
    #[arg(long, value_name = "YAML")]
    pub config: Option<PathBuf>,
    /// The published model whose checkpoint it is, where there is no YAML [default: the example's own]
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub preset: Option<String>,
    /// Take the EMA weights (true) or the plain ones (false) [default: as the config says]
    #[arg(long, value_name = "BOOL")]
    pub ema: Option<bool>,
    /// Run pictures larger than this many latent pixels in overlapping patches of that size
    #[arg(long, value_name = "SIDE")]
    pub patch: Option<usize>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl LatentModelArgs {
    /// Loads the model; `preset` is the published one that the example is for.
    pub fn load(&self, preset: &str) -> Result<LatentDiffusion> {
        let (device, dtype) = self.device.open()?;
        let mut options = LoadOptions::new(device).dtype(dtype);
        options.use_ema = self.ema;
        let spinner = spinner(format!("loading {}", self.model.display()));
        let mut model = match &self.config {
            Some(yaml) => LatentDiffusion::load(&self.model, &options.config(yaml))?,
            // A checkpoint needs a config; directories and models of the hub carry theirs.
            None if self.model.is_file() || self.preset.is_some() => {
                let preset = self.preset.as_deref().unwrap_or(preset);
                LatentDiffusion::load_preset(preset, &self.model, &options)?
            }
            None => LatentDiffusion::load(&self.model, &options)?,
        };
        spinner.finish_and_clear();
        model.patches = self.patch.map(|side| Patches {
            ks: [side; 2],
            stride: [side.div_ceil(2); 2],
            vqf: model.first_stage.factor(),
            ..Patches::default()
        });
        Ok(model)
    }
}

/// How to draw.
#[derive(Args, Debug)]
pub struct LatentSamplingArgs {
    /// Denoising steps
    #[arg(long, default_value_t = 50)]
    pub steps: usize,
    /// DDIM's eta: 0 is deterministic, 1 is DDPM
    #[arg(long, default_value_t = 0.0)]
    pub eta: f64,
    /// Sampler; pndm is PLMS [default: the model's own]
    #[arg(long, value_parser = samplers())]
    pub sampler: Option<SamplerKind>,
    /// Multiplies the noise that each step adds
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    /// The part of that noise which is dropped
    #[arg(long, default_value_t = 0.0)]
    pub noise_dropout: f64,
    /// Replace each prediction of the picture by the nearest codes (VQ first stages)
    #[arg(long)]
    pub quantize_denoised: bool,
    /// Classifier-free guidance; 1 is none
    #[arg(long, default_value_t = 1.0)]
    pub guidance: f64,
    /// Seed of the noise
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Height and width in pixels [default: the model's, or the condition's]
    #[arg(long, num_args = 2, value_names = ["HEIGHT", "WIDTH"])]
    pub size: Option<Vec<usize>>,
    /// A picture of which a part stays, whatever the model; its size is that of what is drawn
    #[arg(long, value_name = "FILE", requires = "keep_mask", conflicts_with = "size")]
    pub keep: Option<PathBuf>,
    /// White where that picture stays, black where it is drawn anew
    #[arg(long, value_name = "FILE", requires = "keep")]
    pub keep_mask: Option<PathBuf>,
    /// PNG to write; several pictures are numbered
    #[arg(long, default_value = "output.png")]
    pub output: Pictures,
}

fn samplers() -> impl TypedValueParser<Value = SamplerKind> {
    let names: Vec<_> = SamplerKind::all().map(SamplerKind::name).collect();
    PossibleValuesParser::new(names).try_map(|name| name.parse::<SamplerKind>())
}

impl LatentSamplingArgs {
    /// Sets everything on a run.
    pub fn apply<'a>(&self, model: &LatentDiffusion, mut run: Sampling<'a>) -> Result<Sampling<'a>> {
        run = run
            .steps(self.steps)
            .eta(self.eta)
            .temperature(self.temperature)
            .noise_dropout(self.noise_dropout)
            .quantize_denoised(self.quantize_denoised)
            .guidance(self.guidance)
            .seed(self.seed);
        if let Some(kind) = self.sampler {
            run = run.sampler(kind);
        }
        if let Some([height, width]) = self.latent_size(model)? {
            run = run.latent_size(height, width);
        }
        if let (Some(picture), Some(mask)) = (&self.keep, &self.keep_mask) {
            let (picture, mask) = (to_rgb8(&open(picture)?), Mask::new(&open(mask)?));
            if picture.dimensions() != mask.dimensions() {
                let ((w, h), (mask_w, mask_h)) = (picture.dimensions(), mask.dimensions());
                return Err(format!("--keep-mask: {mask_w}x{mask_h} instead of {w}x{h}").into());
            }
            let z = model.encode(to_tensor(&picture, model.device()), &mut TorchRng::new(self.seed))?;
            let [_, _, h, w] = z.dims();
            run = run.keep(z, upsample_nearest(mask.to_tensor(model.device()), [h, w]));
        }
        Ok(run)
    }

    /// Height and width of the latent that `--size` asks for.
    pub fn latent_size(&self, model: &LatentDiffusion) -> Result<Option<[usize; 2]>> {
        let Some([height, width]) = self.size.as_deref() else { return Ok(None) };
        let factor = model.first_stage.factor();
        if !height.is_multiple_of(factor) || !width.is_multiple_of(factor) {
            return Err(format!("--size {height} {width}: each must be a multiple of {factor}").into());
        }
        Ok(Some([height / factor, width / factor]))
    }

    /// Writes what was drawn.
    pub fn save(&self, drawn: &Sampled) -> Result<()> {
        let Self { steps, eta, seed, guidance, .. } = self;
        let text = format!("Steps: {steps}, eta: {eta}, CFG scale: {guidance}, Seed: {seed}");
        self.output.save(&drawn.images()?, &text)
    }
}

//! From noise to a picture: the pipelines' own loop, with the text encoder's output given or with the text encoder.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use ldm::conditioning::CondStage;
use ldm::pipeline::{
    Denoiser, Guidance, PromptConditioning, Recorder, Silent, SizeConditioning, TextEncoder, TextStage,
};
use ldm::scheduler::{SamplerKind, SamplerOptions, Scheduler, SchedulerConfig, TorchRng};
use ldm_train::config::EncoderSection;
use ldm_unet::presets::Preset;
use ldm_unet::{Conditioning, UNet};
use ldm_vae::{AutoencoderKl, FirstStageConfig};

use super::networks::{sd1, sd1_vae, unet_of, vae_of};
use super::training::emoji_config;
use super::{Cheap, Pass, Place, Size, finish, values};

/// Denoising steps of the emoji's pictures.
pub const EMOJI_STEPS: usize = 25;

/// What comes after the text encoder.
struct Pictures {
    unet: UNet,
    vae: AutoencoderKl,
    /// Standard normal in a real run.
    latents: Tensor<4>,
    guidance: Guidance,
    steps: usize,
    replay: bool,
    size: Option<SizeConditioning>,
}

impl Pictures {
    /// Draws whenever it is called. Steps are recorded by the first run only, and pictures live as long as the process.
    fn drawing(self, prompts: PromptConditioning) -> Pass {
        let pictures: &'static Self = Box::leak(Box::new(self));
        let recorder = pictures.replay.then(|| Recorder::new(&pictures.unet));
        Box::new(move || pictures.draw(prompts.clone(), recorder.as_ref()))
    }

    fn draw(&self, prompts: PromptConditioning, recorder: Option<&Recorder<'_>>) -> f32 {
        let scheduler = Scheduler::from_config(SamplerKind::Ddim, &stable_diffusion()).expect("a schedule");
        let sampler = scheduler.sampler(SamplerOptions::steps(self.steps)).expect("a run");
        let denoiser = Denoiser::new(&self.unet, prompts, self.guidance, self.size).expect("fitting prompts");
        let (noise, latents) = (&mut TorchRng::new(0), self.latents.clone());
        let z = match recorder {
            Some(recorder) => denoiser.denoise_recorded(recorder, sampler, latents, noise, None, &mut Silent),
            None => denoiser.denoise(sampler, latents, noise, None, &mut Silent),
        };
        let z = z.expect("a latent");
        let z = self.vae.scaling().unscale(z);
        finish(self.vae.decode(z).expect("a fitting latent"))
    }
}

/// The scheduler_config.json of Stable Diffusion 1.5, as far as DDIM reads it.
fn stable_diffusion() -> SchedulerConfig {
    let json = r#"{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1}"#;
    SchedulerConfig::from_json(json).expect("a config")
}

/// Stable Diffusion 1.5: DDIM, guidance 7.5, 77 tokens of context given.
pub fn text_to_image(Size { side, batch, steps, replay }: Size, place: &Place) -> Pass {
    let pictures = Pictures {
        unet: unet_of(&sd1(), place),
        vae: sd1_vae(place),
        latents: values([batch, 4, side, side], 1.0, &Place::f32(place.device.clone())),
        guidance: Guidance::new(7.5),
        steps,
        replay,
        size: None,
    };
    let prompts = both(|scale| Conditioning::context(values([batch, 77, 768], scale, place)));
    pictures.drawing(prompts)
}

/// Stable Diffusion XL base: DDIM, guidance 5, the two encoders' output given; its decoder runs in f32 (`force_upcast`).
pub fn sdxl(Size { side, batch, steps, replay }: Size, place: &Place) -> Pass {
    let exact = Place::f32(place.device.clone());
    let pixels = 8 * side as u32;
    let pictures = Pictures {
        unet: unet_of(&Preset::Sdxl.config(), place),
        vae: vae_of("stable-diffusion-xl", &exact),
        latents: values([batch, 4, side, side], 1.0, &exact),
        guidance: Guidance::new(5.0),
        steps,
        replay,
        size: Some(SizeConditioning::of(pixels, pixels)),
    };
    let prompts = both(|scale| Conditioning {
        text_embeds: Some(values([batch, 1280], scale, place)),
        ..Conditioning::context(values([batch, 77, 2048], scale, place))
    });
    pictures.drawing(prompts)
}

/// A prompt's conditioning and the empty prompt's.
fn both(of: impl Fn(f32) -> Conditioning) -> PromptConditioning {
    PromptConditioning { positive: of(1.0), negative: Some(of(0.5)) }
}

/// One emoji of a prompt with a random model of configs/emoji_diffusion.yaml's shape, guidance 3, text encoder included.
pub fn emoji_picture(place: &Place) -> Pass {
    let mut config = emoji_config();
    if let Some(EncoderSection::Encoder(encoder)) = &mut config.cond_stage {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        encoder.vocab_file = encoder.vocab_file.take().map(|file| root.join(file));
    }
    let FirstStageConfig::Kl(first_stage) = &config.first_stage else {
        panic!("the emoji's first stage is KL")
    };
    let Some(CondStage::BertEmbedder(bert)) = config.tau(&place.device).expect("a text encoder") else {
        panic!("the emoji's text encoder is BERTEmbedder")
    };
    let text = TextStage {
        first: TextEncoder::Bert(Box::new(bert.map(&mut Cheap(DType::F32)))),
        second: None,
        zeros_for_no_negative: false,
    };
    let side = config.unet.sample_size.map_or(16, |[side, _]| side);
    let pictures = Pictures {
        unet: unet_of(&config.unet, place),
        vae: first_stage.init(&place.device).expect("a config").map(&mut Cheap(place.dtype)),
        latents: values([1, 4, side, side], 1.0, &Place::f32(place.device.clone())),
        guidance: Guidance::new(3.0),
        steps: EMOJI_STEPS,
        replay: false,
        size: None,
    };
    Box::new(move || {
        let prompts = text.encode_guided(&["red heart".to_string()], None, true).expect("a conditioning");
        pictures.draw(prompts, None)
    })
}

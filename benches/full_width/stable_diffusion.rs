//! Stable Diffusion's, against diffusers and transformers.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ldm_conditioning::clip::{ClipKeys, ClipTextConfig};
use ldm_test_support::{Fixture, relative_difference, seeded_input};
use ldm_unet::Conditioning;
use ldm_unet::presets::Preset;
use ldm_vae::{KlPreset, Naming};

use crate::drawn::drawn;

pub fn compare(fixture: &Fixture, name: &str) -> (usize, f64) {
    match name {
        "sd1" => unet(fixture, name, Preset::Sd1),
        "sd2" => unet(fixture, name, Preset::Sd2V),
        "sdxl" => unet(fixture, name, Preset::Sdxl),
        "sd-vae" => first_stage(fixture, name),
        "clip-l" => text_encoder(fixture, name, ClipTextConfig::vit_l_14()),
        "clip-h" => text_encoder(fixture, name, ClipTextConfig::open_clip_h_14()),
        "clip-bigg" => text_encoder(fixture, name, ClipTextConfig::open_clip_big_g_14()),
        other => panic!("no network is called {other}"),
    }
}

/// One forward pass on an 8x8 latent, with a context of five tokens.
fn unet(fixture: &Fixture, name: &str, preset: Preset) -> (usize, f64) {
    let device = Device::default();
    let config = preset.config();
    let unet = drawn(config.init(&device).unwrap(), &config.diffusers_keys().unwrap(), "");
    let context = seeded_input("context", [1, 5, config.context_dim.expect("a context")], &device);
    let mut conditioning = Conditioning::context(context);
    if preset == Preset::Sdxl {
        conditioning.text_embeds = Some(seeded_input("text_embeds", [1, 1280], &device));
        let sizes = [[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]];
        conditioning.time_ids = Some(Tensor::from_floats(sizes, &device));
    }
    let t = Tensor::<1>::from_floats([500.0], &device);
    let sample = unet.forward(seeded_input("x", [1, 4, 8, 8], &device), t, &conditioning).unwrap();
    (unet.parameter_count(), relative_difference(&sample, &fixture.tensor::<4>(name, &device)))
}

/// A picture of 64x64 encoded, a latent of 8x8 decoded; the larger difference.
fn first_stage(fixture: &Fixture, name: &str) -> (usize, f64) {
    let device = Device::default();
    let config = KlPreset::find("stable-diffusion-v1").expect("a published first stage").config();
    let module = config.init(&device).unwrap();
    let keys = module.weight_names(Naming::Diffusers);
    let vae = drawn(module, &keys, "");
    let picture = seeded_input::<4>("picture", [1, 3, 64, 64], &device).clamp(-1.0, 1.0);
    let mean = vae.encode(picture).unwrap().mean();
    let decoded = vae.decode(seeded_input("z", [1, 4, 8, 8], &device)).unwrap();
    let apart = |part: &str, found: &Tensor<4>| {
        relative_difference(found, &fixture.tensor::<4>(&format!("{name}.{part}"), &device))
    };
    (vae.num_params(), apart("encoded", &mean).max(apart("decoded", &decoded)))
}

/// 77 token ids; the fixture has twenty rows of the penultimate layer, and the pooled output or its projection.
fn text_encoder(fixture: &Fixture, name: &str, config: ClipTextConfig) -> (usize, f64) {
    let device = Device::default();
    let encoder = drawn(config.init(&device).unwrap(), &ClipKeys::Transformers, "");
    let ids: Vec<i64> = (0..77).map(|i| if i < 60 { (i * 397 + 11) % 49_000 } else { 49_407 }).collect();
    let output =
        encoder.forward(Tensor::<2, Int>::from_data(TensorData::new(ids, [1, 77]), &device)).unwrap();
    let penultimate = output.penultimate().narrow(1, 0, 20);
    let pooled = output.text_embeds.unwrap_or(output.pooler_output);
    let apart =
        relative_difference(&penultimate, &fixture.tensor::<3>(&format!("{name}.penultimate"), &device))
            .max(relative_difference(&pooled, &fixture.tensor::<2>(&format!("{name}.pooled"), &device)));
    (encoder.num_params(), apart)
}

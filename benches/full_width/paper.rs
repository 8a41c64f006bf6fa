//! The paper's, against the reference's code.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ldm_conditioning::{CondStage, CondStageConfig, Condition};
use ldm_test_support::{Fixture, relative_difference, seeded_input};
use ldm_unet::{Conditioning, UNetConfig};
use ldm_vae::Naming;

use crate::drawn::drawn;

/// txt2img-1p4B's, over token ids.
const BERT: &str = "bert-1280x32";

pub fn compare(fixture: &Fixture, name: &str) -> (usize, f64) {
    if name == BERT {
        text_encoder(fixture)
    } else if ldm::presets::first_stage(name).is_some() {
        first_stage(fixture, name)
    } else {
        unet(fixture, name)
    }
}

/// One forward pass on an 8x8 latent.
fn unet(fixture: &Fixture, name: &str) -> (usize, f64) {
    let device = Device::default();
    let preset = ldm::presets::ldm(name).expect("a published model");
    let config = UNetConfig::from_compvis(&preset.config().unet_config.params).unwrap();
    let keys = config.compvis_keys().unwrap();
    let unet = drawn(config.init(&device).unwrap(), &keys, "model.diffusion_model.");
    let x = seeded_input("x", [1, config.in_channels, 8, 8], &device);
    let conditioning = match config.context_dim {
        Some(width) => Conditioning::context(seeded_input("context", [1, 5, width], &device)),
        None => Conditioning::none(),
    };
    let t = Tensor::<1>::from_floats([500.0], &device);
    let e = unet.forward(x, t, &conditioning).unwrap();
    (unet.parameter_count(), relative_difference(&e, &fixture.tensor::<4>(name, &device)))
}

/// A picture of 64x64 encoded, a latent decoded; the larger difference.
fn first_stage(fixture: &Fixture, name: &str) -> (usize, f64) {
    let device = Device::default();
    let config = ldm::presets::first_stage(name).expect("a published first stage").config();
    let names = config.init(&device).unwrap().weight_names(Naming::CompVis);
    let stage = drawn(config.init(&device).unwrap(), &names, "first_stage_model.");
    let picture = seeded_input::<4>("picture", [1, 3, 64, 64], &device).clamp(-1.0, 1.0);
    let encoded = stage.encode(picture).unwrap().mode();
    let side = 64 / stage.factor();
    let z = seeded_input("z", [1, stage.latent_channels(), side, side], &device);
    let decoded = stage.decode(z).unwrap();
    let apart = |part: &str, found: &Tensor<4>| {
        relative_difference(found, &fixture.tensor::<4>(&format!("{name}.{part}"), &device))
    };
    (stage.num_params(), apart("encoded", &encoded).max(apart("decoded", &decoded)))
}

/// 77 token ids, of whose embeddings the fixture has twenty.
fn text_encoder(fixture: &Fixture) -> (usize, f64) {
    let device = Device::default();
    let params = serde_json::json!({"n_embed": 1280, "n_layer": 32, "use_tokenizer": false});
    let config = CondStageConfig::from_target("ldm.modules.encoders.modules.BERTEmbedder", &params).unwrap();
    let keys = config.init(&device).unwrap().compvis_keys();
    let stage: CondStage = drawn(config.init(&device).unwrap(), &keys, "cond_stage_model.");
    let ids: Vec<i64> = (0..77).map(|i| (i * 397 + 11) % 30_522).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, 77]), &device);
    let context = stage.encode(&Condition::Tokens(tokens)).unwrap().context.unwrap().narrow(1, 0, 20);
    (stage.num_params(), relative_difference(&context, &fixture.tensor::<3>(BERT, &device)))
}

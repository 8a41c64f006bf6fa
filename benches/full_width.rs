//! The paper's networks at full width against the original code: a U-Net of each family, two first stages and the
//! largest text encoder. `cargo bench --bench full_width -- cin256 kl-f8` (`all`: all; rdm768x768 takes 12 GB of
//! memory).
//!
//! Weights are drawn by name as in the tests, tests/reference/full_width.py made the numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench ends where its model cannot be made")]

use std::process::ExitCode;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ldm_conditioning::{CondStage, CondStageConfig, Condition};
use ldm_nn::weights::{KeyMap, Loader, WeightFile, save_safetensors};
use ldm_test_support::{Fixture, relative_difference, seeded_input, write_weights};
use ldm_unet::{Conditioning, UNetConfig};
use ldm_vae::Naming;

const TOLERANCE: f64 = 1e-4;
/// txt2img-1p4B's, over token ids.
const BERT: &str = "bert-1280x32";

fn main() -> ExitCode {
    let fixture = Fixture::open("full_width");
    let counts = fixture.json("counts");
    // `cargo bench` adds `--bench`.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if named.is_empty() {
        // `cargo bench` alone stays within an ordinary machine's memory.
        let names: Vec<_> = counts.as_object().unwrap().keys().cloned().collect();
        println!("usage: full_width NAME..., all or some of {}", names.join(", "));
        return ExitCode::SUCCESS;
    }
    let all = named.iter().any(|name| name == "all");
    let mut worst = 0f64;
    for (name, count) in counts.as_object().unwrap() {
        if !all && !named.contains(name) {
            continue;
        }
        let start = Instant::now();
        let (found, difference) = if name == BERT {
            text_encoder(&fixture)
        } else if ldm::presets::first_stage(name).is_some() {
            first_stage(&fixture, name)
        } else {
            unet(&fixture, name)
        };
        let seconds = start.elapsed().as_secs_f64();
        println!("{name}: {found} parameters, difference {difference:.2e}, {seconds:.0} s with its weights");
        assert_eq!(count.as_u64(), Some(found as u64), "{name}: parameters");
        worst = worst.max(difference);
    }
    if worst <= TOLERANCE { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A module with the weights that its file's names give.
fn drawn<M: Module>(init: impl Fn() -> M, keys: &dyn KeyMap, prefix: &str) -> M {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    save_safetensors(&init(), keys, &path, DType::F32).unwrap();
    let file = WeightFile::open(&path).unwrap();
    let shapes: Vec<_> = file.tensors().map(|t| (format!("{prefix}{}", t.name), t.shape.clone())).collect();
    drop(file);
    write_weights(&path, &shapes);
    let file = WeightFile::open(&path).unwrap();
    Loader::new(keys).prefix(prefix).load(init(), &file).unwrap().0
}

/// One forward pass on an 8x8 latent.
fn unet(fixture: &Fixture, name: &str) -> (usize, f64) {
    let device = Device::default();
    let preset = ldm::presets::ldm(name).expect("a published model");
    let config = UNetConfig::from_compvis(&preset.config().unet_config.params).unwrap();
    let keys = config.compvis_keys().unwrap();
    let unet = drawn(|| config.init(&device).unwrap(), &keys, "model.diffusion_model.");
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
    let stage = drawn(|| config.init(&device).unwrap(), &names, "first_stage_model.");
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
    let stage: CondStage = drawn(|| config.init(&device).unwrap(), &keys, "cond_stage_model.");
    let ids: Vec<i64> = (0..77).map(|i| (i * 397 + 11) % 30_522).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, 77]), &device);
    let context = stage.encode(&Condition::Tokens(tokens)).unwrap().context.unwrap().narrow(1, 0, 20);
    (stage.num_params(), relative_difference(&context, &fixture.tensor::<3>(BERT, &device)))
}

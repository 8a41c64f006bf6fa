//! Configs with values that nobody would write: each makes a model that runs, or an error that says what is wrong;
//! none a panic.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

use burn::tensor::{Device, Int, Tensor};
use ldm::conditioning::clip::{ClipTextConfig, ClipVisionConfig};
use ldm::scheduler::{SamplerKind, SamplerOptions, Scheduler, SchedulerConfig, TorchRng};
use ldm::unet::{Conditioning, UNetConfig};
use ldm::vae::{
    AutoencoderKlConfig, DiffusersAutoencoderKl, DiffusersVqModel, FirstStageConfig, VqModelConfig,
};
use ldm_test_support::Fixture;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

/// What a reader of a config finds out about it: an error in words, or that it runs.
type Outcome = Result<(), String>;

/// Values of every kind; no large ones, as they are memory that there may be.
fn value() -> impl Strategy<Value = Value> {
    let others = [json!(null), json!("squirrel"), json!([]), json!({}), json!("32"), json!([[1]]), json!(32)];
    prop_oneof![
        4 => (-2..=9i64).prop_map(Value::from),
        1 => select(vec![0.0, 0.5, 1.5, -1.0, 1e-30, 1e30]).prop_map(Value::from),
        2 => any::<bool>().prop_map(Value::from),
        2 => select(others.to_vec()),
        2 => vec(1..=4i64, 0..4).prop_map(Value::from),
    ]
}

/// Where values stand in a document.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut down = |key: String, value: &Value| {
        let at = format!("{at}/{key}");
        places(value, &at, found);
        found.push(at);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| down(key.clone(), value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| down(i.to_string(), value)),
        _ => {}
    }
}

/// A document with one or two of its values replaced.
fn mutated(document: &Value, changes: &[(Index, Value)]) -> Value {
    let mut document = document.clone();
    for (index, value) in changes {
        let mut found = vec![];
        places(&document, "", &mut found);
        if let Some(place) = found.get(index.index(found.len().max(1))) {
            *document.pointer_mut(place).unwrap() = value.clone();
        }
    }
    document
}

/// Tries what `run` makes of configs, as they are, which runs, and in `cases` ways they may come to be written.
fn try_all<K>(cases: u32, configs: &[(K, Value)], run: impl Fn(&K, &Value) -> Outcome) {
    for (kind, config) in configs {
        run(kind, config).unwrap();
    }
    let changes = vec((any::<Index>(), value()), 1..=2);
    let test = |(which, changes): (Index, Vec<(Index, Value)>)| {
        let (kind, config) = which.get(configs);
        if let Err(error) = run(kind, &mutated(config, &changes)) {
            prop_assert!(error.contains(' '), "{error:?} explains nothing");
        }
        Ok(())
    };
    // The same cases in every run: what is found elsewhere is found here.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new_with_rng(config, rng).run(&(any::<Index>(), changes), test).unwrap();
}

/// The configs of fixtures, by their names.
fn fixtures<const N: usize>(names: [&str; N]) -> [(&str, Value); N] {
    names.map(|name| (name, Fixture::open(name).json("config")))
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[test]
fn unets() {
    let names = ["unet_condition_sd1", "unet_condition_odd", "unet_unconditional_ddpm", "unet_compvis_sd1"];
    try_all(200, &fixtures(names), |name, json| {
        let device = Device::default();
        let compvis = name.starts_with("unet_compvis");
        let config = if compvis { UNetConfig::from_compvis(json) } else { UNetConfig::from_diffusers(json) };
        let config = config.map_err(said)?;
        let model = config.init(&device).map_err(said)?;
        let x = Tensor::zeros([1, config.in_channels, 8, 8], &device);
        let conditioning = match config.context_dim {
            Some(d) if config.use_spatial_transformer => {
                Conditioning::context(Tensor::zeros([1, 3, d], &device))
            }
            _ => Conditioning::none(),
        };
        let drawn = model.forward(x, Tensor::from_floats([7.0], &device), &conditioning).map_err(said)?;
        assert_eq!(drawn.dims(), [1, config.out_channels, 8, 8]);
        Ok(())
    });
}

#[test]
fn first_stages() {
    let names =
        ["vae_diffusers_sd", "vae_compvis_f8", "vae_compvis_uneven", "vq_diffusers_ldm", "vq_f8_n256"];
    try_all(200, &fixtures(names), |name, json| {
        let device = Device::default();
        let config = match (name.starts_with("vq"), name.contains("diffusers")) {
            (false, true) => {
                let theirs: DiffusersAutoencoderKl = serde_path_to_error::deserialize(json).map_err(said)?;
                FirstStageConfig::Kl(AutoencoderKlConfig::try_from(&theirs).map_err(said)?)
            }
            (true, true) => {
                let theirs: DiffusersVqModel = serde_path_to_error::deserialize(json).map_err(said)?;
                FirstStageConfig::Vq(VqModelConfig::try_from(&theirs).map_err(said)?)
            }
            (false, false) => FirstStageConfig::Kl(serde_path_to_error::deserialize(json).map_err(said)?),
            (true, false) => FirstStageConfig::Vq(serde_path_to_error::deserialize(json).map_err(said)?),
        };
        let stage = config.init(&device).map_err(said)?;
        let x = Tensor::zeros([1, stage.in_channels(), 32, 16], &device);
        let latents = stage.encode(x).map_err(said)?.mode();
        let [_, _, h, w] = stage.decode(latents).map_err(said)?.dims();
        assert_eq!([h, w], [32, 16]);
        Ok(())
    });
}

#[test]
fn clip() {
    try_all(200, &fixtures(["clip_sd1", "clip_sd2", "clip_vision"]), |name, json| {
        let (device, text) = (Device::default(), json.to_string());
        if *name == "clip_vision" {
            let config = ClipVisionConfig::from_json(&text).map_err(said)?;
            let side = config.image_size;
            let pixels = Tensor::zeros([1, 3, side, side], &device);
            let output = config.init(&device).map_err(said)?.forward(pixels).map_err(said)?;
            assert_eq!(output.image_embeds.dims(), [1, config.projection_dim]);
            return Ok(());
        }
        let config = ClipTextConfig::from_json(&text).map_err(said)?;
        let ids = Tensor::<2, Int>::zeros([1, config.max_position_embeddings.min(5)], &device);
        let output = config.init(&device).map_err(said)?.forward(ids).map_err(said)?;
        assert_eq!(output.pooler_output.dims(), [1, config.hidden_size]);
        Ok(())
    });
}

/// Also what the samplers of other classes make of a config.
#[test]
fn schedulers() {
    let config = json!({
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000,
        "trained_betas": null, "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1,
        "set_alpha_to_one": false, "skip_prk_steps": true, "clip_sample": false, "clip_sample_range": 1.0,
        "thresholding": false, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0, "solver_order": 2,
        "use_karras_sigmas": false, "final_sigmas_type": "zero", "lower_order_final": true,
        "rescale_betas_zero_snr": false, "original_inference_steps": 50, "algorithm_type": "dpmsolver++",
    });
    let configs: Vec<_> = SamplerKind::all().map(|kind| (kind, config.clone())).collect();
    try_all(1_000, &configs, |kind, json| {
        let config = SchedulerConfig::from_json(&json.to_string()).map_err(said)?;
        let scheduler = Scheduler::from_config(*kind, &config).map_err(said)?;
        let mut sampler = scheduler.sampler::<4>(SamplerOptions::steps(6)).map_err(said)?;
        let (mut x, mut noise) = (Tensor::ones([1, 1, 1, 2], &Device::default()), TorchRng::new(1));
        while sampler.timestep().is_some() {
            let output = sampler.scale_model_input(x.clone()) * 0.5;
            x = sampler.step(output, x, &mut noise).map_err(said)?;
        }
        Ok(())
    });
}

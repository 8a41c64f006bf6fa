//! Directories of diffusers' latent diffusion pipelines, run as diffusers runs them.

use burn::tensor::{Device, Tensor};
use ldm::latent_diffusion::Sampled;
use ldm::{LatentDiffusion, LoadOptions};
use ldm_test_support::{Fixture, assert_close};
use serde_json::Value;

#[path = "../common/mod.rs"]
mod common;

use crate::runs::low;

fn compare(name: &str, draw: impl Fn(&LatentDiffusion, &Value) -> Sampled) {
    let fixture = Fixture::open(&format!("ldm_pipeline_{name}"));
    let folder = common::directory(&fixture);
    let model = LatentDiffusion::load(folder.path(), &LoadOptions::default()).unwrap();
    for (i, case) in fixture.json("cases").as_array().unwrap().iter().enumerate() {
        let pictures: Tensor<4> = (draw(&model, case).pictures / 2.0 + 0.5).clamp(0.0, 1.0);
        let expected = fixture.tensor::<4>(&format!("{i}.pictures"), &Device::default());
        assert_close(&format!("{name} {case}"), &pictures, &expected, 1e-3);
    }
}

fn eta(case: &Value) -> f64 {
    case.get("eta").map_or(0.0, |eta| eta.as_f64().unwrap())
}

#[test]
fn text_to_image() {
    compare("text", |model, case| {
        let prompts: Vec<String> = serde_json::from_value(case["prompt"].clone()).unwrap();
        let run = model.texts(&prompts).unwrap().steps(20).seed(3).eta(eta(case));
        run.guidance(case["guidance_scale"].as_f64().unwrap()).run().unwrap()
    });
}

#[test]
fn super_resolution() {
    compare("upscale", |model, case| {
        let low = low([1, 3, 8, 8], &Device::default());
        model.upscale(low).unwrap().steps(20).seed(3).eta(eta(case)).run().unwrap()
    });
}

#[test]
fn unconditional() {
    compare("unconditional", |model, case| {
        let b = case["batch_size"].as_u64().unwrap() as usize;
        model.unconditional(b).unwrap().steps(20).seed(3).eta(eta(case)).run().unwrap()
    });
}

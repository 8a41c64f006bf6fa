//! Directories of diffusers' latent diffusion pipelines, run as diffusers runs them; and once more as we write them.

use burn::tensor::{DType, Device, Tensor};
use ldm::latent_diffusion::Sampled;
use ldm::{LatentDiffusion, LoadOptions};
use ldm_test_support::{Fixture, assert_close};
use serde_json::Value;

#[path = "../common/mod.rs"]
mod common;

use crate::latent::narrow;
use crate::models::published;
use crate::runs::low;

/// The model as it is written, and read back.
fn rewritten(model: &LatentDiffusion, class: &str) -> LatentDiffusion {
    let folder = tempfile::tempdir().unwrap();
    model.save_directory(folder.path(), DType::F32).unwrap();
    let read = |path: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.path().join(path)).unwrap()).unwrap()
    };
    assert_eq!(read("model_index.json")["_class_name"], class);
    // A word of ours, which diffusers refuses.
    assert_ne!(read("scheduler/scheduler_config.json")["timestep_spacing"], "compvis");
    LatentDiffusion::load(folder.path(), &LoadOptions::default()).unwrap()
}

fn compare(name: &str, class: &str, draw: impl Fn(&LatentDiffusion, &Value) -> Sampled) {
    let fixture = Fixture::open(&format!("ldm_pipeline_{name}"));
    let folder = common::directory(&fixture);
    let model = LatentDiffusion::load(folder.path(), &LoadOptions::default()).unwrap();
    for model in [&rewritten(&model, class), &model] {
        for (i, case) in fixture.json("cases").as_array().unwrap().iter().enumerate() {
            let pictures: Tensor<4> = (draw(model, case).pictures / 2.0 + 0.5).clamp(0.0, 1.0);
            let expected = fixture.tensor::<4>(&format!("{i}.pictures"), &Device::default());
            assert_close(&format!("{name} {case}"), &pictures, &expected, 1e-3);
        }
    }
}

fn eta(case: &Value) -> f64 {
    case.get("eta").map_or(0.0, |eta| eta.as_f64().unwrap())
}

#[test]
fn text_to_image() {
    compare("text", "LDMTextToImagePipeline", |model, case| {
        let prompts: Vec<String> = serde_json::from_value(case["prompt"].clone()).unwrap();
        let run = model.texts(&prompts).unwrap().steps(20).seed(3).eta(eta(case));
        run.guidance(case["guidance_scale"].as_f64().unwrap()).run().unwrap()
    });
}

#[test]
fn super_resolution() {
    compare("upscale", "LDMSuperResolutionPipeline", |model, case| {
        let low = low([1, 3, 8, 8], &Device::default());
        model.upscale(low).unwrap().steps(20).seed(3).eta(eta(case)).run().unwrap()
    });
}

#[test]
fn unconditional() {
    compare("unconditional", "LDMPipeline", |model, case| {
        let b = case["batch_size"].as_u64().unwrap() as usize;
        model.unconditional(b).unwrap().steps(20).seed(3).eta(eta(case)).run().unwrap()
    });
}

/// The paper's own model, out of its YAML and checkpoint, becomes diffusers' pipeline and draws the same.
#[test]
fn the_papers_super_resolution_becomes_a_pipeline() {
    let model = published("bsr_sr");
    let again = rewritten(&model, "LDMSuperResolutionPipeline");
    let [before, after] = [&model, &again].map(|model| {
        let low = low([1, 3, 8, 8], &Device::default());
        model.upscale(low).unwrap().steps(20).seed(3).eta(1.0).run().unwrap().pictures
    });
    assert_close("bsr_sr", &after, &before, 1e-5);
}

/// What no pipeline of diffusers' has is named, and nothing is written of it.
#[test]
fn what_has_no_pipeline_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("model");
    let mut scaled = narrow(ldm::presets::ldm("bsr_sr").unwrap().config());
    scaled.scale_factor = 0.5;
    let config = |name: &str| narrow(ldm::presets::ldm(name).unwrap().config());
    let cases = [
        (config("cin256"), "(`crossattn`) that ClassEmbedder"),
        (config("inpainting_big"), "the first stage"),
        (config("semantic_synthesis256"), "(`concat`) that SpatialRescaler"),
        (scaled, "scaled latents"),
    ];
    for (config, what) in cases {
        let model = LatentDiffusion::new(&config, &Device::default()).unwrap();
        let error = model.save_directory(&directory, DType::F32).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ldm::Error::Unsupported { .. }), "{text}");
        assert!(text.contains(what) && text.contains("LDMSuperResolutionPipeline"), "{text}");
        assert!(!directory.exists(), "{what}");
    }
}

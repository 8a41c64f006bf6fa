//! Whole sampling runs of 20 steps, DDIM and PLMS.

use burn::tensor::{Device, Int, Tensor};
use ldm::LatentDiffusion;
use ldm::latent_diffusion::{Inpainting, Sampling};
use ldm::presets::{Task, ldm};
use ldm::scheduler::SamplerKind;
use ldm_conditioning::{BoundingBox, Layout, LayoutObject, LayoutTokenizer};
use ldm_nn::Conditioning;
use ldm_test_support::{Fixture, assert_close, seeded_input};
use serde_json::Value;

use crate::models::side;

const RUN: f64 = 1e-3;

pub fn layouts() -> (Vec<Layout>, LayoutTokenizer) {
    let objects: Vec<(usize, [f64; 4])> =
        serde_json::from_value(Fixture::open("task_runs").json("layout")).unwrap();
    let object =
        |(class, [x, y, w, h]): (usize, [f64; 4])| LayoutObject::new(class, BoundingBox::new(x, y, w, h));
    (vec![Layout::new(objects.into_iter().map(object).collect::<Vec<_>>())], LayoutTokenizer::new(601))
}

/// One channel a class.
pub fn semantic_map(side: usize, device: &Device) -> Tensor<4> {
    let classes = ((seeded_input::<3>("map", [1, side, side], device) + 2.0) * 45.0).int().clamp(0, 181);
    let all = Tensor::<1, Int>::arange(0..182, device).reshape([1, 182, 1, 1]);
    let classes = classes.unsqueeze_dim::<4>(1).expand([1, 182, side, side]);
    classes.equal(all.expand([1, 182, side, side])).float()
}

pub fn low(shape: [usize; 4], device: &Device) -> Tensor<4> {
    seeded_input::<4>("low", shape, device).clamp(-1.0, 1.0)
}

/// The run of a published model's own task.
fn sampling<'a>(name: &str, model: &'a LatentDiffusion, b: usize) -> Sampling<'a> {
    let (device, n) = (Device::default(), side(name));
    let prompts: Vec<String> = serde_json::from_value(Fixture::open("task_runs").json("prompts")).unwrap();
    let sampling = match ldm(name).unwrap().task {
        Task::Unconditional => model.unconditional(b),
        Task::ClassConditional => model.classes(&[207, 3][..b], (name == "cin256-v2").then_some(1000)),
        Task::TextToImage => model.texts(&prompts[..b]),
        Task::LayoutToImage => {
            let (layouts, tokenizer) = layouts();
            model.layouts(&layouts, &tokenizer)
        }
        Task::SemanticSynthesis => model.semantic(semantic_map(4 * n, &device)),
        Task::SuperResolution => model.upscale(low([b, 3, n, n], &device)),
        Task::Inpainting => Ok(inpainting(model).sampling),
        Task::RetrievalAugmented => {
            let c = seeded_input::<3>("embeddings", [b, 3, 32], &device);
            let norm = c.clone().square().sum_dim(2).sqrt();
            model.embeddings(c / norm)
        }
    };
    sampling.unwrap().latent_size(n, n)
}

fn inpainting(model: &LatentDiffusion) -> Inpainting<'_> {
    let device = Device::default();
    let picture = seeded_input::<4>("picture", [1, 3, 32, 32], &device).clamp(-1.0, 1.0);
    let mask = seeded_input::<4>("mask", [1, 1, 32, 32], &device).greater_elem(0.0).float();
    model.inpaint(picture, mask).unwrap()
}

pub fn conditioning(name: &str, model: &LatentDiffusion) -> Conditioning {
    sampling(name, model, 1).conditioning().clone()
}

/// The keywords of the reference's sampler.
fn set<'a>(mut run: Sampling<'a>, case: &Value, channels: usize) -> Sampling<'a> {
    let device = Device::default();
    run = run.steps(20).seed(5);
    for (key, value) in case.as_object().unwrap() {
        let number = || value.as_f64().unwrap();
        run = match key.as_str() {
            "model" => run,
            "sampler" => run.sampler(SamplerKind::Pndm),
            "seed" => run.seed(number() as u64),
            "eta" => run.eta(number()),
            "temperature" => run.temperature(number()),
            "noise_dropout" => run.noise_dropout(number()),
            "quantize_x0" => run.quantize_denoised(true),
            "scale" => run.guidance(number()),
            "mask" => {
                let keep = Tensor::<4>::ones([1, 1, 8, 8], &device);
                let hole = Tensor::<4>::zeros([1, 1, 4, 4], &device);
                let mask = keep.slice_assign([0..1, 0..1, 2..6, 2..6], hole);
                run.keep(seeded_input("x0", [1, channels, 8, 8], &device), mask)
            }
            other => panic!("{other}"),
        };
    }
    run
}

/// Runs all cases of a model; gives their number.
pub fn check(name: &str, model: &LatentDiffusion) -> usize {
    let (device, fixture) = (Device::default(), Fixture::open("task_runs"));
    let mut count = 0;
    for (i, case) in fixture.json("cases").as_array().unwrap().iter().enumerate() {
        if case["model"] != name {
            continue;
        }
        count += 1;
        let b = if name == "cin256" { 2 } else { 1 };
        let run = set(sampling(name, model, b), case, model.channels());
        let drawn = if name == "inpainting_big" {
            let mut inpainting = inpainting(model);
            inpainting.sampling = run;
            inpainting.run().unwrap()
        } else {
            run.run().unwrap()
        };
        let latents = fixture.tensor::<4>(&format!("{i}.latents"), &device);
        assert_close(&format!("{case} latents"), &drawn.latents, &latents, RUN);
        if fixture.names().contains(&format!("{i}.pictures")) {
            let mut pictures = drawn.pictures.clone();
            if name == "inpainting_big" {
                pictures = (pictures + 1.0) / 2.0;
            }
            let expected = fixture.tensor::<4>(&format!("{i}.pictures"), &device);
            assert_close(&format!("{case} pictures"), &pictures, &expected, RUN);
        }
    }
    count
}

//! Larger than the training size: convolutionally, and in overlapping patches.

use burn::tensor::Device;
use ldm::latent_diffusion::{Patches, Sampling};
use ldm::scheduler::SamplerKind;
use ldm_scheduler::TorchRng;
use ldm_test_support::{Fixture, assert_close, seeded_input};

use crate::models::published;
use crate::runs::{layouts, low, semantic_map};

const RUN: f64 = 1e-3;

/// The latents of PLMS, and what the fixture has of them.
fn plms(name: &str, run: Sampling<'_>) {
    let expected = Fixture::open("task_larger").tensor::<4>(&format!("{name}.plms"), &Device::default());
    let latents = run.steps(20).seed(5).sampler(SamplerKind::Pndm).run().unwrap().latents;
    assert_close(&format!("{name}, PLMS"), &latents, &expected, RUN);
}

fn patches(tie_braker: bool) -> Patches {
    Patches { ks: [8, 8], stride: [4, 4], tie_braker, ..Patches::default() }
}

#[test]
fn a_larger_map_gives_a_larger_picture() {
    let (device, fixture) = (Device::default(), Fixture::open("task_larger"));
    let model = published("semantic_synthesis512");
    let run = model.semantic(semantic_map(48, &device)).unwrap();
    plms("convolutional", run.clone());
    let latents = run.steps(20).seed(5).run().unwrap().latents;
    assert_close("convolutional", &latents, &fixture.tensor::<4>("convolutional.latents", &device), RUN);
}

#[test]
fn super_resolution_in_patches() {
    let (device, fixture) = (Device::default(), Fixture::open("task_larger"));
    let mut model = published("bsr_sr");
    model.patches = Some(patches(true));
    let low = low([1, 3, 16, 12], &device);
    let run = model.upscale(low).unwrap();
    plms("patches", run.clone());
    let drawn = run.steps(20).eta(1.0).seed(5).run().unwrap();
    assert_close("latents", &drawn.latents, &fixture.tensor::<4>("patches.latents", &device), RUN);
    assert_close("pictures", &drawn.pictures, &fixture.tensor::<4>("patches.pictures", &device), RUN);

    let picture = seeded_input::<4>("picture", [1, 3, 16, 12], &device).clamp(-1.0, 1.0);
    let z = model.encode(picture, &mut TorchRng::new(0)).unwrap();
    assert_close("encoded", &z, &fixture.tensor::<4>("patches.encoded", &device), 1e-4);
}

#[test]
fn each_patch_of_a_layout_knows_its_place() {
    let (device, fixture) = (Device::default(), Fixture::open("task_larger"));
    let mut model = published("layout2img-openimages256");
    let (layouts, tokenizer) = layouts();
    let error = model.layouts_in_patches(&layouts, &tokenizer, [12, 16]).err().unwrap().to_string();
    assert!(error.contains("patches"), "{error}");
    model.patches = Some(patches(false));
    let run = model.layouts_in_patches(&layouts, &tokenizer, [12, 16]).unwrap();
    plms("boxes", run.clone());
    let latents = run.steps(20).seed(5).run().unwrap().latents;
    assert_close("boxes", &latents, &fixture.tensor::<4>("boxes.latents", &device), RUN);
}

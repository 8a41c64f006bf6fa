//! A run's conditions, prepared once, against the U-Net called with them at every step: alike in every bit.

use burn::tensor::{DType, Device, Tensor};
use ldm::latent_diffusion::Sampling;
use ldm::pipeline::{Guidance, Silent, denoise};
use ldm::scheduler::{SamplerOptions, Scheduler, TorchRng};
use ldm::{Error, LatentDiffusion};
use ldm_conditioning::Condition;
use ldm_nn::Conditioning;
use ldm_test_support::{assert_close, seeded_input};

use crate::models::published;
use crate::runs::low;

const STEPS: usize = 5;

/// The latents of a run whose every step hands the conditions to the U-Net.
fn step_by_step(
    model: &LatentDiffusion,
    start: Tensor<4>,
    conditioning: &Conditioning,
    away_from: Option<(&Conditioning, f64)>,
) -> Tensor<4> {
    let scheduler = Scheduler::from_config(model.scheduler.kind().unwrap(), &model.scheduler).unwrap();
    let sampler = scheduler.sampler(SamplerOptions::steps(STEPS)).unwrap();
    let predict = |x: Tensor<4>, t: f32| -> Result<Tensor<4>, Error> {
        let t = Tensor::<1>::full([1], t, (&x.device(), DType::F32));
        let Some((unconditional, scale)) = away_from else {
            return Ok(model.unet.forward(x, t, conditioning)?);
        };
        let b = x.dims()[0];
        let both = Conditioning::cat(&[unconditional.clone(), conditioning.clone()]).unwrap();
        let e = model.unet.forward(Tensor::cat(vec![x.clone(), x], 0), t, &both)?;
        let [unconditional, conditional] = [0, b].map(|at| e.clone().narrow(0, at, b));
        Ok(Guidance::new(scale).apply(unconditional, conditional))
    };
    denoise(sampler, start, &mut TorchRng::new(0), None, &mut Silent, predict).unwrap()
}

/// A run, plain and asked to be replayed.
fn check(name: &str, run: Sampling<'_>, start: Tensor<4>, expected: &Tensor<4>) {
    let run = run.start(start).steps(STEPS);
    let latents = run.clone().run().unwrap().latents;
    assert_eq!(latents.into_data(), expected.to_data(), "{name}");
    // On a GPU kernels may differ with the layout of their inputs.
    let tolerance = if Device::default() == Device::flex() { 0.0 } else { 1e-4 };
    let latents = run.replay(true).run().unwrap().latents;
    assert_close(&format!("{name}, replayed"), &latents, expected, tolerance);
}

#[test]
fn a_guided_run_of_classes() {
    let model = published("cin256-v2");
    let condition = |classes: [i64; 2]| model.condition(&Condition::Classes(classes.to_vec())).unwrap();
    let (given, null) = (condition([207, 3]), condition([1000, 1000]));
    let start = seeded_input("start", [2, model.channels(), 8, 8], &Device::default());
    let expected = step_by_step(&model, start.clone(), &given, Some((&null, 3.0)));
    let run = model.classes(&[207, 3], Some(1000)).unwrap().latent_size(8, 8).guidance(3.0);
    check("cin256-v2", run, start, &expected);
}

#[test]
fn a_run_with_channels_beside_the_latent() {
    let (model, device) = (published("bsr_sr"), Device::default());
    let run = model.upscale(low([1, 3, 8, 8], &device)).unwrap();
    let given = run.conditioning().clone();
    let start = seeded_input("start", [1, model.channels(), 8, 8], &device);
    let expected = step_by_step(&model, start.clone(), &given, None);
    check("bsr_sr", run, start, &expected);
}

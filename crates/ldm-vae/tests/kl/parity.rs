use burn::tensor::{DType, Device};
use ldm_test_support::assert_close;
use ldm_vae::LatentScaling;

use crate::Case;

fn compare(case: Case, dtype: DType, tolerance: f64) {
    let device = Device::default();
    let model = case.model(dtype, &device);
    assert_eq!(model.dtype(), dtype);
    let posterior = model.encode(case.picture(&device)).unwrap();
    let decoded = model.decode(case.latent(&model, &device)).unwrap();
    let outputs = [("mean", posterior.mean()), ("logvar", posterior.logvar()), ("decoded", decoded)];
    for (key, output) in outputs {
        assert_eq!(output.dtype(), dtype);
        let expected = case.fixture.tensor::<4>(key, &device);
        assert_close(
            &format!("{} {key} {dtype:?}", case.name),
            &output.cast(DType::F32),
            &expected,
            tolerance,
        );
    }
}

#[test]
fn the_papers_ladder_is_compvis() {
    for name in ["f4", "f8", "f16", "f32"] {
        compare(Case::compvis(name), DType::F32, 1e-4);
    }
}

#[test]
fn what_compvis_configs_allow_is_compvis() {
    for name in ["uneven", "one_level", "no_attention"] {
        compare(Case::compvis(name), DType::F32, 1e-4);
    }
}

#[test]
fn stable_diffusions_kind_is_diffusers() {
    for name in ["sd", "attention", "no_quant", "default"] {
        compare(Case::diffusers(name), DType::F32, 1e-4);
    }
}

#[test]
fn half_precision_stays_near() {
    if !Device::default().supports_dtype(DType::F16) {
        println!("this device has no f16");
        return;
    }
    for case in [Case::diffusers("sd"), Case::compvis("f16")] {
        compare(case, DType::F16, 1e-2);
    }
}

#[test]
fn scaling_goes_both_ways() {
    let device = Device::default();
    let z = ldm_test_support::seeded_input::<4>("scaling", [2, 3, 4, 5], &device);
    let expect = |scaling: &LatentScaling, mean: [f32; 3], factor: [f32; 3]| {
        let scaled = scaling.scale(z.clone());
        for c in 0..3 {
            let channel = |x: &burn::tensor::Tensor<4>| x.clone().narrow(1, c, 1);
            let expected = (channel(&z) - mean[c]) * factor[c];
            assert_close("scaled", &channel(&scaled), &expected, 1e-6);
        }
        assert_close("and back", &scaling.unscale(scaled), &z, 1e-6);
    };
    let plain = LatentScaling::factor(0.18215);
    expect(&plain, [0.0; 3], [0.18215; 3]);
    let shifted = LatentScaling { shift_factor: Some(0.5), ..plain.clone() };
    expect(&shifted, [0.5; 3], [0.18215; 3]);
    let normalised = LatentScaling {
        latents_mean: Some(vec![0.5, -1.0, 2.0]),
        latents_std: Some(vec![2.0, 4.0, 0.5]),
        ..LatentScaling::factor(0.5)
    };
    expect(&normalised, [0.5, -1.0, 2.0], [0.25, 0.125, 1.0]);
}

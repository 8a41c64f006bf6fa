//! One forward pass of each kind of U-Net against the reference's, with weights under the reference's names.
#![allow(clippy::expect_used)] // Helpers of tests are tests.

mod support;

use burn::tensor::{DType, Tensor};
use ldm_test_support::{Fixture, assert_close};
use ldm_unet::sinusoidal_embedding;
use support::{CASES, Case};

fn parity(kind: &str) {
    let (_, names) = CASES.iter().find(|(k, _)| *k == kind).expect("a kind of fixture");
    for name in *names {
        let case = Case::open(kind, name);
        let sample = case.run(&case.model(DType::F32), DType::F32);
        assert_close(&case.name, &sample, &case.expected(), 1e-4);
    }
}

#[test]
fn unet_2d_condition_model() {
    parity("condition");
}

#[test]
fn unet_2d_model() {
    parity("unconditional");
}

#[test]
fn compvis_unet_model() {
    parity("compvis");
}

#[test]
fn half_precision() {
    for (kind, name) in
        [("condition", "sd1"), ("condition", "sd2"), ("condition", "sdxl"), ("compvis", "blocks")]
    {
        let case = Case::open(kind, name);
        if !case.device.supports_dtype(DType::F16) {
            println!("no f16 on {:?}", case.device);
            return;
        }
        let sample = case.run(&case.model(DType::F16), DType::F32);
        assert_eq!(sample.dtype(), DType::F32, "the output has the input's type");
        assert_close(&case.name, &sample, &case.expected(), 1e-2);
    }
}

#[test]
fn sinusoids() {
    let fixture = Fixture::open("unet_timestep");
    let device = Default::default();
    let t: Tensor<1> = fixture.tensor("timesteps", &device);
    for (key, dim, cos_first, shift) in [("cos_first", 320, true, 0.0), ("sin_first", 33, false, 1.0)] {
        let embedding = sinusoidal_embedding(t.clone(), dim, cos_first, shift);
        // A bit of a frequency is 6e-5 of an angle near 1000.
        assert_close(key, &embedding, &fixture.tensor(key, &device), 1e-4);
    }
}

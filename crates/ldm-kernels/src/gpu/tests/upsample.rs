//! Convolutions of enlarged pictures by their pixels' taps, against burn's of the enlarged picture.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Device, Tensor};
use ldm_test_support::{assert_close, seeded_input};

use super::{TAKEN, device, exact, laid, types, work};
use crate::conv2d::{Conv2dOptions, laid_out, plain};
use crate::gpu;
use crate::gpu::bridge::{client, primitive};
use crate::gpu::conv2d::Work;
use crate::upsample::merged::merged;
use crate::upsample::{self, MergedTaps, upsample_conv2d};

/// Zeros round the enlarged picture.
const ALL_ROUND: Conv2dOptions = Conv2dOptions { stride: [1, 1], padding: [[1, 1]; 2] };

/// Picture, weight and bias, the picture with its channels together.
fn given(x: [usize; 4], outputs: usize, dtype: DType, device: &Device) -> (Tensor<4>, Tensor<4>, Tensor<1>) {
    let input = |name, shape| seeded_input::<4>(name, shape, device).cast(dtype);
    let (picture, weight) = (input("x", x), input("weight", [outputs, x[1], 3, 3]));
    let last = laid(&picture.permute([0, 2, 3, 1])).permute([0, 3, 1, 2]);
    (last, weight, seeded_input::<1>("bias", [outputs], device).cast(dtype))
}

/// The enlarged picture's convolution in f32 on the CPU.
fn twin(x: &Tensor<4>, weight: &Tensor<4>, bias: Option<&Tensor<1>>) -> Tensor<4> {
    plain(upsample::plain(exact(x)), exact(weight), bias.map(exact), ALL_ROUND)
}

/// By every tile that divides the channels, whole and in splits, with a bias and without: pictures whose rows blocks divide, and others;
/// tiles beyond the end; channels that vectors don't divide.
#[test]
fn pixels_taps_equal_the_enlarged_picture() {
    let Some(device) = device() else { return };
    let cases = [([2, 40, 3, 5], 128), ([1, 72, 2, 16], 320), ([3, 64, 1, 32], 128), ([1, 18, 4, 3], 64)];
    for ((dtype, tolerance), (dims, outputs)) in types(&device).flat_map(|t| cases.map(|case| (t, case))) {
        let (x, weight, bias) = given(dims, outputs, dtype, &device);
        let taps = laid_out(merged(&weight));
        let client = client(&primitive(&x).expect("on the device"));
        let work = work(&client, dtype);
        let mut there = 0;
        for form in 0..work.forms.len() {
            let divides = |columns: usize| outputs.is_multiple_of(columns);
            if !work.forms[form].is_some_and(|form| divides(form.columns())) {
                continue;
            }
            for (splits, bias) in [(1, Some(&bias)), (3, Some(&bias)), (1, None)] {
                let work = Work { form: Some(form), splits: Some(splits), ..work };
                let y = gpu::conv2d_pixels(&x, &taps, bias, Some(work)).expect(TAKEN);
                assert_eq!(y.dtype(), dtype);
                let name = format!("{dims:?} to {outputs}, tile {form}, {splits} splits, {dtype:?}");
                assert_close(&name, &y, &twin(&x, &weight, bias), tolerance);
            }
            there += 1;
        }
        assert!(there > 0, "{outputs} {dtype:?}");
    }
}

/// Taps are made once, and anew of other weights, also of those at the same layer of a copy.
#[test]
fn other_weights_have_other_taps() {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in types(&device) {
        let (x, weight, bias) = given([1, 16, 2, 16], 64, dtype, &device);
        let kept = MergedTaps::default();
        for weight in [weight.clone(), weight.clone() * 2.0, weight.clone() - 0.5, weight] {
            for kept in [kept.clone(), kept.clone()] {
                let y = upsample_conv2d(x.clone(), weight.clone(), Some(bias.clone()), &kept);
                let expected = twin(&x, &weight, Some(&bias));
                // burn's convolution, where it is that one, may take TF32.
                assert_close(&format!("{dtype:?}"), &y, &expected, tolerance.max(1e-3));
            }
        }
    }
}

/// Where steps are deep, and there only, the picture is convolved as it is.
#[test]
fn pixels_are_for_deep_steps() {
    let Some(device) = device() else { return };
    for (dtype, _) in types(&device) {
        let (x, weight, _) = given([1, 16, 2, 16], 64, dtype, &device);
        let client = client(&primitive(&x).expect("on the device"));
        let work = Work::new(&client, dtype_to_storage_type(dtype), false);
        let deep = work.is_some_and(|work| work.forms.iter().flatten().any(|form| form.deep.is_some()));
        assert_eq!(gpu::merges(&x, &weight), deep, "{dtype:?}");
        // Channels that no tile divides, another kernel, another type.
        let [one, _] = [1, 2].map(|side| weight.clone().narrow(2, 0, side).narrow(3, 0, side));
        assert!(!gpu::merges(&x, &one));
        assert!(!gpu::merges(&x, &weight.clone().narrow(0, 0, 60)));
        let other = if dtype == DType::F32 { DType::F16 } else { DType::F32 };
        assert!(!gpu::merges(&x, &weight.cast(other)));
    }
}

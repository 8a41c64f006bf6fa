//! Linear layers against the plain twin, with matrix units emulated where there are none.

use burn::tensor::{DType, Device, Tensor};
use ldm_test_support::{assert_close, seeded_input};

use super::{TAKEN, device, exact, laid, types};
use crate::gpu;
use crate::gpu::bridge::{client, primitive};
use crate::gpu::conv2d::Work;
use crate::linear::{linear_layers, plain};

/// Rows, inputs and outputs: one row, odd ones, more than one tile each way, a depth of more than one step.
const CASES: [([usize; 2], usize, usize); 5] =
    [([1, 1], 32, 8), ([2, 5], 70, 9), ([1, 77], 96, 33), ([3, 50], 40, 136), ([1, 9], 8, 200)];

fn work(x: &Tensor<3>) -> Work {
    super::work(&client(&primitive(x).expect("on the device")), x.dtype())
}

/// Input, weight and bias.
fn tensors(
    ([b, n], inputs, outputs): ([usize; 2], usize, usize),
    dtype: DType,
    device: &Device,
) -> (Tensor<3>, Tensor<2>, Tensor<1>) {
    let x = seeded_input::<3>("x", [b, n, inputs], device).cast(dtype);
    let weight = seeded_input::<2>("weight", [outputs, inputs], device).cast(dtype);
    (x, weight, seeded_input::<1>("bias", [outputs], device).cast(dtype))
}

#[test]
fn linear_equals_its_twin() {
    let Some(device) = device() else { return };
    for (case, (dtype, tolerance)) in
        CASES.into_iter().flat_map(|case| types(&device).map(move |dtype| (case, dtype)))
    {
        let (x, weight, bias) = tensors(case, dtype, &device);
        for (splits, with) in [(None, true), (Some(2), true), (None, false)] {
            let work = Work { splits, ..work(&x) };
            let [input, weights] = [primitive(&x).expect(TAKEN), primitive(&weight).expect(TAKEN)];
            let y: Tensor<3> =
                gpu::project(input, weights, with.then_some(&bias), None, false, work).expect(TAKEN);
            assert_eq!(y.dtype(), dtype);
            let expected = plain(exact(&x), exact(&weight), with.then(|| exact(&bias)));
            assert_close(&format!("{case:?} {dtype:?} {splits:?} {with}"), &y, &expected, tolerance);
        }
    }
}

/// A residual connection, and results in f32.
#[test]
fn addends_are_added_and_results_exact_where_asked() {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in types(&device) {
        let (x, weight, bias) = tensors(CASES[3], dtype, &device);
        let addend = seeded_input::<3>("addend", [3, 50, 136], &device).cast(dtype);
        let twin = plain(exact(&x), exact(&weight), Some(exact(&bias)));
        for splits in [1, 2] {
            let work = Work { splits: Some(splits), ..work(&x) };
            let project = |addend: Option<&Tensor<3>>, exact: bool| -> Tensor<3> {
                let [input, weights] = [primitive(&x).expect(TAKEN), primitive(&weight).expect(TAKEN)];
                let bias = if exact { None } else { Some(&bias) };
                gpu::project(input, weights, bias, addend, exact, work).expect(TAKEN)
            };
            let name = format!("{dtype:?}, {splits} splits");
            let y = project(Some(&addend), false);
            assert_close(&name, &y, &(twin.clone() + exact(&addend)), tolerance);
            let y = project(None, true);
            assert_eq!(y.dtype(), DType::F32);
            // Nothing is rounded on the way out.
            assert_close(&format!("{name}, exact"), &y, &plain(exact(&x), exact(&weight), None), 1e-5);
        }
    }
}

/// Layers that are one product, of weights laid together, and those that are not; tiles across their borders.
#[test]
fn layers_laid_together_equal_their_twins() {
    let Some(device) = device() else { return };
    // Widths whose bytes a device binds anywhere, rows likewise or not.
    for ((rows, inputs, outputs), (dtype, tolerance)) in [(64, 128, 192), (32, 256, 320), (3, 128, 64)]
        .into_iter()
        .flat_map(|case| types(&device).map(move |dtype| (case, dtype)))
    {
        let x = seeded_input::<3>("x", [1, rows, inputs], &device).cast(dtype);
        let weights =
            ["q", "k", "v"].map(|name| seeded_input::<2>(name, [outputs, inputs], &device).cast(dtype));
        let expected = weights.each_ref().map(|weight| plain(exact(&x), exact(weight), None));
        let primitives =
            |weights: &[Tensor<2>; 3]| weights.each_ref().map(|x| primitive(x).expect(TAKEN)).to_vec();
        let laid = <gpu::bridge::Gpu as gpu::lists::Lists>::lay_together(primitives(&weights));
        let laid: Vec<_> = laid.into_iter().map(|x| gpu::bridge::tensor::<2>(x).expect(TAKEN)).collect();
        let laid: [Tensor<2>; 3] = laid.try_into().expect("three");
        for (weight, laid) in weights.iter().zip(&laid) {
            assert_eq!(weight.to_data(), laid.to_data(), "{dtype:?}");
        }
        // Fusion shows no memory.
        #[cfg(not(feature = "fusion"))]
        {
            use crate::gpu::lists::together::one;
            assert!(one(&primitives(&weights)).is_none());
            assert_eq!(one(&primitives(&laid)).expect("one matrix").meta.shape()[0], 3 * outputs);
        }
        let work = Work { splits: Some(1), ..work(&x) };
        for (name, weights) in [("apart", &weights), ("together", &laid)] {
            let found = gpu::linear_together(&x, weights, Some(work)).expect(TAKEN);
            for (i, (y, expected)) in found.iter().zip(&expected).enumerate() {
                let name = format!("{name} {i}: {rows} {inputs} {outputs} {dtype:?}");
                assert_close(&name, y, expected, tolerance);
            }
        }
        // One of them is another tensor now.
        let [q, k, v] = laid;
        let k = (k + 1.0).cast(dtype);
        let expected = plain(exact(&x), exact(&k), None);
        let [_, y, _] = gpu::linear_together(&x, &[q, k, v], Some(work)).expect(TAKEN);
        assert_close(&format!("replaced: {dtype:?}"), &y, &expected, tolerance);
    }
}

/// A feed-forward layer's gate in the product's pass, by every tile that the device has room for; of weights that lie
/// otherwise after it.
#[test]
fn gated_layers_equal_their_twins() {
    let Some(device) = device() else { return };
    let cases = [([1, 70], 64, 272), ([2, 9], 40, 48), ([1, 1], 9, 16)];
    for (case, (dtype, tolerance)) in
        cases.into_iter().flat_map(|case| types(&device).map(move |dtype| (case, dtype)))
    {
        let (x, weight, bias) = tensors(case, dtype, &device);
        let work = work(&x);
        for with in [true, false] {
            let bias = with.then_some(&bias);
            let expected = crate::geglu::plain(plain(exact(&x), exact(&weight), bias.map(exact)));
            let turned = laid(&weight.clone().transpose()).transpose();
            let forms = (0..work.forms.len()).filter(|form| work.forms[*form].is_some()).map(Some);
            for (form, weight) in forms.map(|form| (form, &weight)).chain([(None, &turned)]) {
                let y = gpu::linear_geglu(&x, weight, bias, Some(Work { form, ..work })).expect(TAKEN);
                assert_eq!(y.dtype(), dtype);
                assert_close(&format!("{case:?} {dtype:?} {with}, tile {form:?}"), &y, &expected, tolerance);
            }
        }
    }
}

/// Layers of one input at once: more than a launch takes, of as many rows as a unit keeps and of one more, with biases
/// and without.
#[test]
fn layers_of_one_input_equal_their_twins() {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in types(&device) {
        for (rows, depth, biased, taken) in [
            (1, 320, true, true),
            (2, 72, false, true),
            (16, 70, true, true),
            (3, 9, true, true),
            (17, 64, true, false),
        ] {
            let x = seeded_input::<2>("x", [rows, depth], &device).cast(dtype);
            let layers: Vec<_> = (0..19)
                .map(|i| {
                    let outputs = 1 + 7 * i;
                    let name = |part| format!("{part} {i}");
                    let weight = seeded_input::<2>(&name("w"), [outputs, depth], &device).cast(dtype);
                    let bias = || seeded_input::<1>(&name("b"), [outputs], &device).cast(dtype);
                    (weight, biased.then(bias))
                })
                .collect();
            assert_eq!(gpu::takes_linear_layers(&x, &layers), taken);
            if !taken {
                continue;
            }
            let found = linear_layers(x.clone(), layers.clone());
            for (i, (y, (weight, bias))) in found.iter().zip(layers).enumerate() {
                assert_eq!(y.dtype(), dtype);
                let expected = plain(exact(&x), exact(&weight), bias.map(|bias| exact(&bias)));
                assert_close(&format!("{rows} {depth} {dtype:?} {i}"), y, &expected, tolerance);
            }
        }
    }
}

/// A feature map seen as tokens, which are no rows one after the other.
#[test]
fn turned_inputs_are_read() {
    let Some(device) = device() else { return };
    let (x, weight, bias) = tensors(([2, 24], 24, 40), DType::F32, &device);
    let x = x.swap_dims(1, 2);
    let [input, weights] = [primitive(&x).expect(TAKEN), primitive(&weight).expect(TAKEN)];
    let y: Tensor<3> = gpu::project(input, weights, Some(&bias), None, false, work(&x)).expect(TAKEN);
    let expected = plain(exact(&x), exact(&weight), Some(exact(&bias)));
    assert_close("turned", &y, &expected, 1e-5);
}

#[test]
fn gradients_equal_the_twins() {
    let Some(device) = device() else { return };
    for (case, (dtype, tolerance)) in
        CASES.into_iter().flat_map(|case| types(&device).map(move |dtype| (case, dtype)))
    {
        let (x, weight, bias) = tensors(case, dtype, &device);
        let work = work(&x);
        let [b, n, _] = x.dims();
        let loss = seeded_input::<3>("loss", [b, n, case.2], &device).cast(dtype);
        let addend = seeded_input::<3>("addend", [b, n, case.2], &device).cast(dtype);
        let outcome = |x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, loss: Tensor<3>, ours: bool| {
            let addend = if ours { addend.clone() } else { exact(&addend) }.autodiff().require_grad();
            let (x, weight) = (x.autodiff().require_grad(), weight.autodiff().require_grad());
            let bias = bias.autodiff().require_grad();
            let y = match ours {
                true => gpu::autodiff::project(&x, &weight, Some(&bias), Some(&addend), work).expect(TAKEN),
                false => plain(x.clone(), weight.clone(), Some(bias.clone())) + addend.clone(),
            };
            let gradients = (y.clone() * loss.autodiff()).sum().backward();
            let missing = "a gradient";
            (
                x.grad(&gradients).expect(missing),
                weight.grad(&gradients).expect(missing),
                bias.grad(&gradients).expect(missing),
                addend.grad(&gradients).expect(missing),
                y.inner(),
            )
        };
        let (dx2, dw2, db2, da2, y2) = outcome(exact(&x), exact(&weight), exact(&bias), exact(&loss), false);
        let (dx, dw, db, da, y) = outcome(x, weight, bias, loss, true);
        let name = format!("{case:?} {dtype:?}");
        assert_close(&format!("{name}: x"), &dx, &dx2, tolerance);
        assert_close(&format!("{name}: weight"), &dw, &dw2, tolerance);
        assert_close(&format!("{name}: bias"), &db, &db2, tolerance);
        assert_close(&format!("{name}: addend"), &da, &da2, tolerance);
        assert_close(&format!("{name}: output"), &y, &y2, tolerance);
    }
}

use burn::tensor::{DType, Device, Tensor};
use ldm_test_support::{assert_close, seeded_input};

use super::{TAKEN, device, exact, types};
use crate::{attention, gpu};

/// Batch, heads, queries, keys, width of a head.
type Case = [usize; 5];

/// `[b, heads, n, d]`, as a view of `[b, n, heads * d]`.
fn split(name: &str, [b, heads, n, d]: [usize; 4], dtype: DType, device: &Device) -> Tensor<4> {
    let x = seeded_input::<3>(name, [b, n, heads * d], device).cast(dtype);
    x.reshape([b, n, heads, d]).swap_dims(1, 2)
}

fn inputs([b, heads, n, m, d]: Case, dtype: DType, device: &Device) -> [Tensor<4>; 3] {
    let q = split("q", [b, heads, n, d], dtype, device) * 2.0;
    let k = split("k", [b, heads, m, d], dtype, device) * 2.0;
    [q, k, split("v", [b, heads, m, d], dtype, device)]
}

fn twin(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    attention::plain(q, k, v, None)
}

/// The output and the gradients of queries, keys and values, under a loss that weighs every output differently.
fn gradients(
    f: &dyn Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    inputs: [Tensor<4>; 3],
    loss: Tensor<4>,
) -> [Tensor<4>; 4] {
    let inputs = inputs.map(|x| x.autodiff().require_grad());
    let [q, k, v] = inputs.clone();
    let y = f(q, k, v);
    let gradients = (y.clone() * loss.autodiff()).sum().backward();
    let [dq, dk, dv] = inputs.map(|x| x.grad(&gradients).expect("a gradient"));
    [y.inner(), dq, dk, dv]
}

fn ours(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    gpu::autodiff::attention(&q, &k, &v, true).expect(TAKEN)
}

fn compare(name: &str, inputs: [Tensor<4>; 3], tolerance: f64) {
    let (device, dtype) = (inputs[0].device(), inputs[0].dtype());
    let loss = seeded_input::<4>("loss", inputs[0].dims(), &device).cast(dtype);
    let expected = gradients(&twin, inputs.each_ref().map(exact), exact(&loss));
    let y = gpu::attention(&inputs[0], &inputs[1], &inputs[2], true).expect(TAKEN);
    assert_close(&format!("{name}: alone"), &y, &expected[0], tolerance);
    let found = gradients(&ours, inputs, loss);
    for ((name_of, found), expected) in ["output", "q", "k", "v"].into_iter().zip(&found).zip(&expected) {
        assert_eq!(found.dtype(), dtype);
        assert_close(&format!("{name}: {name_of}"), found, expected, tolerance * 4.0);
    }
}

#[test]
fn attention_equals_its_twin() {
    let Some(device) = device() else { return };
    // One row and one key; odd ones; a prompt's 77; more rows and keys than a tile has; wide heads.
    let cases: [Case; 7] = [
        [1, 1, 1, 1, 1],
        [2, 3, 5, 7, 9],
        [1, 2, 40, 77, 40],
        [1, 1, 100, 100, 33],
        [2, 1, 67, 130, 64],
        [1, 2, 33, 50, 80],
        [1, 1, 20, 40, 128],
    ];
    for (case, (dtype, tolerance)) in cases.into_iter().flat_map(|c| types(&device).map(move |t| (c, t))) {
        // What f32 needs of shared memory at this width, few devices have.
        if case[4] > 80 && dtype == DType::F32 {
            continue;
        }
        compare(&format!("{case:?} {dtype:?}"), inputs(case, dtype, &device), tolerance);
    }
}

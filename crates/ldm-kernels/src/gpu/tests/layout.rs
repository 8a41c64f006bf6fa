//! Maps joined, turned into tokens and back, doubled: exactly the values of burn's own operations.

use burn::tensor::{DType, Device, Tensor};
use ldm_test_support::seeded_input;

use super::{TAKEN, device, exact, types};
use crate::gpu;
use crate::layout::{join_channels, plain_join, to_map, to_tokens};
use crate::upsample::{plain, upsample_twice};

fn maps(shape: [usize; 4], dtype: DType, device: &Device) -> [Tensor<4>; 2] {
    let x = seeded_input::<4>("x", shape, device).cast(dtype);
    let [b, c, h, w] = shape;
    let last = seeded_input::<4>("y", [b, h, w, c], device).cast(dtype).permute([0, 3, 1, 2]);
    [x, last]
}

fn assert_same<const D: usize>(name: &str, found: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(found.dims(), expected.dims(), "{name}");
    assert_eq!(exact(&found).to_data(), expected.to_data(), "{name}");
}

#[test]
fn maps_are_joined() {
    let Some(device) = device() else { return };
    for (dtype, _) in types(&device) {
        for (left, right) in [([2, 8, 3, 5], 16), ([1, 3, 4, 4], 6), ([2, 20, 1, 1], 5)] {
            let [b, _, h, w] = left;
            let (lefts, rights) = (maps(left, dtype, &device), maps([b, right, h, w], dtype, &device));
            for (x, y) in lefts.iter().flat_map(|x| rights.iter().map(move |y| (x, y))) {
                let joined = join_channels(x.clone(), y.clone());
                assert_eq!(joined.dtype(), dtype);
                assert_same(&format!("{left:?} {right} {dtype:?}"), joined, plain_join(exact(x), exact(y)));
            }
        }
    }
}

#[test]
fn gradients_go_through_a_join() {
    let Some(device) = device() else { return };
    let gradients = |x: Tensor<4>, y: Tensor<4>| {
        let (x, y) = (x.autodiff().require_grad(), y.autodiff().require_grad());
        let gradients = join_channels(x.clone(), y.clone()).square().sum().backward();
        [x, y].map(|x| x.grad(&gradients).expect("a gradient"))
    };
    for ((channels, others), (dtype, _)) in
        [(4, 12), (3, 5), (16, 8)].into_iter().flat_map(|c| types(&device).map(move |dtype| (c, dtype)))
    {
        let [x, last] = maps([2, channels, 3, 3], dtype, &device);
        let [y, last2] = maps([2, others, 3, 3], dtype, &device);
        for (x, y) in [(x, y), (last, last2)] {
            assert!(gpu::autodiff::join_channels(&x.clone().autodiff(), &y).is_some(), "{TAKEN}");
            let expected = gradients(exact(&x), exact(&y));
            for (found, expected) in gradients(x, y).into_iter().zip(expected) {
                let expected = expected.cast(dtype).cast(DType::F32);
                assert_same(&format!("{channels} {others} {dtype:?}"), found, expected);
            }
        }
    }
}

#[test]
fn maps_become_tokens_and_maps_again() {
    let Some(device) = device() else { return };
    for x in maps([2, 6, 3, 4], DType::F32, &device) {
        let tokens = to_tokens(x.clone());
        assert_same("tokens", tokens.clone(), exact(&x).reshape([2, 6, 12]).swap_dims(1, 2));
        assert_same("map", to_map(tokens, [2, 6, 3, 4]), exact(&x));
        assert_same("doubled", upsample_twice(x.clone()), plain(exact(&x)));
    }
}

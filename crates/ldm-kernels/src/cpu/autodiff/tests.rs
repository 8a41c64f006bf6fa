//! Every gradient against burn's own, from the same graph in plain operations.

use burn::tensor::{Device, Tensor};
use ldm_test_support::{assert_close, seeded_input};

use crate::{Conv2dOptions, GroupNormOptions, conv2d, geglu, group_norm, layer_norm, linear, upsample_twice};

const TOLERANCE: f64 = 2e-5;

fn input<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<D> {
    seeded_input(name, shape, &Device::flex().autodiff()).require_grad()
}

/// Output and gradients of `x`, `weight` and `bias` under a loss that weighs every output differently.
fn compare<const X: usize, const W: usize>(
    name: &str,
    [x, w, b]: [Vec<usize>; 3],
    ours: impl Fn(Tensor<X>, Tensor<W>, Tensor<1>) -> Tensor<X>,
    plain: impl Fn(Tensor<X>, Tensor<W>, Tensor<1>) -> Tensor<X>,
) {
    let dims = |shape: &[usize]| shape.to_vec();
    let run = |f: &dyn Fn(Tensor<X>, Tensor<W>, Tensor<1>) -> Tensor<X>| {
        let x = input::<X>("x", dims(&x).try_into().unwrap());
        let w = input::<W>("w", dims(&w).try_into().unwrap());
        let b = input::<1>("b", dims(&b).try_into().unwrap());
        let y = f(x.clone(), w.clone(), b.clone());
        let weights = seeded_input("loss", y.dims(), &y.device());
        let gradients = (y.clone() * weights).sum().backward();
        let gradient = (x.grad(&gradients), w.grad(&gradients), b.grad(&gradients));
        (y.inner(), gradient)
    };
    let (y, (dx, dw, db)) = run(&ours);
    let (y2, (dx2, dw2, db2)) = run(&plain);
    assert_close(&format!("{name}: output"), &y, &y2, TOLERANCE);
    assert_close(&format!("{name}: x"), &dx.unwrap(), &dx2.unwrap(), TOLERANCE);
    assert_close(&format!("{name}: weight"), &dw.unwrap(), &dw2.unwrap(), TOLERANCE);
    assert_close(&format!("{name}: bias"), &db.unwrap(), &db2.unwrap(), TOLERANCE);
}

#[test]
fn conv2d_has_burns_gradients() {
    let cases = [
        ([2, 8, 9, 7], [5, 3], [1, 1], [[1, 1], [1, 1]]),
        ([3, 40, 16, 16], [33, 3], [1, 1], [[1, 1], [1, 1]]),
        ([2, 70, 5, 6], [9, 1], [1, 1], [[0, 0], [0, 0]]),
        ([2, 4, 33, 9], [6, 3], [2, 2], [[0, 1], [0, 1]]),
        ([1, 4, 13, 10], [6, 3], [2, 2], [[1, 1], [1, 1]]),
        ([1, 3, 20, 21], [4, 4], [4, 3], [[2, 1], [0, 3]]),
        ([1, 2, 5, 5], [3, 1], [1, 1], [[1, 2], [2, 0]]),
    ];
    for (shape, [c_out, k], stride, padding) in cases {
        let options = Conv2dOptions { stride, padding };
        compare::<4, 4>(
            &format!("{shape:?} {options:?}"),
            [shape.to_vec(), vec![c_out, shape[1], k, k], vec![c_out]],
            |x, w, b| {
                assert!(super::conv2d(&x, &w, Some(&b), options).is_some(), "the kernel takes it");
                conv2d(x, w, Some(b), options)
            },
            |x, w, b| crate::conv2d::plain(x, w, Some(b), options),
        );
    }
}

#[test]
fn linear_has_burns_gradients() {
    for ([b, n, i], o) in [([1, 1, 1], 1), ([2, 5, 70], 9), ([1, 77, 300], 33), ([3, 50, 31], 100)] {
        compare::<3, 2>(
            &format!("{b} {n} {i} -> {o}"),
            [vec![b, n, i], vec![o, i], vec![o]],
            |x, w, b| {
                assert!(super::linear(&x, &w, Some(&b)).is_some(), "the kernel takes it");
                linear(x, w, Some(b))
            },
            |x, w, b| crate::linear::plain(x, w, Some(b)),
        );
    }
}

#[test]
fn group_norm_has_burns_gradients() {
    for (shape, groups) in [([2, 6, 5, 7], 3), ([3, 32, 8, 8], 32), ([2, 4, 1, 3], 1)] {
        for silu in [false, true] {
            let options = GroupNormOptions { groups, eps: 1e-5, silu };
            compare::<4, 1>(
                &format!("{shape:?} {options:?}"),
                [shape.to_vec(), vec![shape[1]], vec![shape[1]]],
                |x, w, b| {
                    assert!(super::group_norm(&x, &w, &b, options).is_some(), "the kernel takes it");
                    group_norm(x, w, b, options)
                },
                |x, w, b| crate::group_norm::plain(x, w, b, options),
            );
        }
    }
}

#[test]
fn layer_norm_has_burns_gradients() {
    for [b, n, c] in [[1, 2, 9], [2, 3, 5], [1, 77, 130]] {
        compare::<3, 1>(
            &format!("{b} {n} {c}"),
            [vec![b, n, c], vec![c], vec![c]],
            |x, w, b| {
                assert!(super::layer_norm(&x, &w, &b, 1e-5).is_some(), "the kernel takes it");
                layer_norm(x, w, b, 1e-5)
            },
            |x, w, b| crate::layer_norm::plain(x, w, b, 1e-5),
        );
    }
}

#[test]
fn geglu_has_burns_gradient() {
    for [b, n, c] in [[1, 2, 2], [2, 3, 10], [3, 77, 642]] {
        let run = |f: &dyn Fn(Tensor<3>) -> Tensor<3>| {
            let x = input::<3>("x", [b, n, c]);
            let y = f(x.clone() * 3.0);
            let weights = seeded_input("loss", y.dims(), &y.device());
            let gradients = (y * weights).sum().backward();
            x.grad(&gradients).unwrap()
        };
        let ours = run(&|x| {
            assert!(super::geglu(&x).is_some(), "the kernel takes it");
            geglu(x)
        });
        assert_close(&format!("{b} {n} {c}"), &ours, &run(&crate::geglu::plain), TOLERANCE);
    }
}

/// Without a bias, with inputs that want no gradient, and with an input that is used twice.
#[test]
fn only_what_is_wanted_gets_a_gradient() {
    let device = Device::flex().autodiff();
    let x = seeded_input::<2>("x", [3, 4], &device);
    let w = input::<2>("w", [4, 4]);
    let y = linear(linear(x.clone(), w.clone(), None), w.clone(), None);
    let gradients = y.sum().backward();
    assert!(x.grad(&gradients).is_none());
    let plain = input::<2>("w", [4, 4]);
    let y = crate::linear::plain(crate::linear::plain(x, plain.clone(), None), plain.clone(), None);
    let expected = plain.grad(&y.sum().backward()).unwrap();
    assert_close("used twice", &w.grad(&gradients).unwrap(), &expected, TOLERANCE);
}

#[test]
fn upsample_has_burns_gradients() {
    for shape in [[1, 1, 1, 1], [2, 3, 5, 7], [1, 4, 70, 66]] {
        let gradient = |f: &dyn Fn(Tensor<4>) -> Tensor<4>| {
            let x = input::<4>("x", shape);
            let y = f(x.clone());
            let weights = seeded_input("loss", y.dims(), &y.device());
            let gradients = (y * weights).sum().backward();
            x.grad(&gradients).unwrap()
        };
        let ours = gradient(&|x| {
            assert!(super::upsample_twice(&x).is_some(), "the kernel takes it");
            upsample_twice(x)
        });
        assert_close(&format!("{shape:?}"), &ours, &gradient(&crate::upsample::plain), 1e-6);
    }
}

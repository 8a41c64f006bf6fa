use burn::tensor::{DType, Device, Tensor};
use ldm_test_support::{assert_close, seeded_input};

use super::{TAKEN, device, exact, types};
use crate::gpu;
use crate::optimizer::{
    AdamWFactors, AdamWTensors, adamw, copies, ema, plain_adamw, plain_copies, plain_ema,
    plain_sum_of_squares,
};

/// More than a launch takes, of several vectors and cubes.
fn lengths() -> Vec<usize> {
    let small = (1..20).map(|i| 4 * i);
    [1, 37, 4096, 4100, 50_000, 70_001].into_iter().chain(small).collect()
}

fn seeded(name: &str, device: &Device) -> Vec<Tensor<1>> {
    let lengths = lengths().into_iter().enumerate();
    lengths.map(|(i, n)| seeded_input(&format!("{name} {i}"), [n], device)).collect()
}

#[test]
fn adamw_equals_its_twin() {
    let Some(device) = device() else { return };
    let [values, gradients, firsts, seconds] = ["v", "g", "m", "s"].map(|name| seeded(name, &device));
    for (dtype, _) in types(&device) {
        let parameters = || {
            let moments = firsts.iter().zip(&seconds);
            let all =
                values.iter().zip(&gradients).zip(moments).map(|((value, gradient), (first, second))| {
                    AdamWTensors {
                        value: value.clone(),
                        gradient: gradient.clone().cast(dtype),
                        first: first.clone(),
                        second: second.clone().abs(),
                    }
                });
            all.collect::<Vec<_>>()
        };
        for (decay, t) in [(0.0, 1), (1e-2, 7)] {
            let factors = AdamWFactors::new([0.9, 0.999], 1e-8, decay, 1e-2, t);
            let there = parameters().into_iter().map(|p| AdamWTensors {
                value: exact(&p.value),
                gradient: exact(&p.gradient),
                first: exact(&p.first),
                second: exact(&p.second),
            });
            let expected = plain_adamw(there.collect(), factors);
            assert!(gpu::takes_adamw(&parameters()));
            // The first moments have another holder, the second ones have none.
            for (i, (found, expected)) in adamw(parameters(), factors).iter().zip(&expected).enumerate() {
                for (name, (x, y)) in ["value", "first", "second"].iter().zip(found.iter().zip(expected)) {
                    assert_close(&format!("{i} {name}, {dtype:?}, step {t}"), x, y, 1e-6);
                }
            }
        }
    }
    for (first, before) in firsts.iter().zip(seeded("m", &Device::flex())) {
        assert_close("the other holder's", first, &before, 0.0);
    }
}

#[test]
fn averages_follow_as_their_twin() {
    let Some(device) = device() else { return };
    let [averages, values] = ["a", "v"].map(|name| seeded(name, &device));
    let pairs: Vec<[Tensor<1>; 2]> = averages.into_iter().zip(values).map(Into::into).collect();
    let there = pairs.iter().map(|pair| pair.each_ref().map(exact)).collect();
    assert!(gpu::takes_ema(&pairs));
    for (i, (found, expected)) in ema(pairs, 0.3).iter().zip(plain_ema(there, 0.3)).enumerate() {
        assert_close(&format!("{i}"), found, &expected, 1e-6);
    }
}

#[test]
fn squares_are_added_up() {
    let Some(device) = device() else { return };
    for (dtype, _) in types(&device) {
        // Of several types together too.
        let all: Vec<_> = seeded("x", &device)
            .into_iter()
            .enumerate()
            .map(|(i, x)| if i % 3 == 0 { x } else { x.cast(dtype) })
            .collect();
        let there: Vec<_> = all.iter().map(exact).collect();
        let expected = plain_sum_of_squares(&there).expect("there are some");
        let found = gpu::sum_of_squares(&all).expect(TAKEN);
        assert_close(&format!("{dtype:?}"), &found, &expected, 1e-5);
        let again = gpu::sum_of_squares(&all).expect(TAKEN);
        assert_eq!(found.to_data(), again.to_data(), "{dtype:?}: the same sum twice");
    }
}

#[test]
fn copies_equal_their_twins() {
    let Some(device) = device() else { return };
    let shapes =
        [[5, 7, 1], [6, 8, 9], [3, 5, 9], [2, 1, 9], [4, 1024, 9], [33, 12, 4], [3, 6, 9], [2, 8, 25]];
    let weights = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| (seeded_input::<1>(&format!("w {i}"), [shape.iter().product()], &device), *shape));
    let weights: Vec<_> = weights.collect();
    for (dtype, _) in types(&device) {
        let there = weights.iter().map(|(x, shape)| (exact(x), *shape)).collect();
        let expected = plain_copies(there, DType::F32);
        assert!(gpu::takes_copies(&weights));
        for (i, (found, expected)) in copies(weights.clone(), dtype).iter().zip(expected).enumerate() {
            assert_eq!(found.dtype(), dtype);
            let rounded = expected.cast(dtype).cast(DType::F32);
            assert_close(&format!("{i} {dtype:?}"), found, &rounded, 0.0);
        }
    }
}

#[test]
fn other_lists_are_not_taken() {
    let Some(device) = device() else { return };
    let [x, y] = [3, 4].map(|n| Tensor::<1>::zeros([n], &device));
    assert!(!gpu::takes_ema(&[]));
    assert!(!gpu::takes_ema(&[[x.clone(), y]]));
    assert!(!gpu::takes_ema(&[[x.clone(), exact(&x)]]));
    assert!(!gpu::takes_ema(&[[x.clone(), x.clone().autodiff()]]));
    assert!(!gpu::takes_ema(&[[x.clone(), x.cast(DType::F16)]]));
}

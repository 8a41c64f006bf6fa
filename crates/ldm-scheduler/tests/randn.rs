//! `torch.randn` on the CPU (tests/reference/randn.py).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use burn::tensor::{DType, Device};
use ldm_scheduler::{Error, Noise, TorchRng, randn};
use ldm_test_support::Fixture;

fn numbers(fixture: &Fixture, key: &str) -> Vec<usize> {
    serde_json::from_value(fixture.json(key)).unwrap()
}

/// The furthest from the fixture's tensor `key`, to be below 1e-6.
fn assert_drawn(fixture: &Fixture, key: &str, drawn: &[f32]) -> f32 {
    let expected = fixture.tensor::<1>(key, &Device::default()).to_data();
    let expected = expected.as_slice::<f32>().unwrap();
    assert_eq!(drawn.len(), expected.len(), "{key}");
    let furthest = drawn.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest <= 1e-6, "{key}: {furthest:e}");
    furthest
}

#[test]
fn every_size() {
    let fixture = Fixture::open("randn");
    let mut furthest = 0f32;
    for n in numbers(&fixture, "small") {
        let drawn = TorchRng::new(n as u64).normal(&[n], DType::F32).unwrap();
        furthest = furthest.max(assert_drawn(&fixture, &format!("small.{n}"), &drawn));
    }
    let stride = fixture.json("stride").as_u64().unwrap() as usize;
    for n in numbers(&fixture, "large") {
        let drawn = TorchRng::new(7).normal(&[n], DType::F32).unwrap();
        let sample: Vec<f32> = drawn.iter().step_by(stride).chain(&drawn[n - 20..]).copied().collect();
        furthest = furthest.max(assert_drawn(&fixture, &format!("large.{n}"), &sample));
    }
    println!("torch.randn: {furthest:.1e}");
}

#[test]
fn draw_after_draw() {
    let fixture = Fixture::open("randn");
    let seeds: Vec<String> = serde_json::from_value(fixture.json("seeds")).unwrap();
    for seed in seeds {
        let mut rng = TorchRng::new(seed.parse().unwrap());
        let drawn: Vec<f32> = numbers(&fixture, "sequence")
            .into_iter()
            .flat_map(|n| rng.normal(&[n], DType::F32).unwrap())
            .collect();
        assert_drawn(&fixture, &format!("sequence.{seed}"), &drawn);
    }
}

#[test]
fn half_types_are_rounded() {
    let (fixture, device) = (Fixture::open("randn"), Device::default());
    for (key, dtype, limit) in [("f16", DType::F16, 2e-3), ("bf16", DType::BF16, 2e-2)] {
        if !device.supports_dtype(dtype) {
            continue;
        }
        let mut rng = TorchRng::new(3);
        let drawn: Vec<f32> = [5, 24, 40]
            .into_iter()
            .flat_map(|n| {
                let draw = randn::<1>(&mut rng, [n], &device, dtype).unwrap();
                assert_eq!(draw.dtype(), dtype);
                draw.to_data().iter::<f32>().collect::<Vec<_>>()
            })
            .collect();
        let expected = fixture.tensor::<1>(key, &device).to_data();
        let expected = expected.as_slice::<f32>().unwrap();
        // A number on the edge between two halves may round the other way: one unit in the last place.
        let differing = drawn.iter().zip(expected).filter(|(a, b)| a != b).count();
        let furthest = drawn.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(differing <= 1 && furthest <= limit, "{key}: {differing} differ, {furthest:e}");
    }
}

#[test]
fn one_generator_an_item() {
    let fixture = Fixture::open("randn");
    let mut each = vec![TorchRng::new(1), TorchRng::new(2), TorchRng::new(3)];
    let drawn = each.normal(&[3, 4, 5], DType::F32).unwrap();
    let expected = fixture.tensor::<3>("list", &Device::default()).to_data();
    let pairs = drawn.iter().zip(expected.as_slice::<f32>().unwrap());
    assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) <= 1e-6);

    let error = each.normal(&[2, 4, 5], DType::F32).unwrap_err();
    assert!(matches!(error, Error::Generators { generators: 3, batch: 2 }));
    let mut alone = vec![TorchRng::new(1)];
    assert_eq!(
        alone.normal(&[2, 20], DType::F32).unwrap(),
        TorchRng::new(1).normal(&[2, 20], DType::F32).unwrap()
    );
}

use burn::tensor::{DType, Device, Tensor};
use ldm_test_support::{assert_close, relative_difference, seeded_input};
use ldm_vae::Tiling;
use proptest::prelude::*;

use crate::Case;

/// As in tests/reference/vae.py: tile in pixels, in the latent, overlap, the latent's shape.
type Row = (usize, usize, f64, [usize; 4]);

#[test]
fn seams_are_diffusers() {
    let device = Device::default();
    let case = Case::tiling();
    let model = case.model(DType::F32, &device);
    assert_eq!(
        Tiling::new(&model.config().ddconfig),
        Tiling { sample_min_size: 32, latent_min_size: 8, overlap_factor: 0.25 }
    );
    let rows: Vec<Row> = serde_json::from_value(case.fixture.json("tilings")).unwrap();
    for (i, (sample_min_size, latent_min_size, overlap_factor, shape)) in rows.into_iter().enumerate() {
        let tiling = Tiling { sample_min_size, latent_min_size, overlap_factor };
        let [b, _, h, w] = shape;
        let x = seeded_input::<4>(&format!("tiling.{i}.x"), [b, 3, 4 * h, 4 * w], &device).clamp(-1.0, 1.0);
        let z = seeded_input::<4>(&format!("tiling.{i}.z"), shape, &device);
        for slicing in [false, true] {
            let model = model.clone().with_tiling(Some(tiling)).unwrap().with_slicing(slicing);
            let posterior = model.encode(x.clone()).unwrap();
            let decoded = model.decode(z.clone()).unwrap();
            for (key, output) in
                [("mean", posterior.mean()), ("logvar", posterior.logvar()), ("decoded", decoded)]
            {
                let expected: Tensor<4> = case.fixture.tensor(&format!("{key}.{i}"), &device);
                assert_close(&format!("tiling {i} {key}, sliced {slicing}"), &output, &expected, 1e-4);
            }
        }
    }
}

#[test]
fn tiles_do_change_a_large_picture() {
    let device = Device::default();
    let model = Case::tiling().model(DType::F32, &device);
    let z = seeded_input::<4>("tiling.0.z", [2, 4, 17, 9], &device);
    let whole = model.decode(z.clone()).unwrap();
    let tiling = Tiling::new(&model.config().ddconfig);
    let tiled = model.with_tiling(Some(tiling)).unwrap().decode(z).unwrap();
    let difference = relative_difference(&tiled, &whole);
    assert!((1e-4..1.0).contains(&difference), "{difference}");
}

#[test]
fn one_tile_is_the_untiled_model() {
    let device = Device::default();
    let model = Case::tiling().model(DType::F32, &device);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(16));
    let sizes = (1usize..=6, 0usize..=3, 0usize..=3, 1usize..=2);
    runner
        .run(&sizes, |(quarters, less_h, less_w, b)| {
            let side = 2 * quarters;
            let tiling = Tiling { overlap_factor: 0.5, ..Tiling::with_latent_size(side, 4) };
            let (h, w) = ((side - less_h.min(side - 1)), (side - less_w.min(side - 1)));
            let tiled = model.clone().with_tiling(Some(tiling)).unwrap();
            let z = seeded_input::<4>("z", [b, 4, h, w], &device);
            let (a, whole) = (tiled.decode(z.clone()).unwrap(), model.decode(z).unwrap());
            prop_assert!(relative_difference(&a, &whole) < 1e-5);
            let x = seeded_input::<4>("x", [b, 3, 4 * h, 4 * w], &device);
            let (a, whole) = (tiled.encode(x.clone()).unwrap(), model.encode(x).unwrap());
            prop_assert!(relative_difference(&a.mean(), &whole.mean()) < 1e-5);
            prop_assert!(relative_difference(&a.logvar(), &whole.logvar()) < 1e-5);
            Ok(())
        })
        .unwrap();
}

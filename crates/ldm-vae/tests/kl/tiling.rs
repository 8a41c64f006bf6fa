use burn::tensor::{DType, Device, Tensor, TensorData};
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

/// Whatever the sizes, tiles are laid and faded as diffusers' `tiled_encode` and `tiled_decode` do it.
#[test]
fn tiles_of_any_size_are_laid_as_diffusers_lays_them() {
    let device = Device::default();
    let model = Case::tiling().model(DType::F32, &device);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(8));
    let tiles = prop::sample::select(vec![(4usize, 0.25), (4, 0.5), (6, 0.5), (8, 0.25), (8, 0.5), (5, 0.0)]);
    // One side at least is larger than a tile.
    let sizes = (tiles, 1usize..=6, 1usize..=12, any::<bool>());
    runner
        .run(&sizes, |((side, overlap_factor), more, other, upright)| {
            let tiling = Tiling { overlap_factor, ..Tiling::with_latent_size(side, 4) };
            let tiled = model.clone().with_tiling(Some(tiling)).unwrap();
            let (h, w) = if upright { (side + more, other) } else { (other, side + more) };
            let part = |size: usize, part: f64| (size as f64 * part) as usize;
            let (tile, overlap) =
                ([side, 4 * side], [part(side, overlap_factor), part(4 * side, overlap_factor)]);

            let z = seeded_input::<4>("tiled.z", [1, 4, h, w], &device);
            let grid = Laid {
                tile: tile[0],
                step: tile[0] - overlap[0],
                blend: overlap[1],
                keep: tile[1] - overlap[1],
            };
            let expected = grid.run(z.clone(), [4 * h, 4 * w], |z| model.decode(z).unwrap());
            prop_assert!(relative_difference(&tiled.decode(z).unwrap(), &expected) < 1e-5);

            let x = seeded_input::<4>("tiled.x", [1, 3, 4 * h, 4 * w], &device);
            let grid = Laid {
                tile: tile[1],
                step: tile[1] - overlap[1],
                blend: overlap[0],
                keep: tile[0] - overlap[0],
            };
            let expected = grid.run(x.clone(), [h, w], |x| model.encode(x).unwrap().mean());
            prop_assert!(relative_difference(&tiled.encode(x).unwrap().mean(), &expected) < 1e-5);
            Ok(())
        })
        .unwrap();
}

/// How tiles are laid: their size and distance in the input, the seam and what is kept of each in the output.
struct Laid {
    tile: usize,
    step: usize,
    blend: usize,
    keep: usize,
}

impl Laid {
    /// Number by number in diffusers' order, which blends a tile with neighbours that are blended already.
    fn run(&self, x: Tensor<4>, size: [usize; 2], network: impl Fn(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
        let ([_, _, h, w], device) = (x.dims(), x.device());
        let mut rows: Vec<Vec<Numbers>> = Vec::new();
        for top in (0..h).step_by(self.step) {
            let strip = x.clone().narrow(2, top, self.tile.min(h - top));
            let mut row: Vec<Numbers> = Vec::new();
            for (j, left) in (0..w).step_by(self.step).enumerate() {
                let tile = network(strip.clone().narrow(3, left, self.tile.min(w - left)));
                let mut tile = Numbers { dims: tile.dims(), values: tile.into_data().try_to_vec().unwrap() };
                if let Some(above) = rows.last() {
                    tile.blend(2, &above[j], self.blend);
                }
                if let Some(left) = row.last() {
                    tile.blend(3, left, self.blend);
                }
                row.push(tile);
            }
            rows.push(row);
        }
        let [b, c, ..] = rows[0][0].dims;
        let shape = [b, c, size[0], size[1]];
        let value = |[b, c, y, x]: [usize; 4]| {
            let tile = &rows[y / self.keep][x / self.keep];
            tile.values[tile.place([b, c, y % self.keep, x % self.keep])]
        };
        let values: Vec<f32> = places(shape).map(value).collect();
        Tensor::from_data(TensorData::new(values, shape), &device)
    }
}

/// `[b, c, h, w]`.
struct Numbers {
    dims: [usize; 4],
    values: Vec<f32>,
}

impl Numbers {
    fn place(&self, at: [usize; 4]) -> usize {
        at.into_iter().zip(self.dims).fold(0, |place, (at, n)| place * n + at)
    }

    /// `blend_v` of diffusers along axis 2, `blend_h` along 3.
    fn blend(&mut self, axis: usize, before: &Self, extent: usize) {
        let extent = extent.min(self.dims[axis]).min(before.dims[axis]);
        for at in places(self.dims).filter(|at| at[axis] < extent) {
            let t = at[axis] as f32 / extent as f32;
            let mut there = at;
            there[axis] += before.dims[axis] - extent;
            let here = self.place(at);
            self.values[here] = before.values[before.place(there)] * (1.0 - t) + self.values[here] * t;
        }
    }
}

/// Every index of a tensor, the last axis fastest.
fn places([b, c, h, w]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..b * c * h * w).map(move |i| [i / (c * h * w), i / (h * w) % c, i / w % h, i % w])
}

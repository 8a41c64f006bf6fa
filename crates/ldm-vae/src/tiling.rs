use burn::tensor::{Tensor, TensorData};

use crate::{DdConfig, VaeError};

/// Encodes and decodes large pictures tile by tile, in memory that does not grow with the picture.
///
/// Tiles overlap, and each is faded into the ones above and to the left of it, over the overlap. A tile
/// is normalised and attended by itself, so the result is close to the untiled one, not equal.
/// Source: `enable_tiling` of diffusers' `autoencoder_kl.py`, with its three numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tiling {
    /// Side of a tile in pixels (`tile_sample_min_size`); a picture no larger goes in one piece.
    pub sample_min_size: usize,
    /// Side of a tile in the latent (`tile_latent_min_size`).
    pub latent_min_size: usize,
    /// The part of a tile that its neighbour repeats (`tile_overlap_factor`).
    pub overlap_factor: f64,
}

/// Tiles of one direction: sizes of the input on the left, of the output on the right.
struct Grid {
    tile: usize,
    step: usize,
    blend: usize,
    keep: usize,
}

impl Tiling {
    /// Tiles of the training size with a quarter of overlap, as diffusers sets them.
    pub fn new(config: &DdConfig) -> Self {
        Self {
            sample_min_size: config.resolution,
            latent_min_size: config.resolution / config.factor(),
            overlap_factor: 0.25,
        }
    }

    /// Tiles of `latent_min_size` with a quarter of overlap, for a first stage of this downsampling factor.
    pub fn with_latent_size(latent_min_size: usize, factor: usize) -> Self {
        Self {
            sample_min_size: latent_min_size.saturating_mul(factor),
            latent_min_size,
            overlap_factor: 0.25,
        }
    }

    /// Whether tiles of these numbers join without gap or repetition at downsampling factor `factor`.
    pub fn validate(&self, factor: usize) -> Result<(), VaeError> {
        let error = |reason: String| {
            let Self { sample_min_size, latent_min_size, overlap_factor } = *self;
            Err(VaeError::Tiling { sample_min_size, latent_min_size, overlap_factor, reason })
        };
        if !(0.0..1.0).contains(&self.overlap_factor) {
            return error("the overlap must lie in 0..1".into());
        }
        if self.latent_min_size == 0 || Some(self.sample_min_size) != self.latent_min_size.checked_mul(factor)
        {
            return error(format!("a tile must be {factor} times as wide in pixels as in the latent"));
        }
        let (encode, decode) = (self.encode_grid(), self.decode_grid());
        if decode.step == 0 || decode.keep != decode.step * factor || encode.step != encode.keep * factor {
            return error("the overlap is no whole number of latents".into());
        }
        Ok(())
    }

    fn part(&self, size: usize, part: f64) -> usize {
        (size as f64 * part) as usize
    }

    fn encode_grid(&self) -> Grid {
        let blend = self.part(self.latent_min_size, self.overlap_factor);
        Grid {
            tile: self.sample_min_size,
            step: self.part(self.sample_min_size, 1.0 - self.overlap_factor),
            blend,
            keep: self.latent_min_size - blend,
        }
    }

    fn decode_grid(&self) -> Grid {
        let blend = self.part(self.sample_min_size, self.overlap_factor);
        Grid {
            tile: self.latent_min_size,
            step: self.part(self.latent_min_size, 1.0 - self.overlap_factor),
            blend,
            keep: self.sample_min_size - blend,
        }
    }

    /// Picture to moments, `network` on each tile.
    pub(crate) fn encode(&self, x: Tensor<4>, network: impl Fn(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
        self.encode_grid().run(x, network)
    }

    /// Latent to picture, `network` on each tile.
    pub(crate) fn decode(&self, z: Tensor<4>, network: impl Fn(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
        self.decode_grid().run(z, network)
    }
}

impl Grid {
    fn run(&self, x: Tensor<4>, network: impl Fn(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
        let [_, _, h, w] = x.dims();
        if h <= self.tile && w <= self.tile {
            return network(x);
        }
        let mut above: Vec<Tensor<4>> = Vec::new();
        let mut rows = Vec::new();
        for top in (0..h).step_by(self.step) {
            let strip = x.clone().narrow(2, top, self.tile.min(h - top));
            let mut row: Vec<Tensor<4>> = Vec::new();
            for (j, left) in (0..w).step_by(self.step).enumerate() {
                let mut tile = network(strip.clone().narrow(3, left, self.tile.min(w - left)));
                // The neighbours are themselves blended by now, as in the reference.
                if let Some(above) = above.get(j) {
                    tile = blend(2, above, tile, self.blend);
                }
                if let Some(left) = row.last() {
                    tile = blend(3, left, tile, self.blend);
                }
                row.push(tile);
            }
            let kept = row.iter().map(|tile| {
                let [_, _, h, w] = tile.dims();
                tile.clone().narrow(2, 0, self.keep.min(h)).narrow(3, 0, self.keep.min(w))
            });
            rows.push(Tensor::cat(kept.collect(), 3));
            above = row;
        }
        Tensor::cat(rows, 2)
    }
}

/// Fades the end of `a` into the start of `b` along `axis`, over at most `extent` rows or columns.
fn blend(axis: usize, a: &Tensor<4>, b: Tensor<4>, extent: usize) -> Tensor<4> {
    let (a_len, b_len) = (a.dims()[axis], b.dims()[axis]);
    let extent = extent.min(a_len).min(b_len);
    if extent == 0 {
        return b;
    }
    let ramp = |weight: fn(f64) -> f64| {
        let values: Vec<f32> = (0..extent).map(|i| weight(i as f64 / extent as f64) as f32).collect();
        let mut shape = [1; 4];
        shape[axis] = extent;
        Tensor::<4>::from_data(TensorData::new(values, shape), &b.device()).cast(b.dtype())
    };
    let tail = a.clone().narrow(axis, a_len - extent, extent);
    let seam = tail * ramp(|t| 1.0 - t) + b.clone().narrow(axis, 0, extent) * ramp(|t| t);
    if extent == b_len {
        return seam;
    }
    Tensor::cat(vec![seam, b.narrow(axis, extent, b_len - extent)], axis)
}

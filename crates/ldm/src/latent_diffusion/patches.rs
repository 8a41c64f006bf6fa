//! Models run over a larger picture in overlapping patches, whose results are blended by weight.

use burn::tensor::{DType, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::Error;

/// How a picture is split: `split_input_params` of the reference, in its own field names.
///
/// The defaults are those of `notebook_helpers.py`, which splits latents from 128x128 on. Source: `get_fold_unfold`
/// and `get_weighting` in the reference's `ddpm.py`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Patches {
    /// Height and width of a patch: of the latent for U-Net and decoder, of the picture for the encoder.
    pub ks: [usize; 2],
    /// How far the next patch is.
    pub stride: [usize; 2],
    /// The first stage's factor f; another is an error.
    pub vqf: usize,
    /// Whether the first stage runs in patches too.
    pub patch_distributed_vq: bool,
    /// Whether patches weigh less towards the border of the whole.
    pub tie_braker: bool,
    /// The largest weight within a patch; it grows from 0 at its border to 0.5 in the middle.
    pub clip_max_weight: f64,
    /// The smallest weight within a patch.
    pub clip_min_weight: f64,
    /// The largest weight of a patch in the whole.
    pub clip_max_tie_weight: f64,
    /// The smallest weight of a patch in the whole.
    pub clip_min_tie_weight: f64,
}

impl Default for Patches {
    fn default() -> Self {
        Self {
            ks: [128, 128],
            stride: [64, 64],
            vqf: 4,
            patch_distributed_vq: true,
            tie_braker: false,
            clip_max_weight: 0.5,
            clip_min_weight: 0.01,
            clip_max_tie_weight: 0.5,
            clip_min_tie_weight: 0.01,
        }
    }
}

/// How a patch's result relates to it in size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resize {
    Same,
    Up(usize),
    Down(usize),
}

impl Resize {
    fn of(self, side: usize) -> usize {
        match self {
            Self::Same => side,
            Self::Up(factor) => side * factor,
            Self::Down(factor) => side / factor,
        }
    }
}

/// The patches of one picture, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grid {
    /// Height and width of a patch.
    pub ks: [usize; 2],
    stride: [usize; 2],
    /// Rows and columns of patches.
    count: [usize; 2],
}

impl Grid {
    /// Top and left of each patch.
    pub fn places(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        let [rows, columns] = self.count;
        (0..rows * columns).map(move |i| [i / columns * self.stride[0], i % columns * self.stride[1]])
    }

    /// A patch of `x`.
    pub fn crop(&self, x: &Tensor<4>, [top, left]: [usize; 2]) -> Tensor<4> {
        x.clone().narrow(2, top, self.ks[0]).narrow(3, left, self.ks[1])
    }
}

impl Patches {
    /// The patches of a picture of this height and width; what is smaller than a patch is one.
    ///
    /// # Errors
    /// [`Error::Argument`] where patches would leave a part of it out.
    pub(super) fn grid(&self, size: [usize; 2]) -> Result<Grid, Error> {
        let mut grid = Grid { ks: self.ks, stride: self.stride, count: [1, 1] };
        for (axis, side) in size.into_iter().enumerate() {
            let (ks, stride) = (self.ks[axis].min(side), self.stride[axis].min(side));
            if ks == 0 || stride == 0 || stride > ks || !(side - ks).is_multiple_of(stride) {
                let reason = format!(
                    "patches of {} every {} don't cover a side of {side}",
                    self.ks[axis], self.stride[axis]
                );
                return Err(Error::argument("patches", reason));
            }
            (grid.ks[axis], grid.stride[axis]) = (ks, stride);
            grid.count[axis] = (side - ks) / stride + 1;
        }
        Ok(grid)
    }

    /// Runs `f` on every patch of `x` `[b, c, h, w]` and blends what it gives, `[b, c', h', w']` where `resize` says
    /// how sizes change; `f` gets the patch's number, place and content.
    pub(super) fn map(
        &self,
        x: &Tensor<4>,
        resize: Resize,
        mut f: impl FnMut(usize, [usize; 2], Tensor<4>) -> Result<Tensor<4>, Error>,
    ) -> Result<Tensor<4>, Error> {
        let [b, _, h, w] = x.dims();
        let grid = self.grid([h, w])?;
        let [kh, kw] = grid.ks.map(|side| resize.of(side));
        let size = [h, w].map(|side| resize.of(side));
        let within = self.within([kh, kw]);
        let between = self.between(grid.count);
        let mut total = vec![0f32; size[0] * size[1]];
        let mut sum: Option<Tensor<4>> = None;
        for (i, place) in grid.places().enumerate() {
            let out = f(i, place, grid.crop(x, place))?.cast(DType::F32);
            let (device, c) = (out.device(), out.dims()[1]);
            if out.dims() != [b, c, kh, kw] {
                let reason = format!("a patch gave {:?} instead of [{b}, {c}, {kh}, {kw}]", out.dims());
                return Err(Error::argument("patches", reason));
            }
            let weights: Vec<f32> = within.iter().map(|v| v * between[i]).collect();
            let [top, left] = place.map(|at| resize.of(at));
            for (y, row) in weights.chunks_exact(kw).enumerate() {
                let start = (top + y) * size[1] + left;
                total[start..start + kw].iter_mut().zip(row).for_each(|(total, v)| *total += v);
            }
            let weights =
                Tensor::<4>::from_data(TensorData::new(weights, [1, 1, kh, kw]), (&device, DType::F32));
            let all =
                sum.take().unwrap_or_else(|| Tensor::zeros([b, c, size[0], size[1]], (&device, DType::F32)));
            let range = [0..b, 0..c, top..top + kh, left..left + kw];
            let there = all.clone().slice(range.clone());
            sum = Some(all.slice_assign(range, there + out * weights));
        }
        let sum = sum.ok_or_else(|| Error::argument("patches", "there is nothing to split"))?;
        let total = TensorData::new(total, [1, 1, size[0], size[1]]);
        Ok(sum.clone() / Tensor::<4>::from_data(total, (&sum.device(), DType::F32)))
    }

    /// The weight of each pixel of a patch.
    fn within(&self, size: [usize; 2]) -> Vec<f32> {
        delta_border(size, self.clip_min_weight, self.clip_max_weight)
    }

    /// The weight of each patch.
    fn between(&self, count: [usize; 2]) -> Vec<f32> {
        if self.tie_braker {
            delta_border(count, self.clip_min_tie_weight, self.clip_max_tie_weight)
        } else {
            vec![1.0; count[0] * count[1]]
        }
    }
}

/// The distance of each point to the border, in parts of the side, clipped.
fn delta_border([h, w]: [usize; 2], min: f64, max: f64) -> Vec<f32> {
    // A single row or column is all border; the reference divides by zero there.
    let along = |i: usize, n: usize| if n > 1 { i as f32 / (n - 1) as f32 } else { 0.0 };
    let point = |i: usize| {
        let (y, x) = (along(i / w, h), along(i % w, w));
        y.min(x).min((1.0 - y).min(1.0 - x)).clamp(min as f32, (max as f32).max(min as f32))
    };
    (0..h * w).map(point).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn ramp(h: usize, w: usize) -> Tensor<4> {
        let values: Vec<f32> = (0..h * w).map(|v| v as f32).collect();
        Tensor::<1>::from_floats(values.as_slice(), &Device::default()).reshape([1, 1, h, w])
    }

    #[test]
    fn what_is_done_to_patches_is_done_to_the_whole() {
        for tie_braker in [false, true] {
            let patches = Patches { ks: [6, 6], stride: [3, 2], tie_braker, ..Patches::default() };
            let x = ramp(12, 10);
            let twice = patches.map(&x, Resize::Same, |_, _, patch| Ok(patch * 2.0)).unwrap();
            let worst = (twice - x * 2.0).abs().max().into_scalar::<f32>();
            assert!(worst < 1e-4, "{worst}");
        }
    }

    #[test]
    fn sizes_that_leave_a_gap_are_named() {
        let patches = Patches { ks: [6, 6], stride: [4, 4], ..Patches::default() };
        let error = patches.grid([14, 15]).unwrap_err().to_string();
        assert!(error.contains("a side of 15"), "{error}");
        assert_eq!(patches.grid([4, 6]).unwrap().places().collect::<Vec<_>>(), [[0, 0]]);
    }
}

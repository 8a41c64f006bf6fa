//! The taps of a 3x3 convolution of an enlarged picture as those of a convolution of the picture itself.

#[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Tensor};

/// The taps of all four pixels that one becomes, row after row: `[c_out, c_in, 3, 3] -> [4 c_out, c_in, 2, 2]`.
///
/// Those that meet the same pixel are added up, in f32.
pub fn merged(weight: &Tensor<4>) -> Tensor<4> {
    let halves = |taps: &Tensor<4>, axis: usize| {
        let tap = |i| taps.clone().narrow(axis, i, 1);
        // The first pixel's neighbour before it is another one, the second's the one behind it.
        [[tap(0), tap(1) + tap(2)], [tap(0) + tap(1), tap(2)]].map(|two| Tensor::cat(two.into(), axis))
    };
    let [above, below] = halves(&weight.clone().cast(DType::F32), 2);
    let pixels = [above, below].into_iter().flat_map(|rows| halves(&rows, 3)).collect();
    Tensor::cat(pixels, 0).cast(weight.dtype())
}

/// Merged taps of the weights that were last asked for.
#[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
#[derive(Debug, Clone, Default)]
pub struct Kept(Arc<Mutex<Option<[Tensor<4>; 2]>>>);

#[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
impl Kept {
    /// Those of `weight`, laid out for the kernel.
    pub fn of(&self, weight: &Tensor<4>) -> Tensor<4> {
        // Where a panic left it nothing is half done.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.as_ref() {
            // Memory that is held here is written to by nobody, so these are the same values.
            Some([of, taps]) if crate::gpu::same(of, weight) => taps.clone(),
            _ => {
                let taps = crate::conv2d::laid_out(merged(weight));
                *kept = Some([weight.clone(), taps.clone()]);
                taps
            }
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;
    use crate::conv2d::{Conv2dOptions, plain};
    use crate::upsample::plain as enlarged;

    /// Each pixel's taps, by burn's convolution, against the enlarged picture's.
    #[test]
    fn merged_taps_are_those_of_four_pixels() {
        let device = Device::flex();
        let x = seeded_input::<4>("x", [2, 3, 4, 5], &device);
        let weight = seeded_input::<4>("weight", [6, 3, 3, 3], &device);
        let all_round = Conv2dOptions { stride: [1, 1], padding: [[1, 1]; 2] };
        let expected = plain(enlarged(x.clone()), weight.clone(), None, all_round);
        let taps = merged(&weight);
        assert_eq!(taps.dims(), [24, 3, 2, 2]);
        for (row, column) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let of_pixel = taps.clone().narrow(0, (2 * row + column) * 6, 6);
            let padding = [row, column].map(|below| [1 - below, below]);
            let y = plain(x.clone(), of_pixel, None, Conv2dOptions { padding, ..all_round });
            let there = expected.clone().reshape([2, 6, 4, 2, 5, 2]).narrow(3, row, 1).narrow(5, column, 1);
            assert_close(&format!("{row}, {column}"), &y, &there.reshape([2, 6, 4, 5]), 1e-6);
        }
    }
}

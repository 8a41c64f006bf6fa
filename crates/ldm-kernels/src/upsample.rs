//! Enlargement before a convolution.

#[cfg(any(test, all(feature = "gpu-kernels", feature = "gpu")))]
pub(crate) mod merged;

use burn::tensor::Tensor;

use crate::conv2d::{Conv2dOptions, conv2d};
use crate::layout::channels_last;

/// Every pixel four times: `[b, c, h, w] -> [b, c, 2 h, 2 w]`.
///
/// Source: `Upsample` in the reference's `openaimodel.py` and `model.py` (nearest neighbour, factor 2).
pub fn upsample_twice(x: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(y) = crate::cpu::upsample_twice(&x) {
        return y;
    }
    #[cfg(all(feature = "flex", feature = "autodiff"))]
    if let Some(y) = crate::cpu::autodiff::upsample_twice(&x) {
        return y;
    }
    if channels_last(&x) {
        let [b, c, h, w] = x.dims();
        let pixels = x.permute([0, 2, 3, 1]).reshape([b, h, 1, w, 1, c]).expand([b, h, 2, w, 2, c]);
        return pixels.reshape([b, 2 * h, 2 * w, c]).permute([0, 3, 1, 2]);
    }
    plain(x)
}

/// [`upsample_twice`] in burn's own operations.
pub fn plain(x: Tensor<4>) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c, h, 1, w, 1]).expand([b, c, h, 2, w, 2]).reshape([b, c, 2 * h, 2 * w])
}

/// What [`upsample_conv2d`] keeps of a layer from one call to the next; copies share it.
#[derive(Debug, Clone, Default)]
pub struct MergedTaps(#[cfg(all(feature = "gpu-kernels", feature = "gpu"))] merged::Kept);

/// [`conv2d`] of [`upsample_twice`]`(x)` with one pixel of zeros all round: `x` `[b, c_in, h, w]`, `weight` `[c_out, c_in, 3, 3]`,
/// `bias` `[c_out]` -> `[b, c_out, 2 h, 2 w]`.
///
/// Of an enlarged picture's neighbours many are the same pixel. Where the kernel for it is, the taps that meet the same one are added up
/// once (in f32), and each of the four pixels that one becomes is a convolution of 2x2 of the picture itself: 4/9 of the products, and no
/// enlarged picture.
pub fn upsample_conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    taps: &MergedTaps,
) -> Tensor<4> {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if crate::gpu::merges(&x, &weight)
        && let Some(y) = crate::gpu::conv2d_pixels(&x, &taps.0.of(&weight), bias.as_ref(), None)
    {
        return y;
    }
    let _ = taps;
    conv2d(upsample_twice(x), weight, bias, Conv2dOptions { stride: [1, 1], padding: [[1, 1]; 2] })
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;
    use crate::conv2d::plain as convolve;

    /// Whatever the device, it is the convolution of the enlarged picture.
    #[test]
    fn an_enlarged_picture_is_convolved() {
        let device = Device::default();
        let x = seeded_input::<4>("x", [1, 3, 4, 5], &device);
        let weight = seeded_input::<4>("weight", [6, 3, 3, 3], &device);
        let bias = seeded_input::<1>("bias", [6], &device);
        let all_round = Conv2dOptions { stride: [1, 1], padding: [[1, 1]; 2] };
        let expected = convolve(plain(x.clone()), weight.clone(), Some(bias.clone()), all_round);
        let y = upsample_conv2d(x, weight, Some(bias), &MergedTaps::default());
        assert_close("y", &y, &expected, 1e-5);
    }
}

//! Enlargement before a convolution.

use burn::tensor::Tensor;

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

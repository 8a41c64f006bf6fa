//! Enlargement before a convolution.

use burn::tensor::Tensor;

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
    plain(x)
}

/// [`upsample_twice`] in burn's own operations.
pub fn plain(x: Tensor<4>) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c, h, 1, w, 1]).expand([b, c, h, 2, w, 2]).reshape([b, c, 2 * h, 2 * w])
}

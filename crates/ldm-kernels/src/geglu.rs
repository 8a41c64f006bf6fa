//! The gate of a transformer's feed-forward layer.

use burn::tensor::{Tensor, activation};

/// `a * gelu(b)`, where `a` and `b` are the halves of the last axis: `[.., 2 c] -> [.., c]`.
///
/// Source: `GEGLU` in the reference's `attention.py` (Shazeer 2020).
pub fn geglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(y) = crate::cpu::geglu(&x) {
        return y;
    }
    #[cfg(all(feature = "flex", feature = "autodiff"))]
    if let Some(y) = crate::cpu::autodiff::geglu(&x) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(y) = crate::gpu::geglu(&x) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu", feature = "autodiff"))]
    if let Some(y) = crate::gpu::autodiff::geglu(&x) {
        return y;
    }
    plain(x)
}

/// [`geglu`] in burn's own operations.
pub fn plain<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let width = x.dims()[D - 1] / 2;
    let gate = activation::gelu(x.clone().narrow(D - 1, width, width));
    x.narrow(D - 1, 0, width) * gate
}

//! Layer normalisation.

use burn::tensor::{DType, Tensor};

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last axis, mean and variance in f32 at least.
///
/// `x` `[.., c]`, `weight` and `bias` `[c]`; gives `x`'s shape and type.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(y) = crate::cpu::layer_norm(&x, &weight, &bias, eps) {
        return y;
    }
    #[cfg(all(feature = "flex", feature = "autodiff"))]
    if let Some(y) = crate::cpu::autodiff::layer_norm(&x, &weight, &bias, eps) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(y) = crate::gpu::layer_norm(&x, &weight, &bias, eps) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu", feature = "autodiff"))]
    if let Some(y) = crate::gpu::autodiff::layer_norm(&x, &weight, &bias, eps) {
        return y;
    }
    plain(x, weight, bias, eps)
}

/// [`layer_norm`] in burn's own operations.
pub fn plain<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let dtype = x.dtype();
    // Half precision can hold neither a sum of squares nor a small variance.
    let x = if matches!(dtype, DType::F16 | DType::BF16) { x.cast(DType::F32) } else { x };
    let x = x.clone().sub(x.mean_dim(D - 1));
    let var = x.clone().square().mean_dim(D - 1);
    let x = x.div(var.add_scalar(eps).sqrt()).cast(dtype);
    x.mul(weight.unsqueeze()).add(bias.unsqueeze())
}

//! Group normalisation, alone or with the SiLU that follows it in every residual block.

use burn::tensor::{DType, Tensor, activation};

/// What [`group_norm`] needs beside its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNormOptions {
    /// How many groups the channels form; divides them.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Whether `x * sigmoid(x)` follows.
    pub silu: bool,
}

/// `(x - mean) / sqrt(var + eps) * weight + bias`, mean and variance over each group of channels, in f32 at least.
///
/// `x` `[b, c, ..]`, `weight` and `bias` `[c]`; gives `x`'s shape and type.
pub fn group_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    options: GroupNormOptions,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(y) = crate::cpu::group_norm(&x, &weight, &bias, options) {
        return y;
    }
    #[cfg(all(feature = "flex", feature = "autodiff"))]
    if let Some(y) = crate::cpu::autodiff::group_norm(&x, &weight, &bias, options) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(y) = crate::gpu::group_norm(&x, &weight, &bias, options) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu", feature = "autodiff"))]
    if let Some(y) = crate::gpu::autodiff::group_norm(&x, &weight, &bias, options) {
        return y;
    }
    plain(x, weight, bias, options)
}

/// [`group_norm`] in burn's own operations.
pub fn plain<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    options: GroupNormOptions,
) -> Tensor<D> {
    let GroupNormOptions { groups, eps, silu } = options;
    let (shape, dtype) = (x.shape(), x.dtype());
    let (b, c) = (shape[0], shape[1]);
    let rest: usize = shape[2..].iter().product();
    let x = x.reshape([b, groups, c / groups * rest]);
    // Half precision can hold neither a sum of squares nor a small variance.
    let x = if matches!(dtype, DType::F16 | DType::BF16) { x.cast(DType::F32) } else { x };
    let x = x.clone().sub(x.mean_dim(2));
    let var = x.clone().square().mean_dim(2);
    let x = x.div(var.add_scalar(eps).sqrt()).cast(dtype).reshape([b, c, rest]);
    let y = x.mul(weight.reshape([1, c, 1])).add(bias.reshape([1, c, 1])).reshape(shape);
    if silu { activation::silu(y) } else { y }
}

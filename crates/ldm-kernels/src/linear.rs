//! A linear layer with the weight as PyTorch keeps it.

use burn::tensor::{Tensor, module};

/// `x W^T + bias`: `x` `[.., d_input]`, `weight` `[d_output, d_input]`, `bias` `[d_output]` -> `[.., d_output]`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(y) = crate::cpu::linear(&x, &weight, bias.as_ref()) {
        return y;
    }
    #[cfg(all(feature = "flex", feature = "autodiff"))]
    if let Some(y) = crate::cpu::autodiff::linear(&x, &weight, bias.as_ref()) {
        return y;
    }
    plain(x, weight, bias)
}

/// [`linear`] in burn's own operations.
pub fn plain<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    module::linear(x, weight.transpose(), bias)
}

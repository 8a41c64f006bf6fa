//! A linear layer with the weight as PyTorch keeps it.

use burn::tensor::{Tensor, module};

use crate::layout::{channels_last, to_map, to_tokens};

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
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(y) = crate::gpu::linear(&x, &weight, bias.as_ref(), None) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu", feature = "autodiff"))]
    if let Some(y) = crate::gpu::autodiff::linear(&x, &weight, bias.as_ref(), None) {
        return y;
    }
    plain(x, weight, bias)
}

/// [`linear`] plus `addend` `[.., d_output]`, a residual connection: in the pass that writes the result, where a kernel
/// has it.
pub fn linear_add<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    addend: Tensor<D>,
) -> Tensor<D> {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(y) = crate::gpu::linear(&x, &weight, bias.as_ref(), Some(&addend)) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu", feature = "autodiff"))]
    if let Some(y) = crate::gpu::autodiff::linear(&x, &weight, bias.as_ref(), Some(&addend)) {
        return y;
    }
    addend + linear(x, weight, bias)
}

/// [`geglu`](crate::geglu()) of a layer's output, a transformer's feed-forward layer on its way in: `x` `[.., d_input]` ->
/// `[.., d_output / 2]`. In the pass that writes the result, where a kernel has it.
pub fn linear_geglu<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(y) = crate::gpu::linear_geglu(&x, &weight, bias.as_ref(), None) {
        return y;
    }
    crate::geglu(linear(x, weight, bias))
}

/// Several layers of one input without bias, Q, K and V of an attention: weights `[d_output, d_input]`, `x` `[.., d_input]` ->
/// `[.., d_output]` each. One product where a GPU's kernel takes weights that are [laid together](laid_together).
pub fn linear_together<const D: usize, const N: usize>(
    x: Tensor<D>,
    weights: [Tensor<2>; N],
) -> [Tensor<D>; N] {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(outputs) = crate::gpu::linear_together(&x, &weights, None) {
        return outputs;
    }
    weights.map(|weight| linear(x.clone(), weight, None))
}

/// The same weights, of one shape and type, one after the other in memory where that makes
/// [`linear_together`] faster: to be called once, when weights are made. Elsewhere they come back as they are.
pub fn laid_together<const N: usize>(weights: [Tensor<2>; N]) -> [Tensor<2>; N] {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(laid) = crate::gpu::laid_together(&weights) {
        return laid;
    }
    weights
}

/// Several layers, weight and bias, of one small input `x` `[rows, d_input]`: their outputs `[rows, d_output]`, all from one
/// launch where a GPU's kernel takes them.
pub fn linear_layers(x: Tensor<2>, layers: Vec<(Tensor<2>, Option<Tensor<1>>)>) -> Vec<Tensor<2>> {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if crate::gpu::takes_linear_layers(&x, &layers) {
        return crate::gpu::linear_layers(x, layers);
    }
    layers.into_iter().map(|(weight, bias)| linear(x.clone(), weight, bias)).collect()
}

/// `addend` `[b, d_output, h, w]` plus the layer of tokens `[b, h * w, d_input]`: a transformer's way back to its map.
pub fn linear_to_map(
    tokens: Tensor<3>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    addend: Tensor<4>,
) -> Tensor<4> {
    let shape = addend.dims();
    if channels_last(&addend) {
        return to_map(linear_add(tokens, weight, bias, to_tokens(addend)), shape);
    }
    addend + to_map(linear(tokens, weight, bias), shape)
}

/// [`linear`] in burn's own operations.
pub fn plain<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    module::linear(x, weight.transpose(), bias)
}

//! The gradients of a linear layer: those of a convolution with a kernel of one pixel.

use burn::tensor::Tensor;

use super::super::bridge::client;
use super::super::conv2d::{Work, work};
use super::super::takes_linear;
use super::{convolve, node, value};
use crate::conv2d::Conv2dOptions;

/// See [`crate::linear`]; `None` where the kernel does not take the tensors.
pub fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    if !takes_linear(x, weight, bias, None) {
        return None;
    }
    let work = work(&client(&value(&node(x)?)?), x.dtype())?;
    project(x, weight, bias, work)
}

/// The linear layer of tensors that the kernel takes, by `work`. The graph records the views as burn's own.
pub fn project<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    work: Work,
) -> Option<Tensor<D>> {
    let ([outputs, inputs], mut shape) = (weight.dims(), x.dims());
    let rows = x.shape().num_elements() / inputs;
    shape[D - 1] = outputs;
    let x = x.clone().reshape([1, 1, rows, inputs]).permute([0, 3, 1, 2]);
    let weight = weight.clone().reshape([outputs, inputs, 1, 1]);
    let options = Conv2dOptions { stride: [1, 1], padding: [[0, 0]; 2] };
    let y = convolve(node(&x)?, node(&weight)?, bias.map(node), options, work)?;
    Some(y.permute([0, 2, 3, 1]).reshape(shape))
}

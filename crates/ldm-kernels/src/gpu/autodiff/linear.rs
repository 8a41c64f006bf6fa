//! The gradients of a linear layer: those of a convolution with a kernel of one pixel.

use burn::tensor::Tensor;

use super::super::bridge::client;
use super::super::conv2d::{Work, work};
use super::super::takes_linear;
use super::conv2d::{More, convolve, given};
use super::{node, value};
use crate::conv2d::Conv2dOptions;

/// See [`crate::linear`]; `None` where the kernel does not take the tensors.
pub fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    addend: Option<&Tensor<D>>,
) -> Option<Tensor<D>> {
    if !takes_linear(x, weight, bias, addend) {
        return None;
    }
    let work = work(&client(&value(&node(x)?)?), x.dtype())?;
    project(x, weight, bias, addend, work)
}

/// The linear layer of tensors that the kernel takes, by `work`. The graph records the views as burn's own.
pub fn project<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    addend: Option<&Tensor<D>>,
    work: Work,
) -> Option<Tensor<D>> {
    let ([outputs, inputs], mut shape) = (weight.dims(), x.dims());
    let rows = x.shape().num_elements() / inputs;
    shape[D - 1] = outputs;
    let x = x.clone().reshape([1, 1, rows, inputs]).permute([0, 3, 1, 2]);
    let weight = weight.clone().reshape([outputs, inputs, 1, 1]);
    let options = Conv2dOptions { stride: [1, 1], padding: [[0, 0]; 2] };
    let addend = addend.map(|y| y.clone().reshape([1, 1, rows, outputs]).permute([0, 3, 1, 2]));
    let more = More { bias: given(bias)?, shift: None, addend: given(addend.as_ref())? };
    let y = convolve(node(&x)?, node(&weight)?, more, options, work)?;
    Some(y.permute([0, 2, 3, 1]).reshape(shape))
}

//! The gradients of a convolution.

use burn::backend::TensorMetadata;
use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{FloatDType, Shape, Tensor};

use super::super::bridge::{Gpu, Primitive, client};
use super::super::conv2d::{Added, Convolution, Work, input_padding, work};
use super::super::ops::Kernels;
use super::super::takes_conv2d;
use super::{Gradient, Node, node, record, value};
use crate::conv2d::Conv2dOptions;

/// See [`crate::conv2d`]; `None` where the kernel does not take the tensors.
pub fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
) -> Option<Tensor<4>> {
    if !takes_conv2d(x, weight, bias, options, None) {
        return None;
    }
    let input = node(x)?;
    let work = work(&client(&value(&input)?), x.dtype())?;
    convolve(input, node(weight)?, bias.map(node), options, work)
}

/// The convolution of tensors that the kernel takes, by `work`.
pub fn convolve(
    x: Node,
    weight: Node,
    bias: Option<Option<Node>>,
    options: Conv2dOptions,
    work: Work,
) -> Option<Tensor<4>> {
    let (input, weights) = (value(&x)?, value(&weight)?);
    let added = Added { bias: bias.is_some(), ..Added::default() };
    let convolution = Convolution { added, ..Convolution::new(options, work) };
    let saved = Conv2d { x: input.clone(), weight: weights.clone(), convolution };
    let Some(bias) = bias else {
        let y = <Gpu as Kernels>::conv2d(
            input,
            weights.clone(),
            weights.clone(),
            weights.clone(),
            weights,
            convolution,
        );
        return record([&x, &weight], y, saved);
    };
    let bias = bias?;
    let y = <Gpu as Kernels>::conv2d(
        input,
        weights.clone(),
        value(&bias)?,
        weights.clone(),
        weights,
        convolution,
    );
    record([&x, &weight, &bias], y, saved)
}

#[derive(Debug, Clone)]
struct Conv2d {
    x: Primitive,
    weight: Primitive,
    convolution: Convolution,
}

impl<const N: usize> Gradient<N> for Conv2d {
    fn gradients(self, output: Primitive, wanted: [bool; N]) -> [Option<Primitive>; N] {
        std::array::from_fn(|i| {
            wanted[i].then(|| match i {
                0 => self.input(output.clone()),
                1 => {
                    let (x, weight) = (self.x.clone(), self.weight.clone());
                    Gpu::conv2d_weight_gradient(x, weight, output.clone(), self.convolution)
                }
                _ => channels(output.clone(), self.convolution.work),
            })
        })
    }
}

impl Conv2d {
    /// The output's gradient, spread out by the stride, convolved with the mirrored weights.
    fn input(&self, output: Primitive) -> Primitive {
        let Self { x, weight, convolution } = self.clone();
        let options = convolution.options;
        let [x_dims, w_dims, y_dims] = [&x, &weight, &output].map(|x| x.shape().dims::<4>());
        let Some(padding) = input_padding(x_dims, w_dims, y_dims, options) else {
            return wide(x, weight, output, options);
        };
        let weight = Gpu::float_swap_dims(weight, 0, 1);
        let options = Conv2dOptions { stride: [1, 1], padding };
        let convolution = Convolution {
            spread: self.convolution.options.stride,
            mirrored: true,
            ..Convolution::new(options, convolution.work)
        };
        <Gpu as Kernels>::conv2d(output, weight.clone(), weight.clone(), weight.clone(), weight, convolution)
    }
}

/// The input's gradient where padding is wider than the kernel reaches: rare enough for burn's own, in f32, since
/// burn adds up in f16 on some devices.
fn wide(x: Primitive, weight: Primitive, output: Primitive, options: Conv2dOptions) -> Primitive {
    let padding = options.padding.map(|[before, after]| (before, after));
    let options = ConvOptions::new_with_padding(options.stride, padding, [1, 1], 1);
    let dtype = x.dtype();
    let [x, weight, output] = [x, weight, output].map(|x| Gpu::float_cast(x, FloatDType::F32));
    let dx = <Gpu as ModuleOps<Gpu>>::conv2d_x_backward(x, weight, output, options);
    Gpu::float_cast(dx, dtype.into())
}

/// `[b, c, h, w]` added up to `[c]`: the gradient of the weights that a picture of ones had, which reads it once and adds
/// up in f32.
fn channels(gradient: Primitive, work: Work) -> Primitive {
    let ([b, c, h, w], device) = (gradient.shape().dims::<4>(), gradient.device());
    let dtype = FloatDType::from(gradient.dtype());
    let ones = Gpu::float_ones(Shape::from([1, 1, 1, 1]), &device, dtype);
    let ones = Gpu::float_expand(ones, Shape::from([b, 1, h, w]));
    // Of the weights only the shape counts.
    let weight = Gpu::float_empty(Shape::from([c, 1, 1, 1]), &device, dtype);
    let options = Conv2dOptions { stride: [1, 1], padding: [[0, 0]; 2] };
    let sums = Gpu::conv2d_weight_gradient(ones, weight, gradient, Convolution::new(options, work));
    Gpu::float_reshape(sums, Shape::from([c]))
}

//! The gradients of a convolution.

use burn::backend::TensorMetadata;
use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{FloatDType, Tensor};

use super::super::bridge::{Gpu, Primitive, client};
use super::super::conv2d::{Added, Convolution, Work, input_padding, work};
use super::super::ops::Kernels;
use super::super::{takes_conv2d, takes_shift};
use super::{Gradient, Node, node, record, value};
use crate::conv2d::Conv2dOptions;

/// See [`crate::conv2d`], [`crate::conv2d_shift`] and [`crate::conv2d_add`]; `None` where the kernel does not take the tensors.
pub fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
    shift: Option<&Tensor<2>>,
    addend: Option<&Tensor<4>>,
) -> Option<Tensor<4>> {
    if !takes_conv2d(x, weight, bias, options, addend) || !takes_shift(x, weight, shift) {
        return None;
    }
    let input = node(x)?;
    let work = work(&client(&value(&input)?), x.dtype())?;
    let more = More { bias: given(bias)?, shift: given(shift)?, addend: given(addend)? };
    convolve(input, node(weight)?, more, options, work)
}

/// What is added to a convolution.
#[derive(Default)]
pub struct More {
    /// One value a channel.
    pub bias: Option<Node>,
    /// One value a picture and channel.
    pub shift: Option<Node>,
    /// One value an element.
    pub addend: Option<Node>,
}

/// The node of what may be there; the outer `None` where it is on another device.
pub fn given<const D: usize>(x: Option<&Tensor<D>>) -> Option<Option<Node>> {
    match x {
        Some(x) => node(x).map(Some),
        None => Some(None),
    }
}

/// An input of a convolution.
#[derive(Debug, Clone, Copy)]
enum Input {
    Picture,
    Weight,
    Bias,
    Shift,
    Addend,
}

/// The convolution of tensors that the kernel takes, by `work`.
pub fn convolve(x: Node, weight: Node, more: More, options: Conv2dOptions, work: Work) -> Option<Tensor<4>> {
    let (input, weights) = (value(&x)?, value(&weight)?);
    let More { bias, shift, addend } = more;
    let added = Added { bias: bias.is_some(), shift: shift.is_some(), addend: addend.is_some() };
    let convolution = Convolution { added, ..Convolution::new(options, work) };
    // The weights stand in for what isn't there.
    let [b, s, a] = [&bias, &shift, &addend].map(|x| x.as_ref().map_or(Some(weights.clone()), value));
    let y = <Gpu as Kernels>::conv2d(input.clone(), weights.clone(), b?, s?, a?, convolution);

    let more = [(Input::Bias, bias), (Input::Shift, shift), (Input::Addend, addend)];
    let more = more.into_iter().filter_map(|(input, node)| Some((input, node?)));
    let (inputs, nodes): (Vec<_>, Vec<_>) =
        [(Input::Picture, x), (Input::Weight, weight)].into_iter().chain(more).unzip();
    let saved = Conv2d { x: input, weight: weights, convolution, inputs };
    match &nodes[..] {
        [a, b] => record([a, b], y, saved),
        [a, b, c] => record([a, b, c], y, saved),
        [a, b, c, d] => record([a, b, c, d], y, saved),
        [a, b, c, d, e] => record([a, b, c, d, e], y, saved),
        _ => None,
    }
}

#[derive(Debug, Clone)]
struct Conv2d {
    x: Primitive,
    weight: Primitive,
    convolution: Convolution,
    /// In the order in which they were recorded.
    inputs: Vec<Input>,
}

impl<const N: usize> Gradient<N> for Conv2d {
    fn gradients(self, output: Primitive, wanted: [bool; N]) -> [Option<Primitive>; N] {
        std::array::from_fn(|i| {
            wanted[i].then(|| match self.inputs[i] {
                Input::Picture => self.input(output.clone()),
                Input::Weight => {
                    let (x, weight) = (self.x.clone(), self.weight.clone());
                    Gpu::conv2d_weight_gradient(x, weight, output.clone(), self.convolution)
                }
                Input::Bias => Gpu::channel_sums(output.clone(), false),
                Input::Shift => Gpu::channel_sums(output.clone(), true),
                Input::Addend => output.clone(),
            })
        })
    }
}

impl Conv2d {
    /// The output's gradient, spread out by the stride, convolved with the mirrored weights.
    fn input(&self, output: Primitive) -> Primitive {
        let Self { x, weight, convolution, .. } = self.clone();
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

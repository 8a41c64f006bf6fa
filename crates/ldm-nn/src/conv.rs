use burn::module::{Module, Param};
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor};
use ldm_kernels::{
    Conv2dOptions, MergedTaps, conv2d, conv2d_add, conv2d_shift, upsample_conv2d, upsample_twice,
};

use crate::linear::initializer;

/// Zero padding of a convolution, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same padding on all four sides.
    pub const fn all(n: usize) -> Self {
        Self { top: n, bottom: n, left: n, right: n }
    }

    /// Below and to the right only: how a first stage's downsampling pads (`(0, 1, 0, 1)` in the
    /// reference's `model.py`).
    pub const fn end(n: usize) -> Self {
        Self { top: 0, bottom: n, left: 0, right: n }
    }
}

/// Configures a [`Conv2d`].
#[derive(Debug, Clone)]
pub struct Conv2dConfig {
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: Padding,
    bias: bool,
    zero: bool,
}

/// A 2-d convolution with a square kernel.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[c_out, c_in, k, k]`.
    pub weight: Param<Tensor<4>>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    padding: Padding,
    /// Where it convolves an enlarged map.
    #[module(skip)]
    merged: MergedTaps,
}

impl Conv2dConfig {
    /// `channels` is `[c_in, c_out]`; stride 1, with bias, and padding that keeps the size (`kernel / 2`).
    pub fn new(channels: [usize; 2], kernel: usize) -> Self {
        Self { channels, kernel, stride: 1, padding: Padding::all(kernel / 2), bias: true, zero: false }
    }

    /// Sets the stride of both axes.
    pub fn with_stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// Sets the padding.
    pub fn with_padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// Whether the layer adds a bias (default: true).
    pub fn with_bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Starts with all parameters zero (`zero_module` of the reference's `util.py`).
    pub fn with_zero_init(mut self, zero: bool) -> Self {
        self.zero = zero;
        self
    }

    /// Creates the layer; parameters are made lazily, with PyTorch's default initialisation.
    pub fn init(&self, device: &Device) -> Conv2d {
        let [c_in, c_out] = self.channels;
        let area = self.kernel * self.kernel;
        let init = initializer(self.zero);
        let (fan_in, fan_out) = (Some(c_in * area), Some(c_out * area));
        Conv2d {
            weight: init.init_with([c_out, c_in, self.kernel, self.kernel], fan_in, fan_out, device),
            bias: self.bias.then(|| init.init_with([c_out], fan_in, fan_out, device)),
            stride: self.stride,
            padding: self.padding,
            merged: MergedTaps::default(),
        }
    }
}

impl Conv2d {
    /// `[b, c_in, h, w] -> [b, c_out, h', w']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        conv2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.options())
    }

    /// `forward(x) + addend`, which has the result's shape: one pass over the result where there is a kernel for it.
    pub fn forward_add(&self, x: Tensor<4>, addend: Tensor<4>) -> Tensor<4> {
        conv2d_add(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.options(), addend)
    }

    /// `forward(x)` plus one value a picture and channel, `shift` `[b, c_out]`: with the bias where there is a kernel for it.
    pub fn forward_shift(&self, x: Tensor<4>, shift: Tensor<2>) -> Tensor<4> {
        conv2d_shift(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.options(), shift)
    }

    /// [`forward`](Self::forward) of [`upsample_nearest`] to twice the size: `[b, c_in, h, w] -> [b, c_out, h', w']`. Where there is a
    /// kernel for it, a 3x3 convolution that keeps the size reads the map as it is.
    pub fn forward_upsampled(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let keeps = weight.dims()[2..] == [3, 3] && self.stride == 1 && self.padding == Padding::all(1);
        if !keeps {
            return self.forward(upsample_twice(x));
        }
        upsample_conv2d(x, weight, self.bias.as_ref().map(Param::val), &self.merged)
    }

    fn options(&self) -> Conv2dOptions {
        let Padding { top, bottom, left, right } = self.padding;
        Conv2dOptions { stride: [self.stride; 2], padding: [[top, bottom], [left, right]] }
    }

    /// `[c_in, c_out]`.
    pub fn channels(&self) -> [usize; 2] {
        let shape = self.weight.lazy_shape();
        [shape[1], shape[0]]
    }
}

/// Nearest-neighbour enlargement to `size` (`[h, w]`), as `torch.nn.functional.interpolate` does it.
pub fn upsample_nearest(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, h, w] = x.dims();
    if size == [2 * h, 2 * w] {
        return upsample_twice(x);
    }
    let options =
        InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size).with_align_corners(false);
    interpolate(x, options)
}

#[cfg(test)]
mod tests {
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;

    /// What the kernel would take, and other kernels, strides and padding.
    #[test]
    fn an_enlarged_map_is_convolved() {
        let device = Device::default();
        let x = seeded_input::<4>("x", [2, 3, 4, 5], &device);
        let plain = Conv2dConfig::new([3, 4], 3);
        for config in [
            plain.clone(),
            plain.clone().with_bias(false),
            plain.clone().with_stride(2),
            plain.with_padding(Padding::end(2)),
            Conv2dConfig::new([3, 4], 1),
        ] {
            let conv = config.init(&device);
            let expected = conv.forward(upsample_nearest(x.clone(), [8, 10]));
            assert_close(&format!("{config:?}"), &conv.forward_upsampled(x.clone()), &expected, 1e-6);
        }
    }
}

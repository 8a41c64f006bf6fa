use burn::module::{Initializer, Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use ldm_nn::{Conv2dOptions, conv2d};

/// Convolution without bias, batch norm with fixed statistics, ReLU: torchvision's `BasicConv2d`.
#[derive(Module, Debug)]
pub struct BasicConv2d {
    conv: Kernel,
    bn: BatchNorm,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    padding: [usize; 2],
}

#[derive(Module, Debug)]
struct Kernel {
    weight: Param<Tensor<4>>,
}

/// Running statistics are parameters here, so that they are loaded by their names.
#[derive(Module, Debug)]
struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
}

const EPS: f64 = 1e-3;

impl BasicConv2d {
    /// `[c_in, c_out]`; kernel and padding as `[height, width]`.
    pub fn new(
        c: [usize; 2],
        kernel: [usize; 2],
        stride: usize,
        padding: [usize; 2],
        device: &Device,
    ) -> Self {
        let vector = |init: Initializer| init.init([c[1]], device);
        Self {
            conv: Kernel { weight: Initializer::Zeros.init([c[1], c[0], kernel[0], kernel[1]], device) },
            bn: BatchNorm {
                weight: vector(Initializer::Ones),
                bias: vector(Initializer::Zeros),
                running_mean: vector(Initializer::Zeros),
                running_var: vector(Initializer::Ones),
            },
            stride,
            padding,
        }
    }

    /// `[b, c_in, h, w] -> [b, c_out, h', w']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        // The norm is a scale and a shift: they go into the kernel and a bias.
        let scale = self.bn.weight.val() / (self.bn.running_var.val() + EPS).sqrt();
        let shift = self.bn.bias.val() - self.bn.running_mean.val() * scale.clone();
        let c = scale.dims()[0];
        let weight = self.conv.weight.val() * scale.reshape([c, 1, 1, 1]);
        let padding = self.padding.map(|n| [n, n]);
        relu(conv2d(x, weight, Some(shift), Conv2dOptions { stride: [self.stride; 2], padding }))
    }
}

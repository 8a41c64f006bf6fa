use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use ldm_kernels::{GroupNormOptions, group_norm, layer_norm};

/// Configures a [`GroupNorm`].
#[derive(Debug, Clone)]
pub struct GroupNormConfig {
    groups: usize,
    channels: usize,
    eps: f64,
}

/// Group normalisation; its statistics are taken in f32 whatever the input's type.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// `[channels]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    eps: f64,
}

impl GroupNormConfig {
    /// `groups` must divide `channels`: a config that comes from outside is checked by its model.
    pub fn new(groups: usize, channels: usize, eps: f64) -> Self {
        Self { groups, channels, eps }
    }

    /// Creates the layer with weight 1 and bias 0.
    pub fn init(&self, device: &Device) -> GroupNorm {
        GroupNorm {
            weight: Initializer::Ones.init([self.channels], device),
            bias: Initializer::Zeros.init([self.channels], device),
            groups: self.groups,
            eps: self.eps,
        }
    }
}

impl GroupNorm {
    /// `[b, c, ..] -> [b, c, ..]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.apply(x, false)
    }

    /// `silu(group_norm(x))`: the pair that opens every residual half-block.
    pub fn forward_silu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.apply(x, true)
    }

    fn apply<const D: usize>(&self, x: Tensor<D>, silu: bool) -> Tensor<D> {
        let options = GroupNormOptions { groups: self.groups, eps: self.eps, silu };
        group_norm(x, self.weight.val(), self.bias.val(), options)
    }
}

/// Configures a [`LayerNorm`].
#[derive(Debug, Clone)]
pub struct LayerNormConfig {
    d_model: usize,
    eps: f64,
}

/// Layer normalisation over the last axis; its statistics are taken in f32.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[d_model]`.
    pub weight: Param<Tensor<1>>,
    /// `[d_model]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl LayerNormConfig {
    /// Width `d_model`, eps 1e-5 (PyTorch's default).
    pub fn new(d_model: usize) -> Self {
        Self { d_model, eps: 1e-5 }
    }

    /// Sets the value added to the variance.
    pub fn with_eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Creates the layer with weight 1 and bias 0.
    pub fn init(&self, device: &Device) -> LayerNorm {
        LayerNorm {
            weight: Initializer::Ones.init([self.d_model], device),
            bias: Initializer::Zeros.init([self.d_model], device),
            eps: self.eps,
        }
    }
}

impl LayerNorm {
    /// `[.., d_model] -> [.., d_model]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

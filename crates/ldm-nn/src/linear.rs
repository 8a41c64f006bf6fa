use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use ldm_kernels::{linear, linear_add, linear_geglu, linear_layers, linear_to_map, linear_together};

/// Configures a [`Linear`] layer.
#[derive(Debug, Clone)]
pub struct LinearConfig {
    d_input: usize,
    d_output: usize,
    bias: bool,
    zero: bool,
}

/// `y = x W^T + b`, with the weight stored as PyTorch stores it.
///
/// burn's own `Linear` keeps `[d_input, d_output]`; keeping PyTorch's order means that a weight file
/// is copied as it is, in both directions.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_output, d_input]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl LinearConfig {
    /// A layer from `d_input` to `d_output` features, with bias.
    pub fn new(d_input: usize, d_output: usize) -> Self {
        Self { d_input, d_output, bias: true, zero: false }
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
    pub fn init(&self, device: &Device) -> Linear {
        let init = initializer(self.zero);
        let (fan_in, fan_out) = (Some(self.d_input), Some(self.d_output));
        Linear {
            weight: init.init_with([self.d_output, self.d_input], fan_in, fan_out, device),
            bias: self.bias.then(|| init.init_with([self.d_output], fan_in, fan_out, device)),
        }
    }
}

impl Linear {
    /// `[.., d_input] -> [.., d_output]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    /// `addend + forward(x)`: one pass over the result where there is a kernel for it.
    pub fn forward_add<const D: usize>(&self, x: Tensor<D>, addend: Tensor<D>) -> Tensor<D> {
        linear_add(x, self.weight.val(), self.bias.as_ref().map(Param::val), addend)
    }

    /// [`geglu`](crate::geglu()) of `forward(x)`, `[.., d_output / 2]`: one pass where there is a kernel for it.
    pub fn forward_geglu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        linear_geglu(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    /// Several layers without bias of one input `[.., d_input]`, Q, K and V of an attention: each one's `[.., d_output]`. One
    /// product where there is a kernel for weights that are
    /// [laid together](crate::weights::attentions_together).
    pub fn forward_together<const D: usize, const N: usize>(
        layers: [&Self; N],
        x: Tensor<D>,
    ) -> [Tensor<D>; N] {
        if layers.iter().any(|layer| layer.bias.is_some()) {
            return layers.map(|layer| layer.forward(x.clone()));
        }
        linear_together(x, layers.map(|layer| layer.weight.val()))
    }

    /// Several layers of one small input `[rows, d_input]`: each one's `[rows, d_output]`, all at once where there is a kernel
    /// for it.
    pub fn forward_each<'a>(layers: impl IntoIterator<Item = &'a Self>, x: Tensor<2>) -> Vec<Tensor<2>> {
        let parameters = |layer: &Self| (layer.weight.val(), layer.bias.as_ref().map(Param::val));
        linear_layers(x, layers.into_iter().map(parameters).collect())
    }

    /// `addend + forward(tokens)`, tokens `[b, h * w, d_input]` becoming the map's pixels, `[b, d_output, h, w]`.
    pub fn forward_to_map(&self, tokens: Tensor<3>, addend: Tensor<4>) -> Tensor<4> {
        linear_to_map(tokens, self.weight.val(), self.bias.as_ref().map(Param::val), addend)
    }
}

/// PyTorch's default for convolutions and linear layers, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), or zeros.
pub(crate) fn initializer(zero: bool) -> Initializer {
    if zero {
        Initializer::Zeros
    } else {
        Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }
    }
}

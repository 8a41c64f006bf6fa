//! The PatchGAN discriminator of the first stage's training.

mod batch_norm;

pub use batch_norm::BatchNorm2d;

use burn::module::{Initializer, Module};
use burn::tensor::{DType, Device, Tensor, activation};
use ldm_nn::weights::Entry;
use ldm_nn::{Conv2d, Conv2dConfig, Padding};

/// A convolutional network that says of each patch of a picture whether it is real.
///
/// Source: `NLayerDiscriminator` in taming's discriminator/model.py (Isola et al. 2017), with batch normalisation.
/// In a file its parameters are called `main.0.weight`, ...: see [`names`](Self::names).
#[derive(Module, Debug)]
pub struct NLayerDiscriminator {
    /// `input_nc -> ndf`, stride 2.
    pub conv_in: Conv2d,
    /// `n_layers` of them; the last has stride 1.
    pub blocks: Vec<DiscriminatorBlock>,
    /// To one channel, stride 1.
    pub conv_out: Conv2d,
}

/// Convolution and normalisation; the leaky ReLU has no parameters.
#[derive(Module, Debug)]
pub struct DiscriminatorBlock {
    /// 4x4, without bias.
    pub conv: Conv2d,
    /// After it.
    pub norm: BatchNorm2d,
}

/// The shape of an [`NLayerDiscriminator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscriminatorConfig {
    /// Channels of the picture.
    pub input_nc: usize,
    /// Base width.
    pub ndf: usize,
    /// Layers between the first and the last; each doubles the width, up to eight times `ndf`.
    pub n_layers: usize,
}

impl DiscriminatorConfig {
    /// Creates the network: convolutions from N(0, 0.02), their biases as PyTorch's (`weights_init`).
    pub fn init(&self, device: &Device) -> NLayerDiscriminator {
        let width = |i: usize| self.ndf << i.min(3);
        let block = |i: usize| DiscriminatorBlock {
            conv: without_bias(conv([width(i - 1), width(i)], if i < self.n_layers { 2 } else { 1 }, device)),
            norm: BatchNorm2d::new(width(i), device),
        };
        NLayerDiscriminator {
            conv_in: conv([self.input_nc, self.ndf], 2, device),
            blocks: (1..=self.n_layers).map(block).collect(),
            conv_out: conv([width(self.n_layers), 1], 1, device),
        }
    }

    /// The least side of a picture that leaves something to say: each stride-2 layer halves, each stride-1 layer
    /// takes one.
    pub fn least_side(&self) -> usize {
        3 << self.n_layers.max(1)
    }
}

fn conv(channels: [usize; 2], stride: usize, device: &Device) -> Conv2d {
    let config = Conv2dConfig::new(channels, 4).with_stride(stride).with_padding(Padding::all(1));
    let mut conv = config.init(device);
    let normal = Initializer::Normal { mean: 0.0, std: 0.02 };
    conv.weight = normal.init([channels[1], channels[0], 4, 4], device);
    conv
}

fn without_bias(mut conv: Conv2d) -> Conv2d {
    conv.bias = None;
    conv
}

impl NLayerDiscriminator {
    /// `[b, input_nc, h, w]` in [-1, 1] to one logit a patch, `[b, 1, h', w']`: large where it looks real.
    ///
    /// Where the picture is on an autodiff device the batch's statistics are used, and the running ones follow.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let leaky = |x| activation::leaky_relu(x, 0.2);
        let x = leaky(self.conv_in.forward(x));
        let x = self.blocks.iter().fold(x, |x, block| leaky(block.norm.forward(block.conv.forward(x))));
        self.conv_out.forward(x)
    }

    /// The type of the weights.
    pub fn dtype(&self) -> DType {
        self.conv_in.weight.val().dtype()
    }

    /// Where a file of taming's keeps the parameter at `path`: a [`KeyMap`](ldm_nn::weights::KeyMap). In a first
    /// stage's checkpoint the prefix is `loss.discriminator.`.
    pub fn names(&self) -> impl Fn(&str) -> Option<Entry> + use<> {
        let layers = self.blocks.len();
        move |path| {
            let (place, rest) = path.split_once('.')?;
            let key = match place {
                "conv_in" => format!("main.0.{rest}"),
                "conv_out" => format!("main.{}.{rest}", 2 + 3 * layers),
                "blocks" => {
                    let (i, rest) = rest.split_once('.')?;
                    let (layer, parameter) = rest.split_once('.')?;
                    let i: usize = i.parse().ok()?;
                    format!("main.{}.{parameter}", 2 + 3 * i + usize::from(layer == "norm"))
                }
                _ => return None,
            };
            Some(Entry::same(key))
        }
    }

    /// A copy with running statistics of its own, which clones share: for another device.
    pub(crate) fn apart(&self) -> Self {
        self.valid()
    }

    /// The same network, its own parameters without gradients: for the generator's step, which needs the gradient of
    /// the picture alone. Running statistics are shared, so they go on following.
    pub(crate) fn without_gradients(&self) -> Self {
        self.clone().no_grad()
    }
}

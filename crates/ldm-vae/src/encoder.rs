use burn::module::Module;
use burn::tensor::module::avg_pool2d;
use burn::tensor::ops::AvgPoolOptions;
use burn::tensor::{Device, Tensor};
use ldm_nn::{Conv2d, Conv2dConfig, GroupNorm, GroupNormConfig, Padding, ResnetBlock, ResnetBlockConfig};

use crate::{AttentionBlock, DdConfig, Middle};

/// Added to the variance by every group norm of a first stage.
pub(crate) const EPS: f64 = 1e-6;

/// The network E: a picture to the moments (or the raw latent) before `quant_conv`.
///
/// Source: paper, section 3.1; `Encoder` in the reference's `model.py` and in diffusers' `vae.py`.
#[derive(Module, Debug)]
pub struct Encoder {
    /// Picture to the base width.
    pub conv_in: Conv2d,
    /// Levels, largest size first.
    pub down: Vec<DownLevel>,
    /// At the smallest size.
    pub mid: Middle,
    /// Before the last convolution.
    pub norm_out: GroupNorm,
    /// To `z_channels`, twice that with `double_z`.
    pub conv_out: Conv2d,
}

/// One level of an [`Encoder`].
#[derive(Module, Debug)]
pub struct DownLevel {
    /// `num_res_blocks` of them.
    pub resnets: Vec<ResnetBlock>,
    /// One after each residual block, or none.
    pub attentions: Vec<AttentionBlock>,
    /// Absent on the last level.
    pub downsample: Option<Downsample>,
}

/// Halves both sides.
#[derive(Module, Debug)]
pub struct Downsample {
    /// Stride 2, padded below and to the right only; without it, average pooling.
    pub conv: Option<Conv2d>,
}

impl Encoder {
    /// Creates the network; `config` has been validated.
    pub(crate) fn new(config: &DdConfig, device: &Device) -> Self {
        let (levels, groups) = (config.levels(), config.norm_num_groups);
        let resnet = |channels| {
            ResnetBlockConfig::new(channels, groups, EPS).with_dropout(config.dropout).init(device)
        };
        let mut c = config.ch;
        let mut down = Vec::with_capacity(levels);
        for (i, has_attention) in config.attention_in_encoder().into_iter().enumerate() {
            let c_out = config.channels(i);
            let mut level = DownLevel { resnets: Vec::new(), attentions: Vec::new(), downsample: None };
            for _ in 0..config.num_res_blocks {
                level.resnets.push(resnet([c, c_out]));
                if has_attention {
                    level.attentions.push(AttentionBlock::new(c_out, groups, device));
                }
                c = c_out;
            }
            if i + 1 < levels {
                level.downsample = Some(Downsample::new(c, config.resamp_with_conv, device));
            }
            down.push(level);
        }
        let moments = if config.double_z { 2 * config.z_channels } else { config.z_channels };
        Self {
            conv_in: Conv2dConfig::new([config.in_channels, config.ch], 3).init(device),
            down,
            mid: Middle::new(config, device),
            norm_out: GroupNormConfig::new(groups, c, EPS).init(device),
            conv_out: Conv2dConfig::new([c, moments], 3).init(device),
        }
    }

    /// `[b, in_channels, h, w] -> [b, z_channels (twice with double_z), h/f, w/f]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.down.iter().fold(self.conv_in.forward(x), |x, level| level.forward(x));
        let x = self.mid.forward(x);
        self.conv_out.forward(self.norm_out.forward_silu(x))
    }
}

impl DownLevel {
    /// `[b, c, h, w] -> [b, c', h/2, w/2]`, the size unchanged on the last level.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = through_blocks(&self.resnets, &self.attentions, x);
        match &self.downsample {
            Some(downsample) => downsample.forward(x),
            None => x,
        }
    }
}

impl Downsample {
    fn new(channels: usize, with_conv: bool, device: &Device) -> Self {
        let conv = Conv2dConfig::new([channels, channels], 3).with_stride(2).with_padding(Padding::end(1));
        Self { conv: with_conv.then(|| conv.init(device)) }
    }

    /// `[b, c, h, w] -> [b, c, h/2, w/2]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.conv {
            Some(conv) => conv.forward(x),
            None => avg_pool2d(x, AvgPoolOptions::new([2, 2])),
        }
    }
}

/// Each residual block, and its attention where the level has any.
pub(crate) fn through_blocks(
    resnets: &[ResnetBlock],
    attentions: &[AttentionBlock],
    x: Tensor<4>,
) -> Tensor<4> {
    resnets.iter().enumerate().fold(x, |x, (i, resnet)| {
        let x = resnet.forward(x, None);
        match attentions.get(i) {
            Some(attention) => attention.forward(x),
            None => x,
        }
    })
}

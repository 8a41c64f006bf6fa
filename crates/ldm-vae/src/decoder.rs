use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ldm_nn::{
    Conv2d, Conv2dConfig, GroupNorm, GroupNormConfig, ResnetBlock, ResnetBlockConfig, upsample_twice,
};

use crate::encoder::{EPS, through_blocks};
use crate::{AttentionBlock, DdConfig, Middle};

/// The network D: a latent after `post_quant_conv` to a picture.
///
/// Source: paper, section 3.1; `Decoder` in the reference's `model.py` and in diffusers' `vae.py`.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Latent to the width of the last level.
    pub conv_in: Conv2d,
    /// At the smallest size.
    pub mid: Middle,
    /// Levels in the order they run, smallest size first.
    pub up: Vec<UpLevel>,
    /// Before the last convolution.
    pub norm_out: GroupNorm,
    /// To `out_ch`.
    pub conv_out: Conv2d,
    #[module(skip)]
    tanh_out: bool,
}

/// One level of a [`Decoder`].
#[derive(Module, Debug)]
pub struct UpLevel {
    /// `num_res_blocks + 1` of them.
    pub resnets: Vec<ResnetBlock>,
    /// One after each residual block, or none.
    pub attentions: Vec<AttentionBlock>,
    /// Absent on the last level that runs.
    pub upsample: Option<Upsample>,
}

/// Doubles both sides by repeating pixels.
#[derive(Module, Debug)]
pub struct Upsample {
    /// After the repetition, where the config has it.
    pub conv: Option<Conv2d>,
}

impl Decoder {
    /// Creates the network; `config` has been validated.
    pub(crate) fn new(config: &DdConfig, device: &Device) -> Self {
        let (levels, groups) = (config.levels(), config.norm_num_groups);
        let widest = config.channels(levels - 1);
        let resnet = |channels| {
            ResnetBlockConfig::new(channels, groups, EPS).with_dropout(config.dropout).init(device)
        };
        let mut c = widest;
        let mut up = Vec::with_capacity(levels);
        for (i, has_attention) in config.attention_in_decoder().into_iter().enumerate().rev() {
            let c_out = config.channels(i);
            let mut level = UpLevel { resnets: Vec::new(), attentions: Vec::new(), upsample: None };
            for _ in 0..=config.num_res_blocks {
                level.resnets.push(resnet([c, c_out]));
                if has_attention {
                    level.attentions.push(AttentionBlock::new(c_out, groups, device));
                }
                c = c_out;
            }
            if i > 0 {
                let conv = Conv2dConfig::new([c, c], 3);
                level.upsample = Some(Upsample { conv: config.resamp_with_conv.then(|| conv.init(device)) });
            }
            up.push(level);
        }
        Self {
            conv_in: Conv2dConfig::new([config.z_channels, widest], 3).init(device),
            mid: Middle::new(config, device),
            up,
            norm_out: GroupNormConfig::new(groups, c, EPS).init(device),
            conv_out: Conv2dConfig::new([c, config.out_ch], 3).init(device),
            tanh_out: config.tanh_out,
        }
    }

    /// `[b, z_channels, h/f, w/f] -> [b, out_ch, h, w]`.
    pub fn forward(&self, z: Tensor<4>) -> Tensor<4> {
        self.output(self.hidden(z))
    }

    /// All but the last convolution: `[b, z_channels, h/f, w/f] -> [b, ch * ch_mult[0], h, w]`.
    ///
    /// Adversarial training weighs its losses by their gradients at the last layer alone.
    pub fn hidden(&self, z: Tensor<4>) -> Tensor<4> {
        let x = self.mid.forward(self.conv_in.forward(z));
        let x = self.up.iter().fold(x, |x, level| level.forward(x));
        self.norm_out.forward_silu(x)
    }

    /// The last convolution, from what [`hidden`](Self::hidden) gives to `[b, out_ch, h, w]`.
    pub fn output(&self, hidden: Tensor<4>) -> Tensor<4> {
        let x = self.conv_out.forward(hidden);
        if self.tanh_out { x.tanh() } else { x }
    }
}

impl UpLevel {
    /// `[b, c, h, w] -> [b, c', 2h, 2w]`, the size unchanged on the last level that runs.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = through_blocks(&self.resnets, &self.attentions, x);
        match &self.upsample {
            Some(upsample) => upsample.forward(x),
            None => x,
        }
    }
}

impl Upsample {
    /// `[b, c, h, w] -> [b, c, 2h, 2w]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.conv {
            Some(conv) => conv.forward_upsampled(x),
            None => upsample_twice(x),
        }
    }
}

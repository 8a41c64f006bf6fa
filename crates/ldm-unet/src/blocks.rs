//! The levels of the U-Net: the way down, the middle, the way up.

use burn::module::Module;
use burn::tensor::module::avg_pool2d;
use burn::tensor::ops::AvgPoolOptions;
use burn::tensor::{Device, Tensor};
use ldm_nn::{
    Conv2d, Conv2dConfig, Padding, ResnetBlock, ResnetBlockConfig, TimeShift, join_channels, upsample_nearest,
};

use crate::plan::{Attention, Level, Plan};
use crate::{
    AttentionBlock, AttentionBlockConfig, Context, Middle, SpatialTransformer, SpatialTransformerConfig,
    UNetConfig,
};

/// Residual blocks with attention, then half the resolution.
#[derive(Module, Debug)]
pub struct DownBlock {
    /// In order.
    pub resnets: Vec<ResnetBlock>,
    /// After the first residual blocks, one each; none on a level without attention.
    pub attentions: Vec<SpatialAttention>,
    /// Absent on the coarsest level.
    pub downsample: Option<Downsample>,
}

/// Residual block, attention, residual block.
#[derive(Module, Debug)]
pub struct MidBlock {
    /// One or two.
    pub resnets: Vec<ResnetBlock>,
    /// After the first residual block.
    pub attention: Option<SpatialAttention>,
}

/// Residual blocks that read what the way down left, with attention, then twice the resolution.
#[derive(Module, Debug)]
pub struct UpBlock {
    /// In order; one more than on the way down.
    pub resnets: Vec<ResnetBlock>,
    /// After the first residual blocks, one each; none on a level without attention.
    pub attentions: Vec<SpatialAttention>,
    /// Absent on the finest level.
    pub upsample: Option<Upsample>,
}

/// Attention over the pixels of a feature map.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A few dozen a model, beside gigabytes of weights.
pub enum SpatialAttention {
    /// To the map itself.
    Block(AttentionBlock),
    /// To the map itself and to a context.
    Transformer(SpatialTransformer),
}

/// Half the resolution: by a convolution, inside a residual block, or else by average pooling.
#[derive(Module, Debug)]
pub struct Downsample {
    /// 3x3 with stride 2.
    pub conv: Option<Conv2d>,
    /// Pools between its first norm and convolution.
    pub resnet: Option<ResnetBlock>,
    /// The convolution pads all round, so that an odd side is rounded up; otherwise it is rounded down.
    #[module(skip)]
    rounds_up: bool,
}

/// A higher resolution by nearest neighbours: followed by a convolution, or inside a residual block.
#[derive(Module, Debug)]
pub struct Upsample {
    /// 3x3.
    pub conv: Option<Conv2d>,
    /// Enlarges between its first norm and convolution.
    pub resnet: Option<ResnetBlock>,
}

/// Creates the parts that one config asks for.
pub(crate) struct Builder<'a> {
    pub config: &'a UNetConfig,
    pub plan: &'a Plan,
    pub device: &'a Device,
}

impl Builder<'_> {
    /// The way down, finest level first.
    pub fn down(&self) -> Vec<DownBlock> {
        let last = self.plan.levels.len() - 1;
        let mut c_in = self.config.model_channels;
        let block = |(i, level): (usize, &Level)| {
            let first = std::mem::replace(&mut c_in, level.channels);
            let c_in = |j| if j == 0 { first } else { level.channels };
            let attention = level.attention.as_ref();
            DownBlock {
                resnets: (0..level.res_blocks).map(|j| self.resnet(c_in(j), level.channels, 1.0)).collect(),
                attentions: (0..level.res_blocks.min(level.attention_blocks))
                    .filter_map(|_| attention.map(|a| self.attention(a, a.heads, level.channels, true, 1.0)))
                    .collect(),
                downsample: (i < last).then(|| self.downsample(level)),
            }
        };
        self.plan.levels.iter().enumerate().map(block).collect()
    }

    /// The middle, at the coarsest level.
    pub fn middle(&self) -> Option<MidBlock> {
        let c = self.plan.levels.last().map(|level| level.channels)?;
        let scale = self.config.mid_block_scale_factor;
        let resnets = match self.config.middle {
            Middle::Attention | Middle::Resnets => 2,
            Middle::Resnet => 1,
            Middle::Nothing => return None,
        };
        let norm = self.config.middle_attention_norm;
        let attention = self.plan.middle.as_ref();
        Some(MidBlock {
            resnets: (0..resnets).map(|_| self.resnet(c, c, scale)).collect(),
            attention: attention.map(|a| self.attention(a, a.heads, c, norm, scale)),
        })
    }

    /// The way up, coarsest level first.
    pub fn up(&self) -> Vec<UpBlock> {
        let mut skips = self.plan.skips(self.config.model_channels);
        let mut c = self.plan.levels.last().map_or(0, |level| level.channels);
        let mut blocks = Vec::with_capacity(self.plan.levels.len());
        for (i, level) in self.plan.levels.iter().enumerate().rev() {
            let blocks_here = level.res_blocks + 1;
            let taken = skips.split_off(skips.len() - blocks_here);
            let resnet = |skip: &usize| {
                let c_in = std::mem::replace(&mut c, level.channels) + skip;
                self.resnet(c_in, level.channels, 1.0)
            };
            let attention = level.attention.as_ref();
            blocks.push(UpBlock {
                resnets: taken.iter().rev().map(resnet).collect(),
                attentions: (0..blocks_here.min(level.attention_blocks))
                    .filter_map(|_| {
                        attention.map(|a| self.attention(a, a.heads_up, level.channels, true, 1.0))
                    })
                    .collect(),
                upsample: (i > 0).then(|| self.upsample(level)),
            });
        }
        blocks
    }

    fn resnet(&self, c_in: usize, c_out: usize, scale: f64) -> ResnetBlock {
        let config = self.config;
        let shift = if config.use_scale_shift_norm { TimeShift::ScaleShift } else { TimeShift::Add };
        ResnetBlockConfig::new([c_in, c_out], config.norm_num_groups, config.norm_eps)
            .with_time(config.time_width(), shift)
            .with_zero_init(true)
            .with_output_scale(scale)
            .with_dropout(config.dropout)
            .init(self.device)
    }

    fn attention(
        &self,
        a: &Attention,
        heads: usize,
        channels: usize,
        norm: bool,
        scale: f64,
    ) -> SpatialAttention {
        let config = self.config;
        match config.context_dim {
            Some(context_dim) if config.use_spatial_transformer => {
                let transformer = SpatialTransformerConfig {
                    channels,
                    heads,
                    depth: a.depth,
                    context_dim,
                    groups: config.norm_num_groups,
                    only_cross_attention: a.only_cross_attention,
                    upcast_attention: config.upcast_attention,
                };
                SpatialAttention::Transformer(transformer.init(self.device))
            }
            _ => {
                let block = AttentionBlockConfig {
                    channels,
                    heads,
                    norm: norm.then_some((config.norm_num_groups, config.norm_eps)),
                    upcast_attention: config.upcast_attention,
                    output_scale: scale,
                };
                SpatialAttention::Block(block.init(self.device))
            }
        }
    }

    fn downsample(&self, level: &Level) -> Downsample {
        let c = level.channels;
        let padding = match self.config.downsample_padding {
            0 => Padding::end(1),
            n => Padding::all(n),
        };
        let conv = Conv2dConfig::new([c, c], 3).with_stride(2).with_padding(padding);
        let by_conv = self.config.conv_resample && !level.resblock_updown;
        Downsample {
            conv: by_conv.then(|| conv.init(self.device)),
            resnet: level.resblock_updown.then(|| self.resnet(c, c, 1.0)),
            rounds_up: by_conv && self.config.downsample_padding > 0,
        }
    }

    fn upsample(&self, level: &Level) -> Upsample {
        let c = level.channels;
        let by_conv = self.config.conv_resample && !level.resblock_updown;
        Upsample {
            conv: by_conv.then(|| Conv2dConfig::new([c, c], 3).init(self.device)),
            resnet: level.resblock_updown.then(|| self.resnet(c, c, 1.0)),
        }
    }
}

impl DownBlock {
    /// `x` `[b, c_in, h, w]`, `time` `[b, width]`, `context` `[b, m, d]` -> `[b, c, h', w']`; every
    /// intermediate result is also pushed onto `skips`, for the way up.
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: &Tensor<2>,
        context: Option<Context<'_>>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        self.forward_projected(x, time, ResnetBlock::project_time(&self.resnets, time), context, skips)
    }

    /// The same, with what each of the residual blocks makes of the time.
    pub(crate) fn forward_projected(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        times: impl IntoIterator<Item = Option<Tensor<2>>>,
        context: Option<Context<'_>>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, (resnet, projected)) in self.resnets.iter().zip(times).enumerate() {
            x = resnet.forward_projected(x, projected);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x, context);
            }
            skips.push(x.clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(x, time);
            skips.push(x.clone());
        }
        x
    }
}

impl MidBlock {
    /// `[b, c, h, w] -> [b, c, h, w]`.
    pub fn forward(&self, x: Tensor<4>, time: &Tensor<2>, context: Option<Context<'_>>) -> Tensor<4> {
        self.forward_projected(x, ResnetBlock::project_time(&self.resnets, time), context)
    }

    /// The same, with what each of the residual blocks makes of the time.
    pub(crate) fn forward_projected(
        &self,
        mut x: Tensor<4>,
        times: impl IntoIterator<Item = Option<Tensor<2>>>,
        context: Option<Context<'_>>,
    ) -> Tensor<4> {
        for (i, (resnet, projected)) in self.resnets.iter().zip(times).enumerate() {
            x = resnet.forward_projected(x, projected);
            if let (0, Some(attention)) = (i, &self.attention) {
                x = attention.forward(x, context);
            }
        }
        x
    }
}

impl UpBlock {
    /// `[b, c_in, h, w] -> [b, c, h', w']`, taking one tensor from `skips` for each residual block.
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: &Tensor<2>,
        context: Option<Context<'_>>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        self.forward_projected(x, time, ResnetBlock::project_time(&self.resnets, time), context, skips)
    }

    /// The same, with what each of the residual blocks makes of the time.
    pub(crate) fn forward_projected(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        times: impl IntoIterator<Item = Option<Tensor<2>>>,
        context: Option<Context<'_>>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, (resnet, projected)) in self.resnets.iter().zip(times).enumerate() {
            x = match skips.pop() {
                Some(skip) => join_channels(x, skip),
                None => x,
            };
            x = resnet.forward_projected(x, projected);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x, context);
            }
        }
        match (&self.upsample, skips.last()) {
            // The next skip's size, not twice this one's: an odd side was rounded up on the way down.
            (Some(upsample), Some(skip)) => {
                let [_, _, h, w] = skip.dims();
                upsample.forward(x, time, [h, w])
            }
            _ => x,
        }
    }
}

impl SpatialAttention {
    /// `x` `[b, c, h, w]`, `context` `[b, m, d]` -> `[b, c, h, w]`.
    pub fn forward(&self, x: Tensor<4>, context: Option<Context<'_>>) -> Tensor<4> {
        match self {
            Self::Block(block) => block.forward(x),
            Self::Transformer(transformer) => transformer.forward(x, context),
        }
    }
}

impl Downsample {
    /// What is left of a side.
    pub fn size(&self, side: usize) -> usize {
        if self.rounds_up { side.div_ceil(2) } else { side / 2 }
    }

    /// `[b, c, h, w] -> [b, c, size(h), size(w)]`.
    pub fn forward(&self, x: Tensor<4>, time: &Tensor<2>) -> Tensor<4> {
        let pool = |x| avg_pool2d(x, AvgPoolOptions::new([2, 2]));
        match (&self.conv, &self.resnet) {
            (Some(conv), _) => conv.forward(x),
            (None, Some(resnet)) => resnet.forward_resampled(x, Some(time.clone()), pool),
            (None, None) => pool(x),
        }
    }
}

impl Upsample {
    /// `[b, c, h, w] -> [b, c, size]`.
    pub fn forward(&self, x: Tensor<4>, time: &Tensor<2>, size: [usize; 2]) -> Tensor<4> {
        let [_, _, h, w] = x.dims();
        let enlarge = |x| upsample_nearest(x, size);
        match (&self.conv, &self.resnet) {
            (Some(conv), _) if size == [2 * h, 2 * w] => conv.forward_upsampled(x),
            (Some(conv), _) => conv.forward(enlarge(x)),
            (None, Some(resnet)) => resnet.forward_resampled(x, Some(time.clone()), enlarge),
            (None, None) => enlarge(x),
        }
    }
}

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};

use crate::{Conv2d, Conv2dConfig, GroupNorm, GroupNormConfig, Linear, LinearConfig, silu};

/// How a time embedding enters a [`ResnetBlock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeShift {
    /// Added after the first convolution.
    Add,
    /// Scales and shifts the second norm (`use_scale_shift_norm`, `resnet_time_scale_shift: scale_shift`).
    ScaleShift,
}

/// Configures a [`ResnetBlock`].
#[derive(Debug, Clone)]
pub struct ResnetBlockConfig {
    channels: [usize; 2],
    groups: usize,
    eps: f64,
    time: Option<(usize, TimeShift)>,
    zero: bool,
    output_scale: f64,
    dropout: f64,
}

/// The residual block of both the first stage and the U-Net.
///
/// `x + conv2(dropout(silu(norm2(conv1(silu(norm1 x)) + time))))`; a 1x1 convolution on the short cut where the
/// channel counts differ. Source: `ResnetBlock` in the reference's `model.py` and `ResBlock` in its
/// `openaimodel.py`; `ResnetBlock2D` in diffusers.
#[derive(Module, Debug)]
pub struct ResnetBlock {
    /// Before the first convolution.
    pub norm1: GroupNorm,
    /// `[c_in -> c_out]`, 3x3.
    pub conv1: Conv2d,
    /// From the time embedding to `c_out` (twice that with scale and shift).
    pub time_emb_proj: Option<Linear>,
    /// Before the second convolution.
    pub norm2: GroupNorm,
    /// Before the second convolution, in training alone: burn's drops on autodiff devices.
    pub dropout: Dropout,
    /// `[c_out -> c_out]`, 3x3.
    pub conv2: Conv2d,
    /// `[c_in -> c_out]`, 1x1, where the counts differ.
    pub conv_shortcut: Option<Conv2d>,
    #[module(skip)]
    shift: TimeShift,
    #[module(skip)]
    output_scale: f64,
}

impl ResnetBlockConfig {
    /// `channels` is `[c_in, c_out]`; `groups` must divide both.
    pub fn new(channels: [usize; 2], groups: usize, eps: f64) -> Self {
        Self { channels, groups, eps, time: None, zero: false, output_scale: 1.0, dropout: 0.0 }
    }

    /// Takes a time embedding of this width, applied as `shift` says.
    pub fn with_time(mut self, width: usize, shift: TimeShift) -> Self {
        self.time = Some((width, shift));
        self
    }

    /// Starts with the second convolution zero, so that the block begins as the identity.
    pub fn with_zero_init(mut self, zero: bool) -> Self {
        self.zero = zero;
        self
    }

    /// Divides the block's output (`output_scale_factor`, `mid_block_scale_factor`).
    pub fn with_output_scale(mut self, scale: f64) -> Self {
        self.output_scale = scale;
        self
    }

    /// Drops this part of the features in training; in [0, 1).
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        self.dropout = dropout;
        self
    }

    /// Creates the block.
    pub fn init(&self, device: &Device) -> ResnetBlock {
        let [c_in, c_out] = self.channels;
        let norm = |c| GroupNormConfig::new(self.groups, c, self.eps).init(device);
        ResnetBlock {
            norm1: norm(c_in),
            conv1: Conv2dConfig::new([c_in, c_out], 3).init(device),
            time_emb_proj: self.time.map(|(width, shift)| {
                let out = if shift == TimeShift::ScaleShift { 2 * c_out } else { c_out };
                LinearConfig::new(width, out).init(device)
            }),
            norm2: norm(c_out),
            dropout: DropoutConfig::new(self.dropout).init(),
            conv2: Conv2dConfig::new([c_out, c_out], 3).with_zero_init(self.zero).init(device),
            conv_shortcut: (c_in != c_out).then(|| Conv2dConfig::new([c_in, c_out], 1).init(device)),
            shift: self.time.map_or(TimeShift::Add, |(_, shift)| shift),
            output_scale: self.output_scale,
        }
    }
}

impl ResnetBlock {
    /// `x` `[b, c_in, h, w]`, `time` `[b, width]` -> `[b, c_out, h, w]`. The time embedding has been through its SiLU, which
    /// is the same for all blocks.
    pub fn forward(&self, x: Tensor<4>, time: Option<Tensor<2>>) -> Tensor<4> {
        self.forward_resampled(x, time, |x| x)
    }

    /// What each of these blocks makes of one time embedding `[b, width]`, for [`forward_projected`](Self::forward_projected):
    /// their layers of it are taken together.
    pub fn project_time<'a>(
        blocks: impl IntoIterator<Item = &'a Self>,
        time: &Tensor<2>,
    ) -> Vec<Option<Tensor<2>>> {
        let layers: Vec<_> = blocks.into_iter().map(|block| block.time_emb_proj.as_ref()).collect();
        let there = layers.iter().filter_map(|layer| *layer);
        let mut projected = Linear::forward_each(there, time.clone()).into_iter();
        layers.iter().map(|layer| layer.and_then(|_| projected.next())).collect()
    }

    /// As [`forward`](Self::forward), of what [`project_time`](Self::project_time) has made of the time embedding.
    pub fn forward_projected(&self, x: Tensor<4>, time: Option<Tensor<2>>) -> Tensor<4> {
        self.resampled(x, time, |x| x)
    }

    /// As [`forward`](Self::forward), with `resample` between the first norm and convolution and on the
    /// short cut: `resblock_updown` of the reference.
    pub fn forward_resampled(
        &self,
        x: Tensor<4>,
        time: Option<Tensor<2>>,
        resample: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<4> {
        let time = match (&self.time_emb_proj, time) {
            (Some(proj), Some(time)) => Some(proj.forward(time)),
            _ => None,
        };
        self.resampled(x, time, resample)
    }

    fn resampled(
        &self,
        x: Tensor<4>,
        time: Option<Tensor<2>>,
        resample: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<4> {
        let h = resample(self.norm1.forward_silu(x.clone()));
        let h = match (self.shift, time) {
            (TimeShift::Add, Some(t)) => self.norm2.forward_silu(self.conv1.forward_shift(h, t)),
            (TimeShift::ScaleShift, Some(t)) => {
                let [scale, shift] = halves(t);
                let h = self.norm2.forward(self.conv1.forward(h));
                silu(h * (per_channel(scale) + 1.0) + per_channel(shift))
            }
            (_, None) => self.norm2.forward_silu(self.conv1.forward(h)),
        };
        let x = resample(x);
        let x = match &self.conv_shortcut {
            Some(conv) => conv.forward(x),
            None => x,
        };
        let y = self.conv2.forward_add(self.dropout.forward(h), x);
        if self.output_scale == 1.0 { y } else { y / self.output_scale }
    }
}

fn per_channel(x: Tensor<2>) -> Tensor<4> {
    let [b, c] = x.dims();
    x.reshape([b, c, 1, 1])
}

fn halves(x: Tensor<2>) -> [Tensor<2>; 2] {
    let [_, c] = x.dims();
    [x.clone().narrow(1, 0, c / 2), x.narrow(1, c / 2, c / 2)]
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    #[test]
    fn dropout_acts_in_training_alone() {
        let plain = Device::default();
        let device = plain.clone().autodiff();
        let block = ResnetBlockConfig::new([4, 4], 2, 1e-5).with_dropout(0.5).init(&device);
        let without = ResnetBlock { dropout: DropoutConfig::new(0.0).init(), ..block.clone() };
        let x = Tensor::<4>::random([1, 4, 6, 6], Distribution::Default, &device);
        let same = |a: Tensor<4>, b: Tensor<4>| (a - b).abs().max().into_scalar::<f32>() < 1e-5;
        let expected = without.forward(x.clone(), None).inner();
        assert!(same(block.valid().forward(x.clone().inner(), None), expected.clone()));
        assert!(!same(block.forward(x.clone(), None).inner(), expected.clone()));
        assert!(same(block.freeze().forward(x, None).inner(), expected));
    }
}

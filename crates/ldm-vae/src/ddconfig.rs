use serde::{Deserialize, Serialize};

use crate::VaeError;

/// The shape of encoder and decoder: `ddconfig` of CompVis' YAML files, in its own field names.
///
/// The last fields are not in CompVis' files; their defaults are what CompVis builds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DdConfig {
    /// Whether the encoder gives twice `z_channels`: mean and log-variance. True for KL.
    #[serde(default = "yes")]
    pub double_z: bool,
    /// Channels between the networks and `quant_conv`.
    pub z_channels: usize,
    /// The side of the training pictures; `attn_resolutions` are counted down from it. The networks are
    /// convolutional and run at other sizes.
    pub resolution: usize,
    /// Channels of the picture.
    pub in_channels: usize,
    /// Channels of the decoded picture.
    pub out_ch: usize,
    /// Base width.
    pub ch: usize,
    /// Width of each level, in multiples of `ch`; each level but the last halves the picture. Whole
    /// numbers in CompVis' files; diffusers' widths need not be, but `ch * m` is always whole.
    pub ch_mult: Vec<f64>,
    /// Residual blocks a level (the decoder has one more).
    pub num_res_blocks: usize,
    /// Sizes, counted down from `resolution`, at which levels have attention.
    pub attn_resolutions: Vec<usize>,
    /// The part of each residual block's features that training drops, in [0, 1); evaluation never drops.
    #[serde(default)]
    pub dropout: f64,
    /// Whether there is a convolution at each change of size; without, average pooling and repetition.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub resamp_with_conv: bool,
    /// Whether the decoder ends in tanh.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tanh_out: bool,
    /// The kind of attention, in the middle and at `attn_resolutions`.
    #[serde(default, skip_serializing_if = "AttnType::is_vanilla")]
    pub attn_type: AttnType,
    /// Whether the middle has attention (diffusers; CompVis' always has).
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub mid_block_add_attention: bool,
    /// Groups of every group norm (diffusers; 32 in CompVis).
    #[serde(default = "thirty_two", skip_serializing_if = "is_thirty_two")]
    pub norm_num_groups: usize,
}

/// The kind of attention that a [`DdConfig`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttnType {
    /// One head over all pixels; `vanilla-xformers` is another way to compute the same.
    #[default]
    #[serde(alias = "vanilla-xformers")]
    Vanilla,
    /// None anywhere.
    None,
}

impl AttnType {
    fn is_vanilla(&self) -> bool {
        *self == Self::Vanilla
    }
}

fn yes() -> bool {
    true
}
fn is_true(x: &bool) -> bool {
    *x
}
fn is_false(x: &bool) -> bool {
    !*x
}
fn thirty_two() -> usize {
    32
}
fn is_thirty_two(x: &usize) -> bool {
    *x == 32
}

/// A config that was not validated may ask for more levels than a number has bits.
fn shift_left(x: usize, levels: usize) -> usize {
    u32::try_from(levels).ok().and_then(|n| x.checked_shl(n)).unwrap_or(usize::MAX)
}
fn shift_right(x: usize, levels: usize) -> usize {
    u32::try_from(levels).ok().and_then(|n| x.checked_shr(n)).unwrap_or(0)
}

/// Beyond these a config is a mistake, and products of its numbers would overflow.
const MAX_LEVELS: usize = 16;
const MAX_COUNT: usize = 1 << 16;

impl DdConfig {
    /// The number of levels.
    pub fn levels(&self) -> usize {
        self.ch_mult.len()
    }

    /// The downsampling factor f: pixels a latent side.
    pub fn factor(&self) -> usize {
        shift_left(1, self.levels().saturating_sub(1))
    }

    /// The width of level `i`. Panics where there is no such level.
    pub fn channels(&self, i: usize) -> usize {
        (self.ch as f64 * self.ch_mult[i]).round() as usize
    }

    /// Whether the middle has attention.
    pub fn attention_in_middle(&self) -> bool {
        self.mid_block_add_attention && self.attn_type == AttnType::Vanilla
    }

    /// Whether the encoder's levels have attention, first level first.
    pub fn attention_in_encoder(&self) -> Vec<bool> {
        self.attention_at(self.encoder_sizes())
    }

    /// Whether the decoder's levels have attention, first level (the largest) first.
    ///
    /// The reference's decoder doubles the smallest size, so where `resolution` is no multiple of f its
    /// levels have other sizes than the encoder's.
    pub fn attention_in_decoder(&self) -> Vec<bool> {
        self.attention_at(self.decoder_sizes())
    }

    /// Sets `attn_resolutions` so that at least these levels of encoder and decoder have attention.
    pub(crate) fn attend_at(&mut self, encoder: &[bool], decoder: &[bool]) {
        let mut sizes = self.encoder_sizes();
        sizes.extend(self.decoder_sizes());
        let chosen = sizes.iter().zip(encoder.iter().chain(decoder)).filter(|(_, has)| **has);
        self.attn_resolutions = chosen.map(|(size, _)| *size).collect();
        self.attn_resolutions.sort_unstable_by(|a, b| b.cmp(a));
        self.attn_resolutions.dedup();
    }

    fn encoder_sizes(&self) -> Vec<usize> {
        (0..self.levels()).map(|i| shift_right(self.resolution, i)).collect()
    }

    fn decoder_sizes(&self) -> Vec<usize> {
        let last = self.levels().saturating_sub(1);
        let smallest = shift_right(self.resolution, last);
        (0..self.levels()).map(|i| shift_left(smallest, last - i)).collect()
    }

    fn attention_at(&self, sizes: Vec<usize>) -> Vec<bool> {
        let vanilla = self.attn_type == AttnType::Vanilla;
        sizes.iter().map(|size| vanilla && self.attn_resolutions.contains(size)).collect()
    }

    /// Says what keeps this config from being built.
    pub fn validate(&self) -> Result<(), VaeError> {
        let counts = [
            ("z_channels", self.z_channels),
            ("resolution", self.resolution),
            ("in_channels", self.in_channels),
            ("out_ch", self.out_ch),
            ("ch", self.ch),
            ("num_res_blocks", self.num_res_blocks),
            ("norm_num_groups", self.norm_num_groups),
        ];
        for (key, value) in counts {
            if !(1..=MAX_COUNT).contains(&value) {
                return Err(VaeError::config(key, value, format!("must lie in 1..={MAX_COUNT}")));
            }
        }
        if !(1..=MAX_LEVELS).contains(&self.levels()) {
            let reason = format!("must have 1..={MAX_LEVELS} levels");
            return Err(VaeError::config("ch_mult", &self.ch_mult, reason));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(VaeError::config("dropout", self.dropout, "must lie in 0..1, 1 not included"));
        }
        for (i, mult) in self.ch_mult.iter().enumerate() {
            let width = self.ch as f64 * mult;
            let whole = width.round();
            if !((width - whole).abs() < 1e-6 && (1.0..=MAX_COUNT as f64).contains(&whole)) {
                let reason = format!("ch = {} gives level {i} a width of {width}", self.ch);
                return Err(VaeError::config("ch_mult", &self.ch_mult, reason));
            }
        }
        for width in std::iter::once(self.ch).chain((0..self.levels()).map(|i| self.channels(i))) {
            if width % self.norm_num_groups != 0 {
                let reason = format!("does not divide a width of {width}");
                return Err(VaeError::config("norm_num_groups", self.norm_num_groups, reason));
            }
        }
        Ok(())
    }
}

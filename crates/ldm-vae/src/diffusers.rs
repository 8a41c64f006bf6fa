//! What the `config.json` of diffusers' first stages have in common: encoder and decoder.

use serde::Deserialize;

use crate::{AttnType, DdConfig, VaeError};

/// Without and with attention.
const DOWN_BLOCKS: [&str; 2] = ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"];
const UP_BLOCKS: [&str; 2] = ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"];

/// The block types of diffusers' default, one level.
pub(crate) fn default_blocks() -> [Vec<String>; 2] {
    [DOWN_BLOCKS, UP_BLOCKS].map(|blocks| vec![blocks[0].into()])
}

/// Encoder and decoder in diffusers' keys.
pub(crate) struct Networks<'a> {
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: &'a [String],
    pub up_block_types: &'a [String],
    pub block_out_channels: &'a [usize],
    pub layers_per_block: usize,
    pub act_fn: &'a str,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    pub sample_size: usize,
    pub mid_block_add_attention: bool,
}

impl Networks<'_> {
    /// Ours; an error names the key as diffusers spells it.
    pub fn ddconfig(&self, double_z: bool) -> Result<DdConfig, VaeError> {
        if !matches!(self.act_fn.to_lowercase().as_str(), "silu" | "swish") {
            return Err(VaeError::config("act_fn", self.act_fn, "expected silu"));
        }
        let widths = self.block_out_channels;
        let down = attention("down_block_types", self.down_block_types, DOWN_BLOCKS, widths.len())?;
        let mut up = attention("up_block_types", self.up_block_types, UP_BLOCKS, widths.len())?;
        up.reverse();
        let ch =
            *widths.first().ok_or_else(|| VaeError::config("block_out_channels", widths, "no levels"))?;
        let mut ddconfig = DdConfig {
            double_z,
            z_channels: self.latent_channels,
            resolution: self.sample_size,
            in_channels: self.in_channels,
            out_ch: self.out_channels,
            ch,
            ch_mult: widths.iter().map(|width| *width as f64 / ch as f64).collect(),
            num_res_blocks: self.layers_per_block,
            attn_resolutions: Vec::new(),
            dropout: 0.0,
            resamp_with_conv: true,
            tanh_out: false,
            attn_type: AttnType::Vanilla,
            mid_block_add_attention: self.mid_block_add_attention,
            norm_num_groups: self.norm_num_groups,
        };
        ddconfig.validate().map_err(in_their_words)?;
        ddconfig.attend_at(&down, &up);
        if ddconfig.attention_in_encoder() != down || ddconfig.attention_in_decoder() != up {
            let reason = "attention must sit at the same sizes in down_block_types";
            return Err(VaeError::config("up_block_types", self.up_block_types, reason));
        }
        Ok(ddconfig)
    }
}

/// The keys of [`Networks`] that are lists, written from ours.
pub(crate) struct Blocks {
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
}

impl Blocks {
    /// Errors: what diffusers' `class` can't express.
    pub fn of(dd: &DdConfig, class: &str) -> Result<Self, VaeError> {
        if dd.channels(0) != dd.ch {
            return Err(inexpressible("ch_mult", &dd.ch_mult, class));
        }
        if !dd.resamp_with_conv {
            return Err(inexpressible("resamp_with_conv", false, class));
        }
        if dd.tanh_out {
            return Err(inexpressible("tanh_out", true, class));
        }
        let types = |attention: Vec<bool>, blocks: [&str; 2]| -> Vec<String> {
            attention.into_iter().map(|has| blocks[usize::from(has)].to_string()).collect()
        };
        let mut up = dd.attention_in_decoder();
        up.reverse();
        Ok(Self {
            down_block_types: types(dd.attention_in_encoder(), DOWN_BLOCKS),
            up_block_types: types(up, UP_BLOCKS),
            block_out_channels: (0..dd.levels()).map(|i| dd.channels(i)).collect(),
        })
    }
}

/// The error of a value that diffusers' `class` has no key for.
pub(crate) fn inexpressible(key: &'static str, value: impl std::fmt::Debug, class: &str) -> VaeError {
    VaeError::config(key, value, format!("diffusers' {class} can't express it"))
}

/// A number, or `[h, w]`, of which diffusers takes the first.
pub(crate) fn side<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a side or [height, width]")]
    enum Side {
        One(usize),
        Two([usize; 2]),
    }
    Ok(match Side::deserialize(deserializer)? {
        Side::One(side) | Side::Two([side, _]) => side,
    })
}

/// Our keys and diffusers', where they differ.
const KEYS: &[[&str; 2]] = &[
    ["z_channels", "latent_channels"],
    ["resolution", "sample_size"],
    ["out_ch", "out_channels"],
    ["ch", "block_out_channels"],
    ["ch_mult", "block_out_channels"],
    ["num_res_blocks", "layers_per_block"],
    ["n_embed", "num_vq_embeddings"],
];

/// An error about a key of ours, as one about theirs.
pub(crate) fn in_their_words(error: VaeError) -> VaeError {
    match error {
        VaeError::Config { key, value, reason } => {
            let key = KEYS.iter().find(|[ours, _]| *ours == key).map_or(key, |[_, theirs]| theirs);
            VaeError::Config { key, value, reason }
        }
        other => other,
    }
}

/// Which levels have attention, in the list's order.
fn attention(
    key: &'static str,
    types: &[String],
    [without, with]: [&str; 2],
    levels: usize,
) -> Result<Vec<bool>, VaeError> {
    if types.len() != levels {
        let reason = format!("block_out_channels has {levels} levels");
        return Err(VaeError::config(key, types, reason));
    }
    let attention = types.iter().map(|block| match block.as_str() {
        block if block == without => Ok(false),
        block if block == with => Ok(true),
        block => Err(VaeError::config(key, block, format!("expected {without} or {with}"))),
    });
    attention.collect()
}

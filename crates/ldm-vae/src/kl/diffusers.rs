use serde::{Deserialize, Serialize};

use crate::{AttnType, AutoencoderKlConfig, DdConfig, LatentScaling, VaeError};

/// `vae/config.json` of a diffusers directory, class `AutoencoderKL`.
///
/// An absent key has the class's own default; unknown keys are skipped. It becomes an
/// [`AutoencoderKlConfig`] by `try_from`, and back by [`AutoencoderKlConfig::to_diffusers`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The keys are diffusers', documented there.
pub struct DiffusersAutoencoderKl {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub act_fn: String,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    #[serde(deserialize_with = "side")]
    pub sample_size: usize,
    pub scaling_factor: f64,
    pub shift_factor: Option<f64>,
    pub latents_mean: Option<Vec<f64>>,
    pub latents_std: Option<Vec<f64>>,
    pub force_upcast: bool,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    pub mid_block_add_attention: bool,
}

impl Default for DiffusersAutoencoderKl {
    fn default() -> Self {
        Self {
            class_name: CLASS.into(),
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DOWN_BLOCKS[0].into()],
            up_block_types: vec![UP_BLOCKS[0].into()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".into(),
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

const CLASS: &str = "AutoencoderKL";
/// Without and with attention.
const DOWN_BLOCKS: [&str; 2] = ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"];
const UP_BLOCKS: [&str; 2] = ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"];

/// A number, or `[h, w]`, of which diffusers takes the first.
fn side<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Side {
        One(usize),
        Two([usize; 2]),
    }
    Ok(match Side::deserialize(deserializer)? {
        Side::One(side) | Side::Two([side, _]) => side,
    })
}

impl TryFrom<&DiffusersAutoencoderKl> for AutoencoderKlConfig {
    type Error = VaeError;

    /// Errors: [`VaeError::Config`], naming a key whose value no first stage here has.
    fn try_from(theirs: &DiffusersAutoencoderKl) -> Result<Self, VaeError> {
        if theirs.class_name != CLASS {
            return Err(VaeError::config("_class_name", &theirs.class_name, format!("expected {CLASS}")));
        }
        if !matches!(theirs.act_fn.to_lowercase().as_str(), "silu" | "swish") {
            return Err(VaeError::config("act_fn", &theirs.act_fn, "expected silu"));
        }
        let widths = &theirs.block_out_channels;
        let down = attention("down_block_types", &theirs.down_block_types, DOWN_BLOCKS, widths.len())?;
        let mut up = attention("up_block_types", &theirs.up_block_types, UP_BLOCKS, widths.len())?;
        up.reverse();
        let ch =
            *widths.first().ok_or_else(|| VaeError::config("block_out_channels", widths, "no levels"))?;
        let mut ddconfig = DdConfig {
            double_z: true,
            z_channels: theirs.latent_channels,
            resolution: theirs.sample_size,
            in_channels: theirs.in_channels,
            out_ch: theirs.out_channels,
            ch,
            ch_mult: widths.iter().map(|width| *width as f64 / ch as f64).collect(),
            num_res_blocks: theirs.layers_per_block,
            attn_resolutions: Vec::new(),
            dropout: 0.0,
            resamp_with_conv: true,
            tanh_out: false,
            attn_type: AttnType::Vanilla,
            mid_block_add_attention: theirs.mid_block_add_attention,
            norm_num_groups: theirs.norm_num_groups,
        };
        ddconfig.validate().map_err(in_their_words)?;
        ddconfig.attend_at(&down, &up);
        if ddconfig.attention_in_encoder() != down || ddconfig.attention_in_decoder() != up {
            let reason = "attention must sit at the same sizes in down_block_types";
            return Err(VaeError::config("up_block_types", &theirs.up_block_types, reason));
        }
        let config = Self {
            embed_dim: theirs.latent_channels,
            ddconfig,
            use_quant_conv: theirs.use_quant_conv,
            use_post_quant_conv: theirs.use_post_quant_conv,
            scaling: LatentScaling {
                scaling_factor: theirs.scaling_factor,
                shift_factor: theirs.shift_factor,
                latents_mean: theirs.latents_mean.clone(),
                latents_std: theirs.latents_std.clone(),
            },
            force_upcast: theirs.force_upcast,
        };
        config.validate().map_err(in_their_words)?;
        Ok(config)
    }
}

/// Our keys and diffusers', where they differ.
const KEYS: &[[&str; 2]] = &[
    ["z_channels", "latent_channels"],
    ["resolution", "sample_size"],
    ["out_ch", "out_channels"],
    ["ch", "block_out_channels"],
    ["ch_mult", "block_out_channels"],
    ["num_res_blocks", "layers_per_block"],
];

/// An error about a key of ours, as one about theirs.
fn in_their_words(error: VaeError) -> VaeError {
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

impl AutoencoderKlConfig {
    /// The same model as diffusers' `config.json`.
    ///
    /// Errors: [`VaeError::Config`], naming what diffusers' `AutoencoderKL` can't express.
    pub fn to_diffusers(&self) -> Result<DiffusersAutoencoderKl, VaeError> {
        self.validate()?;
        let dd = &self.ddconfig;
        let inexpressible = |key, value: String| {
            Err(VaeError::config(key, value, format!("diffusers' {CLASS} can't express it")))
        };
        if self.embed_dim != dd.z_channels {
            return inexpressible(
                "embed_dim",
                format!("{} with z_channels {}", self.embed_dim, dd.z_channels),
            );
        }
        if dd.channels(0) != dd.ch {
            return inexpressible("ch_mult", format!("{:?}", dd.ch_mult));
        }
        if !dd.resamp_with_conv {
            return inexpressible("resamp_with_conv", "false".into());
        }
        if dd.tanh_out {
            return inexpressible("tanh_out", "true".into());
        }
        let types = |attention: Vec<bool>, blocks: [&str; 2]| -> Vec<String> {
            attention.into_iter().map(|has| blocks[usize::from(has)].to_string()).collect()
        };
        let mut up = dd.attention_in_decoder();
        up.reverse();
        Ok(DiffusersAutoencoderKl {
            class_name: CLASS.into(),
            in_channels: dd.in_channels,
            out_channels: dd.out_ch,
            down_block_types: types(dd.attention_in_encoder(), DOWN_BLOCKS),
            up_block_types: types(up, UP_BLOCKS),
            block_out_channels: (0..dd.levels()).map(|i| dd.channels(i)).collect(),
            layers_per_block: dd.num_res_blocks,
            act_fn: "silu".into(),
            latent_channels: self.embed_dim,
            norm_num_groups: dd.norm_num_groups,
            sample_size: dd.resolution,
            scaling_factor: self.scaling.scaling_factor,
            shift_factor: self.scaling.shift_factor,
            latents_mean: self.scaling.latents_mean.clone(),
            latents_std: self.scaling.latents_std.clone(),
            force_upcast: self.force_upcast,
            use_quant_conv: self.use_quant_conv,
            use_post_quant_conv: self.use_post_quant_conv,
            mid_block_add_attention: dd.attention_in_middle(),
        })
    }
}

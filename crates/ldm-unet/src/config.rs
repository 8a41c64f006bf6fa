//! What a U-Net is made of, in the words of the CompVis YAML files.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use serde_path_to_error::Track;

use crate::ConfigError;

/// One value for all levels, or one for each, from the finest to the coarsest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected one value, or a list with one for each level")]
pub enum PerLevel<T> {
    /// The same for all.
    All(T),
    /// One a level.
    Each(Vec<T>),
}

impl<T: Copy> PerLevel<T> {
    /// The value of each of `levels` levels; an error that names `key` where their number differs.
    pub(crate) fn each(&self, key: &str, levels: usize) -> Result<Vec<T>, ConfigError> {
        match self {
            Self::All(value) => Ok(vec![*value; levels]),
            Self::Each(values) if values.len() == levels => Ok(values.clone()),
            Self::Each(values) => Err(ConfigError::Levels { key: key.into(), levels, got: values.len() }),
        }
    }
}

impl<T: Copy + PartialEq> PerLevel<T> {
    /// `All` where every level has the same value.
    pub(crate) fn from_each(values: Vec<T>) -> Self {
        match values.first() {
            Some(first) if values.iter().all(|v| v == first) => Self::All(*first),
            _ => Self::Each(values),
        }
    }
}

/// What a label embedding reads (`num_classes` of the YAML files, `class_embed_type` of diffusers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of classes or the name of an embedding")]
pub enum NumClasses {
    /// A table of this many classes.
    Count(usize),
    /// A vector.
    Vector(VectorLabel),
}

/// How a vector becomes a label embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VectorLabel {
    /// A vector of width `adm_in_channels` through a network of two layers; with SDXL's contexts (width 2048
    /// or 1280) it stands for [`AddedEmbedding::TextTime`], as in the converter of diffusers.
    Sequential,
    /// A vector of width `adm_in_channels` through a network of two layers.
    Projection,
    /// A number through one linear layer.
    Continuous,
    /// A number through sinusoids and a network of two layers.
    Timestep,
    /// A vector of width `adm_in_channels` through one linear layer.
    SimpleProjection,
    /// A vector as wide as the time embedding, added as it is.
    Identity,
}

/// Embeddings that are added to the time embedding beside the label's (`addition_embed_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddedEmbedding {
    /// Stable Diffusion XL's: a pooled text embedding and the sinusoids of six sizes, through two layers.
    TextTime,
}

/// What lies between the way down and the way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Middle {
    /// Residual block, attention, residual block: every CompVis U-Net has this.
    #[default]
    Attention,
    /// Two residual blocks (`add_attention: false` of diffusers).
    Resnets,
    /// One residual block (`UNetMidBlock2D` in diffusers' `UNet2DConditionModel`).
    Resnet,
    /// Nothing (`mid_block_type: null`).
    Nothing,
}

/// The config of a [`UNet`](crate::UNet).
///
/// Field names and defaults are those of `unet_config.params` in the CompVis YAML files, which deserialise
/// into it as they are; what only diffusers' config.json says has diffusers' name and the CompVis value as
/// default. Settings that don't change the result (`use_checkpoint`, ..) are read over; any
/// other unknown key is an error that names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct UNetConfig {
    /// Height and width of the latent that the model was trained for; others work too. (`image_size` of a
    /// YAML file's `unet_config` is read over: Stable Diffusion's says 32, "unused". The model's own
    /// `image_size`, a level higher, is the one that counts.)
    #[serde(default, with = "side_or_sides", skip_serializing_if = "Option::is_none")]
    pub sample_size: Option<[usize; 2]>,
    /// Channels of the latent (plus those of concatenated conditions).
    pub in_channels: usize,
    /// Channels at the finest level.
    pub model_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Residual blocks a level on the way down (one more on the way up).
    pub num_res_blocks: PerLevel<usize>,
    /// The downsampling factors (1, 2, 4, ..) at which there is attention.
    pub attention_resolutions: Vec<usize>,
    /// The part of each residual block's features that training drops, in [0, 1); a prediction drops nothing.
    #[serde(default)]
    pub dropout: f64,
    /// Channels of each level, in units of `model_channels`; the first is 1.
    #[serde(default = "default_mult", with = "whole_where_possible")]
    pub channel_mult: Vec<f64>,
    /// Convolutions when the resolution changes; otherwise average pooling and plain enlargement.
    #[serde(default = "yes")]
    pub conv_resample: bool,
    /// Class labels or another vector, embedded and added to the time embedding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<NumClasses>,
    /// Width of that vector, or of the added embeddings' (`projection_class_embeddings_input_dim`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adm_in_channels: Option<usize>,
    /// Attention heads, where `num_head_channels` doesn't say (-1 in YAML: not given).
    #[serde(default, deserialize_with = "minus_one", skip_serializing_if = "Option::is_none")]
    pub num_heads: Option<PerLevel<usize>>,
    /// Width of a head: the number of heads follows from the level's channels.
    #[serde(default, deserialize_with = "minus_one", skip_serializing_if = "Option::is_none")]
    pub num_head_channels: Option<PerLevel<usize>>,
    /// Heads on the way up. As in the reference it counts only with `legacy`, without a spatial
    /// transformer and without `num_head_channels`.
    #[serde(default, deserialize_with = "minus_one", skip_serializing_if = "Option::is_none")]
    pub num_heads_upsample: Option<PerLevel<usize>>,
    /// The time embedding scales and shifts the second norm of a residual block, instead of being added.
    #[serde(default)]
    pub use_scale_shift_norm: bool,
    /// The resolution changes inside residual blocks.
    #[serde(default = "never")]
    pub resblock_updown: PerLevel<bool>,
    /// How the file's `qkv` is stacked: query, key, value, each with all heads; otherwise inside each head.
    #[serde(default)]
    pub use_new_attention_order: bool,
    /// Attention to a context; otherwise self-attention alone.
    #[serde(default)]
    pub use_spatial_transformer: bool,
    /// Transformer blocks a level.
    #[serde(default = "one")]
    pub transformer_depth: PerLevel<usize>,
    /// Transformer blocks in the middle (default: as on the coarsest level).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transformer_depth_middle: Option<usize>,
    /// Width `d` of the context `[b, m, d]`.
    #[serde(default, deserialize_with = "one_width", skip_serializing_if = "Option::is_none")]
    pub context_dim: Option<usize>,
    /// A file keeps the transformers' projections as linear layers; otherwise as 1x1 convolutions.
    #[serde(default)]
    pub use_linear_in_transformer: bool,
    /// Levels whose first attention reads the context too (`only_cross_attention`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_self_attentions: Option<PerLevel<bool>>,
    /// The same for the middle.
    #[serde(default)]
    pub disable_middle_self_attn: bool,
    /// How many blocks of each level have attention (default: all, where the level has any).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_attention_blocks: Option<Vec<usize>>,
    /// Head counts as the reference took them before its flag `legacy` came; see `num_heads_upsample`.
    #[serde(default = "yes")]
    pub legacy: bool,
    /// Width of the time embedding (default: `4 * model_channels`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_embed_dim: Option<usize>,
    /// Cosines before sines in the sinusoidal embedding.
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    /// Shifts the frequencies of the sinusoidal embedding.
    #[serde(default)]
    pub freq_shift: f64,
    /// Width of a guidance embedding added to the timestep's (latent consistency models).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_cond_proj_dim: Option<usize>,
    /// Added embeddings beside the label's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addition_embed_type: Option<AddedEmbedding>,
    /// Width of the sinusoids of each added number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addition_time_embed_dim: Option<usize>,
    /// Padding of the downsampling convolutions: 1 all round, or 0 for one row and column at the end.
    #[serde(default = "one_pixel")]
    pub downsample_padding: usize,
    /// Added to the variance in residual and attention blocks (the spatial transformers' is 1e-6).
    #[serde(default = "default_eps")]
    pub norm_eps: f64,
    /// Groups of the norms.
    #[serde(default = "default_groups")]
    pub norm_num_groups: usize,
    /// The self-attention in the middle has a norm.
    #[serde(default = "yes")]
    pub middle_attention_norm: bool,
    /// Takes samples in [0, 1]: `2 x - 1` comes first.
    #[serde(default)]
    pub center_input_sample: bool,
    /// Divides the outputs of the middle's residual blocks.
    #[serde(default = "unit")]
    pub mid_block_scale_factor: f64,
    /// The middle.
    #[serde(default)]
    pub middle: Middle,
    /// Attention in f32 whatever the model's type.
    #[serde(default)]
    pub upcast_attention: bool,
}

impl UNetConfig {
    /// Everything that has a default has it: no attention on the levels. The middle has some, so one of `num_heads` and
    /// `num_head_channels` is still to be set.
    pub fn new(in_channels: usize, model_channels: usize, out_channels: usize) -> Self {
        Self {
            sample_size: None,
            in_channels,
            model_channels,
            out_channels,
            num_res_blocks: PerLevel::All(2),
            attention_resolutions: vec![],
            dropout: 0.0,
            channel_mult: default_mult(),
            conv_resample: true,
            num_classes: None,
            adm_in_channels: None,
            num_heads: None,
            num_head_channels: None,
            num_heads_upsample: None,
            use_scale_shift_norm: false,
            resblock_updown: never(),
            use_new_attention_order: false,
            use_spatial_transformer: false,
            transformer_depth: one(),
            transformer_depth_middle: None,
            context_dim: None,
            use_linear_in_transformer: false,
            disable_self_attentions: None,
            disable_middle_self_attn: false,
            num_attention_blocks: None,
            legacy: true,
            time_embed_dim: None,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            time_cond_proj_dim: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            downsample_padding: 1,
            norm_eps: default_eps(),
            norm_num_groups: default_groups(),
            middle_attention_norm: true,
            center_input_sample: false,
            mid_block_scale_factor: 1.0,
            middle: Middle::Attention,
            upcast_attention: false,
        }
    }

    /// From the `unet_config.params` of a CompVis YAML file, already read into a JSON value.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Malformed`] names an absent or unknown key; the sizes are checked by `init`.
    pub fn from_compvis(params: &Value) -> Result<Self, ConfigError> {
        <Self as Deserialize>::deserialize(params).map_err(|e| ConfigError::Malformed(e.to_string()))
    }

    /// The number of levels.
    pub fn levels(&self) -> usize {
        self.channel_mult.len()
    }

    /// Width of the blocks' time embedding.
    pub fn time_width(&self) -> usize {
        self.time_embed_dim.unwrap_or(self.model_channels.saturating_mul(4))
    }
}

/// Keys of the YAML files that change how the reference computes, not what.
const NO_EFFECT: [&str; 9] = [
    "image_size",
    "use_checkpoint",
    "use_fp16",
    "use_bf16",
    "spatial_transformer_attn_type",
    "use_fairscale_checkpoint",
    "offload_to_cpu",
    "ckpt_path",
    "ignore_keys",
];

/// Keys that the reference has and this crate hasn't, with the one value that is accepted.
fn only_value(key: &str) -> Option<Value> {
    match key {
        "dims" => Some(Value::from(2)),
        "n_embed" => Some(Value::Null),
        "disable_middle_transformer" => Some(Value::from(false)),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for UNetConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut map = Map::deserialize(deserializer)?;
        map.retain(|key, _| !NO_EFFECT.contains(&key.as_str()));
        for (key, value) in &map {
            if only_value(key).is_some_and(|only| only != *value) {
                return Err(D::Error::custom(format!("`{key}` = {value} is not supported")));
            }
        }
        map.retain(|key, value| only_value(key).is_none() && !value.is_null());
        let mut track = Track::new();
        let tracked = serde_path_to_error::Deserializer::new(Value::Object(map), &mut track);
        Self::deserialize(tracked)
            .map_err(|e| D::Error::custom(serde_path_to_error::Error::new(track.path(), e)))
    }
}

impl Serialize for UNetConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Multipliers of channels: whole numbers are written as such, as the reference needs them.
mod whole_where_possible {
    use super::*;

    pub(super) fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        let number = |v: &f64| if v.fract() == 0.0 { Value::from(*v as u64) } else { Value::from(*v) };
        values.iter().map(number).collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Vec::deserialize(deserializer)
    }
}

/// One side of a square, or height and width.
pub(crate) mod side_or_sides {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(size: &Option<[usize; 2]>, s: S) -> Result<S::Ok, S::Error> {
        match size {
            Some([h, w]) if h == w => h.serialize(s),
            other => other.serialize(s),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<[usize; 2]>, D::Error> {
        match Option::deserialize(d)? {
            None => Ok(None),
            Some(PerLevel::All(side)) => Ok(Some([side, side])),
            Some(PerLevel::Each(sides)) => <[usize; 2]>::try_from(sides)
                .map(Some)
                .map_err(|sides| D::Error::custom(format!("{} sides of an image", sides.len()))),
        }
    }
}

/// `-1` stands for "not given" in the YAML files.
fn minus_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PerLevel<usize>>, D::Error> {
    let count = |v: i64| usize::try_from(v).map_err(|_| D::Error::custom(format!("{v} heads")));
    match Option::deserialize(deserializer)? {
        None | Some(PerLevel::All(-1)) => Ok(None),
        Some(PerLevel::All(v)) => Ok(Some(PerLevel::All(count(v)?))),
        Some(PerLevel::Each(v)) => {
            Ok(Some(PerLevel::Each(v.into_iter().map(count).collect::<Result<_, _>>()?)))
        }
    }
}

/// The reference takes a list too, one width a transformer block: they have to be alike here.
fn one_width<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    match Option::<PerLevel<usize>>::deserialize(deserializer)?.map(|widths| match widths {
        PerLevel::Each(widths) => PerLevel::from_each(widths),
        all => all,
    }) {
        None => Ok(None),
        Some(PerLevel::All(width)) => Ok(Some(width)),
        Some(PerLevel::Each(widths)) => {
            Err(D::Error::custom(format!("`context_dim` = {widths:?}: widths that differ are not supported")))
        }
    }
}

fn default_mult() -> Vec<f64> {
    vec![1.0, 2.0, 4.0, 8.0]
}

fn yes() -> bool {
    true
}

fn never() -> PerLevel<bool> {
    PerLevel::All(false)
}

fn one() -> PerLevel<usize> {
    PerLevel::All(1)
}

fn one_pixel() -> usize {
    1
}

fn unit() -> f64 {
    1.0
}

fn default_eps() -> f64 {
    1e-5
}

fn default_groups() -> usize {
    32
}

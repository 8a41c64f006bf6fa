//! A checked config, level by level: what modules and key maps are built from.

use crate::config::{AddedEmbedding, NumClasses, VectorLabel};
use crate::{ConfigError, LabelEmbedding, Middle, UNetConfig};

/// One resolution of the U-Net.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    pub channels: usize,
    pub res_blocks: usize,
    pub attention: Option<Attention>,
    /// How many of the blocks have attention, down and up.
    pub attention_blocks: usize,
    pub resblock_updown: bool,
}

/// The attention of one level, or of the middle.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    pub heads: usize,
    /// On the way up.
    pub heads_up: usize,
    /// Transformer blocks; 0 for an attention block without context.
    pub depth: usize,
    pub only_cross_attention: bool,
}

/// A config whose values have been found to fit together.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub levels: Vec<Level>,
    /// The attention in the middle, where there is one.
    pub middle: Option<Attention>,
    pub label: Option<LabelEmbedding>,
    pub added: Option<TextTime>,
}

/// Stable Diffusion XL's added embedding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TextTime {
    /// Of text embedding and sinusoids together.
    pub width: usize,
    /// Sinusoids of each number.
    pub time_dim: usize,
}

impl Plan {
    pub fn new(config: &UNetConfig) -> Result<Self, ConfigError> {
        check_sizes(config)?;
        let levels = levels(config)?;
        let coarsest = levels.len() - 1;
        let middle = match config.middle {
            Middle::Attention => {
                let depth = config.transformer_depth_middle;
                let attention = attention(config, coarsest, levels[coarsest].channels, depth)?;
                Some(Attention { only_cross_attention: config.disable_middle_self_attn, ..attention })
            }
            _ => None,
        };
        if config.use_spatial_transformer && config.context_dim.is_none() {
            let because = "`use_spatial_transformer` is true".into();
            return Err(ConfigError::Missing { key: "context_dim", because });
        }
        if !config.use_spatial_transformer && config.context_dim.is_some() {
            let because = "`context_dim` is set".into();
            return Err(ConfigError::Missing { key: "use_spatial_transformer", because });
        }
        let added = added(config)?;
        let label = if added.is_some() && sequential(config) { None } else { label(config)? };
        Ok(Self { levels, middle, label, added })
    }

    /// Width of the context, where any attention reads one.
    pub fn context(&self, config: &UNetConfig) -> Option<usize> {
        let any = self.middle.is_some() || self.levels.iter().any(|level| level.attention.is_some());
        config.context_dim.filter(|_| any)
    }

    /// Channels of each tensor that the way down leaves for the way up, first to last.
    pub fn skips(&self, model_channels: usize) -> Vec<usize> {
        let mut skips = vec![model_channels];
        for (i, level) in self.levels.iter().enumerate() {
            let downsampled = usize::from(i + 1 < self.levels.len());
            skips.extend(std::iter::repeat_n(level.channels, level.res_blocks + downsampled));
        }
        skips
    }
}

fn unsupported(key: &str, value: impl ToString, hint: &str) -> ConfigError {
    ConfigError::Unsupported { key: key.into(), value: value.to_string(), hint: hint.into() }
}

/// The largest width and number of anything; it keeps products of sizes far from overflow.
const LARGEST_SIZE: usize = 1 << 24;
/// The most levels: beyond them a latent of 32,768 pixels a side has no pixel left.
pub(crate) const MOST_LEVELS: usize = 16;
/// The most blocks a level, and transformer blocks an attention.
const MOST_BLOCKS: usize = 1024;

fn check_sizes(config: &UNetConfig) -> Result<(), ConfigError> {
    let sizes = [
        ("in_channels", config.in_channels),
        ("model_channels", config.model_channels),
        ("out_channels", config.out_channels),
        ("norm_num_groups", config.norm_num_groups),
        ("time_embed_dim", config.time_width()),
        ("context_dim", config.context_dim.unwrap_or(1)),
        ("adm_in_channels", config.adm_in_channels.unwrap_or(1)),
        ("time_cond_proj_dim", config.time_cond_proj_dim.unwrap_or(1)),
    ];
    if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
        return Err(unsupported(key, 0, ": at least 1"));
    }
    if let Some((key, size)) = sizes.iter().find(|(_, size)| *size > LARGEST_SIZE) {
        return Err(unsupported(key, size, &format!(": at most {LARGEST_SIZE}")));
    }
    if config.levels() > MOST_LEVELS {
        let value = format!("{} levels", config.levels());
        return Err(unsupported("channel_mult", value, &format!(": at most {MOST_LEVELS} levels")));
    }
    if config.channel_mult.first() != Some(&1.0) {
        let value = format!("{:?}", config.channel_mult);
        return Err(unsupported("channel_mult", value, ": the first level has `model_channels` channels"));
    }
    if config.model_channels / 2 <= config.freq_shift.max(0.0) as usize {
        return Err(unsupported("model_channels", config.model_channels, ": too few for the sinusoids"));
    }
    if !(0.0..1.0).contains(&config.dropout) {
        return Err(unsupported("dropout", config.dropout, ": 0 or more, below 1"));
    }
    if config.downsample_padding > 1 {
        return Err(unsupported("downsample_padding", config.downsample_padding, ": 0 or 1"));
    }
    Ok(())
}

fn levels(config: &UNetConfig) -> Result<Vec<Level>, ConfigError> {
    let n = config.levels();
    let res_blocks = config.num_res_blocks.each("num_res_blocks", n)?;
    let updown = config.resblock_updown.each("resblock_updown", n)?;
    // Factors beyond the coarsest level's stand in published files, and match no level there either.
    if let Some(factor) = config.attention_resolutions.iter().find(|f| !f.is_power_of_two()) {
        return Err(unsupported("attention_resolutions", factor, ": downsampling factors are powers of two"));
    }
    let limits = match &config.num_attention_blocks {
        Some(limits) if limits.len() != n => {
            let key = "num_attention_blocks".into();
            return Err(ConfigError::Levels { key, levels: n, got: limits.len() });
        }
        Some(limits) => limits.clone(),
        None => vec![usize::MAX; n],
    };
    let mut levels = Vec::with_capacity(n);
    for i in 0..n {
        let channels = channels(config, i)?;
        if !(1..=MOST_BLOCKS).contains(&res_blocks[i]) {
            let hint = format!(": between 1 and {MOST_BLOCKS}");
            return Err(unsupported("num_res_blocks", res_blocks[i], &hint));
        }
        let attention = match config.attention_resolutions.contains(&(1 << i)) && limits[i] > 0 {
            true => Some(attention(config, i, channels, None)?),
            false => None,
        };
        levels.push(Level {
            channels,
            res_blocks: res_blocks[i],
            attention_blocks: if attention.is_some() { limits[i] } else { 0 },
            attention,
            resblock_updown: updown[i],
        });
    }
    Ok(levels)
}

fn channels(config: &UNetConfig, level: usize) -> Result<usize, ConfigError> {
    let exact = config.channel_mult[level] * config.model_channels as f64;
    let channels = exact.round();
    // Written so that NaN is refused too.
    let whole = (1.0..=LARGEST_SIZE as f64).contains(&channels) && (exact - channels).abs() <= 1e-6;
    if !whole {
        return Err(unsupported("channel_mult", config.channel_mult[level], ": not a number of channels"));
    }
    let (size, divisor) = (channels as usize, config.norm_num_groups);
    if !size.is_multiple_of(divisor) {
        let what = format!("level {level}: channels");
        return Err(ConfigError::Indivisible { what, size, by: "`norm_num_groups`".into(), divisor });
    }
    Ok(size)
}

/// The attention at one level, with `depth` blocks if that is given.
fn attention(
    config: &UNetConfig,
    level: usize,
    channels: usize,
    depth: Option<usize>,
) -> Result<Attention, ConfigError> {
    let n = config.levels();
    let each = |key, value: &Option<_>| match value {
        Some(value) => crate::PerLevel::each(value, key, n).map(|v| Some(v[level])),
        None => Ok(None),
    };
    let split = |by: &str, divisor: usize| {
        if divisor == 0 || !channels.is_multiple_of(divisor) {
            let what = format!("attention at level {level}: channels");
            return Err(ConfigError::Indivisible { what, size: channels, by: by.into(), divisor });
        }
        Ok(channels / divisor)
    };
    let width = each("num_head_channels", &config.num_head_channels)?;
    let heads = match (width, each("num_heads", &config.num_heads)?) {
        (Some(width), _) => split("`num_head_channels`", width)?,
        (None, Some(heads)) => {
            split("`num_heads`", heads)?;
            heads
        }
        (None, None) => {
            let because = format!("level {level} has attention, and `num_head_channels` is absent too");
            return Err(ConfigError::Missing { key: "num_heads", because });
        }
    };
    let heads_up = match each("num_heads_upsample", &config.num_heads_upsample)? {
        Some(up) if config.legacy && !config.use_spatial_transformer && width.is_none() => {
            split("`num_heads_upsample`", up)?;
            up
        }
        _ => heads,
    };
    let depth = match (config.use_spatial_transformer, depth) {
        (false, _) => 0,
        (true, Some(depth)) => depth,
        (true, None) => config.transformer_depth.each("transformer_depth", n)?[level],
    };
    if config.use_spatial_transformer && !(1..=MOST_BLOCKS).contains(&depth) {
        let hint = format!(": between 1 and {MOST_BLOCKS} where a level has attention");
        return Err(unsupported("transformer_depth", depth, &hint));
    }
    let only_cross_attention = match &config.disable_self_attentions {
        Some(disabled) => disabled.each("disable_self_attentions", n)?[level],
        None => false,
    };
    Ok(Attention { heads, heads_up, depth, only_cross_attention })
}

fn needed<T>(value: Option<T>, key: &'static str, because: &str) -> Result<T, ConfigError> {
    value.ok_or_else(|| ConfigError::Missing { key, because: because.into() })
}

fn sequential(config: &UNetConfig) -> bool {
    config.num_classes == Some(NumClasses::Vector(VectorLabel::Sequential))
}

fn label(config: &UNetConfig) -> Result<Option<LabelEmbedding>, ConfigError> {
    let width = |because| needed(config.adm_in_channels, "adm_in_channels", because);
    Ok(match config.num_classes {
        None => None,
        Some(NumClasses::Count(0)) => return Err(unsupported("num_classes", 0, ": at least 1")),
        Some(NumClasses::Count(classes)) => Some(LabelEmbedding::Classes(classes)),
        Some(NumClasses::Vector(kind)) => Some(match kind {
            VectorLabel::Sequential | VectorLabel::Projection => {
                LabelEmbedding::Projection(width("`num_classes` is \"sequential\" or \"projection\"")?)
            }
            VectorLabel::SimpleProjection => {
                LabelEmbedding::Linear(width("`num_classes` is \"simple_projection\"")?)
            }
            VectorLabel::Continuous => LabelEmbedding::Linear(1),
            VectorLabel::Timestep => LabelEmbedding::Timestep,
            VectorLabel::Identity => LabelEmbedding::Identity,
        }),
    })
}

/// Width of each number's sinusoids in Stable Diffusion XL, which its YAML keeps outside the U-Net's params.
const SDXL_TIME_DIM: usize = 256;

/// A `sequential` label is SDXL's added embedding where the context has the width of one of its encoders'
/// (base 2048, refiner 1280); diffusers' converter tells them apart the same way.
fn added(config: &UNetConfig) -> Result<Option<TextTime>, ConfigError> {
    let of_sdxl = sequential(config) && matches!(config.context_dim, Some(2048 | 1280));
    let time_dim = match config.addition_embed_type {
        Some(AddedEmbedding::TextTime) => {
            let because = "`addition_embed_type` is \"text_time\"";
            needed(config.addition_time_embed_dim, "addition_time_embed_dim", because)?
        }
        None if of_sdxl => config.addition_time_embed_dim.unwrap_or(SDXL_TIME_DIM),
        None => return Ok(None),
    };
    if time_dim < 2 {
        return Err(unsupported("addition_time_embed_dim", time_dim, ": at least 2"));
    }
    let width = needed(config.adm_in_channels, "adm_in_channels", "the added embeddings have that width")?;
    Ok(Some(TextTime { width, time_dim }))
}

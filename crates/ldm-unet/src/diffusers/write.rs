use ldm_nn::DIFFUSERS_VERSION;
use serde_json::{Map, Value, json};

use super::{BLOCK_TYPES, BlockAttention, DiffusersClass};
use crate::plan::{Attention, Plan};
use crate::{ConfigError, LabelEmbedding, Middle, UNetConfig};

impl UNetConfig {
    /// The class of diffusers that has this model.
    pub fn diffusers_class(&self) -> DiffusersClass {
        let conditions = self.use_spatial_transformer
            || self.middle == Middle::Resnet
            || self.addition_embed_type.is_some()
            || self.adm_in_channels.is_some()
            || self.time_cond_proj_dim.is_some();
        match conditions {
            true => DiffusersClass::UNet2DConditionModel,
            false => DiffusersClass::UNet2DModel,
        }
    }

    /// As a config.json of diffusers, for the class that [`diffusers_class`](Self::diffusers_class) names.
    ///
    /// # Errors
    ///
    /// As [`UNetConfig::init`], and [`ConfigError::Inexpressible`] names what that class doesn't have.
    pub fn to_diffusers(&self) -> Result<Value, ConfigError> {
        let plan = Plan::new(self)?;
        let class = self.diffusers_class();
        let writer = Writer { config: self, plan: &plan, class };
        let mut map = writer.shared()?;
        match class {
            DiffusersClass::UNet2DConditionModel => writer.condition_model(&mut map)?,
            DiffusersClass::UNet2DModel => writer.model(&mut map)?,
        }
        Ok(Value::Object(map))
    }
}

struct Writer<'a> {
    config: &'a UNetConfig,
    plan: &'a Plan,
    class: DiffusersClass,
}

impl Writer<'_> {
    fn lacks(&self, key: &'static str, value: impl ToString) -> ConfigError {
        ConfigError::Inexpressible { format: self.class.name(), key, value: value.to_string() }
    }

    fn shared(&self) -> Result<Map<String, Value>, ConfigError> {
        let (config, levels) = (self.config, &self.plan.levels);
        if !config.conv_resample {
            return Err(self.lacks("conv_resample", false));
        }
        let partly = levels.iter().find(|l| l.attention.is_some() && l.attention_blocks <= l.res_blocks);
        if let Some(level) = partly {
            return Err(self.lacks("num_attention_blocks", level.attention_blocks));
        }
        if levels.iter().filter_map(|l| l.attention.as_ref()).any(|a| a.heads != a.heads_up) {
            return Err(self.lacks("num_heads_upsample", "another number than on the way down"));
        }
        let types = levels.iter().map(|level| self.block_types(level)).collect::<Result<Vec<_>, _>>()?;
        let blocks: Vec<_> = levels.iter().map(|level| level.res_blocks).collect();
        let size = match config.sample_size {
            Some([h, w]) if h == w => json!(h),
            other => json!(other),
        };
        let fields = json!({
            "_class_name": self.class.name(),
            "_diffusers_version": DIFFUSERS_VERSION,
            "act_fn": "silu",
            "block_out_channels": levels.iter().map(|level| level.channels).collect::<Vec<_>>(),
            "center_input_sample": config.center_input_sample,
            "down_block_types": types.iter().map(|(down, _)| *down).collect::<Vec<_>>(),
            "downsample_padding": config.downsample_padding,
            "dropout": config.dropout,
            "flip_sin_to_cos": config.flip_sin_to_cos,
            "freq_shift": number(config.freq_shift),
            "in_channels": config.in_channels,
            "layers_per_block": one_or_all(&blocks),
            "mid_block_scale_factor": number(config.mid_block_scale_factor),
            "norm_eps": config.norm_eps,
            "norm_num_groups": config.norm_num_groups,
            "out_channels": config.out_channels,
            "resnet_time_scale_shift": if config.use_scale_shift_norm { "scale_shift" } else { "default" },
            "sample_size": size,
            "time_embedding_dim": config.time_embed_dim,
            "time_embedding_type": "positional",
            "up_block_types": types.iter().rev().map(|(_, up)| *up).collect::<Vec<_>>(),
        });
        match fields {
            Value::Object(map) => Ok(map),
            _ => Ok(Map::new()),
        }
    }

    fn block_types(&self, level: &crate::plan::Level) -> Result<(&'static str, &'static str), ConfigError> {
        let attention = match (&level.attention, self.config.use_spatial_transformer) {
            (None, _) => BlockAttention::None,
            (Some(_), false) => BlockAttention::Block,
            (Some(_), true) => BlockAttention::Transformer,
        };
        // Attention blocks keep this in `downsample_type`, of UNet2DModel only.
        let in_type = level.resblock_updown && attention != BlockAttention::Block;
        let elsewhere = level.resblock_updown && !in_type && self.class == DiffusersClass::UNet2DModel;
        let fits = |row: &&(_, _, BlockAttention, bool)| row.2 == attention && (row.3 == in_type);
        match BLOCK_TYPES.iter().find(fits) {
            Some((down, up, _, _)) if in_type || elsewhere || !level.resblock_updown => Ok((down, up)),
            _ => Err(self.lacks("resblock_updown", "true on a level with attention")),
        }
    }

    fn condition_model(&self, map: &mut Map<String, Value>) -> Result<(), ConfigError> {
        let (config, levels) = (self.config, &self.plan.levels);
        let middle = match config.middle {
            Middle::Attention if config.use_spatial_transformer => json!("UNetMidBlock2DCrossAttn"),
            Middle::Resnet => json!("UNetMidBlock2D"),
            Middle::Nothing => Value::Null,
            other => return Err(self.lacks("middle", format!("{other:?}"))),
        };
        map.insert("mid_block_type".into(), middle);
        if let Some(middle) = &self.plan.middle {
            if middle.only_cross_attention {
                return Err(self.lacks("disable_middle_self_attn", true));
            }
            let coarsest = levels.last().and_then(|level| level.attention.as_ref());
            if coarsest.is_some_and(|a| a.depth != middle.depth) {
                return Err(self.lacks("transformer_depth_middle", middle.depth));
            }
        }
        // A level without attention has a number all the same; the coarsest level's is the middle's.
        let each = |value: fn(&Attention) -> usize| -> Vec<usize> {
            let last = self.plan.middle.as_ref();
            let here = |(i, level): (usize, &crate::plan::Level)| {
                let middle = last.filter(|_| i + 1 == levels.len());
                level.attention.as_ref().or(middle).map_or(1, value)
            };
            levels.iter().enumerate().map(here).collect()
        };
        if config.use_spatial_transformer {
            map.insert("attention_head_dim".into(), one_or_all(&each(|a| a.heads)));
            map.insert("transformer_layers_per_block".into(), one_or_all(&each(|a| a.depth)));
            map.insert("cross_attention_dim".into(), json!(config.context_dim));
            let only: Vec<_> =
                each(|a| usize::from(a.only_cross_attention)).iter().map(|n| *n == 1).collect();
            // Without attention there is nothing to say; the default keeps the key out of the way.
            let only: Vec<_> =
                only.iter().zip(levels).map(|(only, level)| *only && level.attention.is_some()).collect();
            map.insert("only_cross_attention".into(), one_or_all(&only));
        } else {
            map.insert("attention_head_dim".into(), self.head_width()?);
        }
        map.insert("use_linear_projection".into(), json!(config.use_linear_in_transformer));
        map.insert("upcast_attention".into(), json!(config.upcast_attention));
        map.insert("time_cond_proj_dim".into(), json!(config.time_cond_proj_dim));
        let mut width = config.adm_in_channels;
        if let Some(added) = self.plan.added {
            map.insert("addition_embed_type".into(), json!("text_time"));
            map.insert("addition_time_embed_dim".into(), json!(added.time_dim));
        }
        let label = match self.plan.label {
            None => Value::Null,
            Some(LabelEmbedding::Classes(classes)) => {
                map.insert("num_class_embeds".into(), json!(classes));
                Value::Null
            }
            Some(LabelEmbedding::Projection(_)) => json!("projection"),
            Some(LabelEmbedding::Linear(d)) => {
                width = Some(d);
                json!("simple_projection")
            }
            Some(LabelEmbedding::Timestep) => json!("timestep"),
            Some(LabelEmbedding::Identity) => json!("identity"),
        };
        map.insert("class_embed_type".into(), label);
        map.insert("projection_class_embeddings_input_dim".into(), json!(width));
        Ok(())
    }

    fn model(&self, map: &mut Map<String, Value>) -> Result<(), ConfigError> {
        let config = self.config;
        let resnet = |(i, level): (usize, &crate::plan::Level)| {
            let changes = i + 1 < self.plan.levels.len() || i > 0;
            (level.attention.is_some() && changes).then_some(level.resblock_updown)
        };
        let mut kinds: Vec<_> = self.plan.levels.iter().enumerate().filter_map(resnet).collect();
        kinds.dedup();
        if kinds.len() > 1 {
            return Err(self.lacks("resblock_updown", "different values on levels with attention"));
        }
        let kind = if kinds.first() == Some(&true) { "resnet" } else { "conv" };
        map.insert("downsample_type".into(), json!(kind));
        map.insert("upsample_type".into(), json!(kind));
        map.insert("attention_head_dim".into(), self.head_width()?);
        let middle = match config.middle {
            Middle::Nothing => Value::Null,
            _ => json!("UNetMidBlock2D"),
        };
        map.insert("mid_block_type".into(), middle);
        map.insert("add_attention".into(), json!(config.middle != Middle::Resnets));
        if !config.middle_attention_norm && !config.use_scale_shift_norm {
            return Err(self.lacks("middle_attention_norm", false));
        }
        let groups =
            (config.middle_attention_norm && config.use_scale_shift_norm).then_some(config.norm_num_groups);
        map.insert("attn_norm_num_groups".into(), json!(groups));
        let label = match self.plan.label {
            None => Value::Null,
            Some(LabelEmbedding::Classes(classes)) => {
                map.insert("num_class_embeds".into(), json!(classes));
                Value::Null
            }
            Some(LabelEmbedding::Timestep) => json!("timestep"),
            Some(LabelEmbedding::Identity) => json!("identity"),
            Some(other) => return Err(self.lacks("num_classes", format!("{other:?}"))),
        };
        map.insert("class_embed_type".into(), label);
        if config.upcast_attention {
            return Err(self.lacks("upcast_attention", true));
        }
        Ok(())
    }

    /// `attention_head_dim` of blocks without context: one width of a head for all levels, null for one head.
    fn head_width(&self) -> Result<Value, ConfigError> {
        let levels = &self.plan.levels;
        let coarsest = levels.last().map_or(0, |level| level.channels);
        let middle = self.plan.middle.iter().map(|a| (coarsest, a.heads));
        let of_level = |l: &crate::plan::Level| l.attention.as_ref().map(|a| (l.channels, a.heads));
        let all: Vec<_> = levels.iter().filter_map(of_level).chain(middle).collect();
        let Some((channels, heads)) = all.first() else {
            return Ok(json!(8));
        };
        if self.config.num_head_channels.is_none() && all.iter().all(|(_, heads)| *heads == 1) {
            return Ok(Value::Null);
        }
        let width = channels / heads;
        if all.iter().all(|(channels, heads)| channels / heads == width) {
            return Ok(json!(width));
        }
        Err(self.lacks("num_heads", "heads whose width differs between levels"))
    }
}

/// One value where all are alike.
fn one_or_all<T: serde::Serialize + PartialEq>(values: &[T]) -> Value {
    match values.first() {
        Some(first) if values.iter().all(|v| v == first) => json!(first),
        _ => json!(values),
    }
}

/// A whole number as such: diffusers' own files have `1`, not `1.0`.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

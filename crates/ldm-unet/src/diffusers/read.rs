use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{BLOCK_TYPES, BlockAttention, DiffusersClass};
use crate::plan::MOST_LEVELS;
use crate::{AddedEmbedding, ConfigError, Middle, NumClasses, PerLevel, UNetConfig, VectorLabel};

/// Keys whose other values this crate has no layers for, with the value that it has.
const ONLY: [(&str, Value); 4] = [
    ("resnet_skip_time_act", Value::Bool(false)),
    ("dual_cross_attention", Value::Bool(false)),
    ("class_embeddings_concat", Value::Bool(false)),
    ("cross_attention_norm", Value::Null),
];

/// The same for keys whose value is absent or null.
const ONLY_NULL: [&str; 6] = [
    "num_attention_heads",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "reverse_transformer_layers_per_block",
    "time_embedding_act_fn",
    "timestep_post_act",
];

/// Keys that change nothing in the layers that this crate has, and those of EMA copies.
const NO_EFFECT: [&str; 10] = [
    "mid_block_only_cross_attention",
    "addition_embed_type_num_heads",
    "num_train_timesteps",
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
];

impl UNetConfig {
    /// From the config.json of diffusers' `UNet2DConditionModel` or `UNet2DModel`, as `_class_name` says
    /// (`UNet2DConditionModel` where it says nothing). An absent key has that class's own default.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Unsupported`] names the first key whose value has no counterpart here, unknown keys
    /// included; [`ConfigError::Levels`] a list of the wrong length; the sizes are checked by `init`.
    pub fn from_diffusers(config: &Value) -> Result<Self, ConfigError> {
        let map = config.as_object().ok_or_else(|| ConfigError::Malformed("not a JSON object".into()))?;
        let class = match map.get("_class_name") {
            None => DiffusersClass::UNet2DConditionModel,
            Some(name) => [DiffusersClass::UNet2DConditionModel, DiffusersClass::UNet2DModel]
                .into_iter()
                .find(|class| name == class.name())
                .ok_or_else(|| unsupported("_class_name", name, ""))?,
        };
        let mut keys = Keys { map: map.clone() };
        keys.map.retain(|key, _| !key.starts_with('_') && !NO_EFFECT.contains(&key.as_str()));
        let config = match class {
            DiffusersClass::UNet2DConditionModel => condition_model(&mut keys)?,
            DiffusersClass::UNet2DModel => model(&mut keys)?,
        };
        match keys.map.iter().next() {
            Some((key, value)) => Err(unsupported(key, value, ": unknown key")),
            None => Ok(config),
        }
    }
}

fn unsupported(key: &str, value: &Value, hint: &str) -> ConfigError {
    ConfigError::Unsupported { key: key.into(), value: value.to_string(), hint: hint.into() }
}

/// The keys that have not been read yet.
struct Keys {
    map: Map<String, Value>,
}

impl Keys {
    fn take<T: DeserializeOwned>(&mut self, key: &str, default: Value) -> Result<T, ConfigError> {
        let value = self.map.remove(key).unwrap_or(default);
        serde_json::from_value(value.clone()).map_err(|e| unsupported(key, &value, &format!(": {e}")))
    }

    /// Reads a key that may have one value only.
    fn only(&mut self, key: &str, value: Value) -> Result<(), ConfigError> {
        let same = |other: &Value| match (other.as_f64(), value.as_f64()) {
            (Some(other), Some(value)) => other == value,
            _ => *other == value,
        };
        match self.map.remove(key) {
            Some(other) if !same(&other) => Err(unsupported(key, &other, &format!(": {value} is"))),
            _ => Ok(()),
        }
    }

    /// Reads a key that may have a few values, given with their meanings.
    fn choice<T: Copy>(&mut self, key: &str, default: Value, table: &[(Value, T)]) -> Result<T, ConfigError> {
        let value = self.map.remove(key).unwrap_or(default);
        let found = table.iter().find(|(name, _)| *name == value);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| unsupported(key, &value, ""))
    }
}

/// What both classes have; `ours` has the rest.
fn shared(keys: &mut Keys, channels: usize, block_channels: Value) -> Result<UNetConfig, ConfigError> {
    let blocks: Vec<usize> = keys.take("block_out_channels", block_channels)?;
    let Some(first) = blocks.first().copied().filter(|first| *first > 0) else {
        return Err(unsupported("block_out_channels", &json!(blocks), ": at least one level"));
    };
    if blocks.len() > MOST_LEVELS {
        let value = json!(format!("{} levels", blocks.len()));
        return Err(unsupported("block_out_channels", &value, &format!(": at most {MOST_LEVELS} levels")));
    }
    let in_channels = keys.take("in_channels", json!(channels))?;
    let mut config = UNetConfig::new(in_channels, first, keys.take("out_channels", json!(channels))?);
    config.channel_mult = blocks.iter().map(|c| *c as f64 / first as f64).collect();
    config.num_res_blocks = keys.take("layers_per_block", json!(2))?;
    config.sample_size = match keys.take::<Option<PerLevel<usize>>>("sample_size", Value::Null)? {
        None => None,
        Some(PerLevel::All(side)) => Some([side, side]),
        Some(PerLevel::Each(sides)) => Some(
            <[usize; 2]>::try_from(sides)
                .map_err(|sides| unsupported("sample_size", &json!(sides), ": one or two sides"))?,
        ),
    };
    config.dropout = keys.take("dropout", json!(0.0))?;
    config.center_input_sample = keys.take("center_input_sample", json!(false))?;
    config.flip_sin_to_cos = keys.take("flip_sin_to_cos", json!(true))?;
    config.freq_shift = keys.take("freq_shift", json!(0))?;
    config.downsample_padding = keys.take("downsample_padding", json!(1))?;
    config.mid_block_scale_factor = keys.take("mid_block_scale_factor", json!(1.0))?;
    config.norm_num_groups = keys.take("norm_num_groups", json!(32))?;
    config.norm_eps = keys.take("norm_eps", json!(1e-5))?;
    config.time_embed_dim = keys.take("time_embedding_dim", Value::Null)?;
    let shift = [(json!("default"), false), (json!("scale_shift"), true)];
    config.use_scale_shift_norm = keys.choice("resnet_time_scale_shift", json!("default"), &shift)?;
    keys.choice("act_fn", json!("silu"), &[(json!("silu"), ()), (json!("swish"), ())])?;
    keys.only("time_embedding_type", json!("positional"))?;
    Ok(config)
}

fn condition_model(keys: &mut Keys) -> Result<UNetConfig, ConfigError> {
    let mut config = shared(keys, 4, json!([320, 640, 1280, 1280]))?;
    for (key, value) in ONLY {
        keys.only(key, value)?;
    }
    for key in ONLY_NULL {
        keys.only(key, Value::Null)?;
    }
    keys.only("resnet_out_scale_factor", json!(1.0))?;
    keys.only("conv_in_kernel", json!(3))?;
    keys.only("conv_out_kernel", json!(3))?;
    keys.only("attention_type", json!("default"))?;

    let cross = "CrossAttnDownBlock2D";
    let down = keys.take("down_block_types", json!([cross, cross, cross, "DownBlock2D"]))?;
    let cross = "CrossAttnUpBlock2D";
    let up = keys.take("up_block_types", json!(["UpBlock2D", cross, cross, cross]))?;
    let blocks = Blocks::read(down, up, config.levels(), [false; 2])?;
    config.middle = keys.choice(
        "mid_block_type",
        json!("UNetMidBlock2DCrossAttn"),
        &[
            (json!("UNetMidBlock2DCrossAttn"), Middle::Attention),
            (json!("UNetMidBlock2D"), Middle::Resnet),
            (Value::Null, Middle::Nothing),
        ],
    )?;
    let transformers = config.middle == Middle::Attention || blocks.has(BlockAttention::Transformer);
    if transformers && blocks.has(BlockAttention::Block) {
        let hint = " beside attention to a context";
        return Err(unsupported("down_block_types", &json!("AttnDownBlock2D"), hint));
    }
    blocks.apply(&mut config);

    let heads: PerLevel<usize> = keys.take("attention_head_dim", json!(8))?;
    let context: PerLevel<usize> = keys.take("cross_attention_dim", json!(1280))?;
    let depth: PerLevel<usize> = keys.take("transformer_layers_per_block", json!(1))?;
    let only_cross: PerLevel<bool> = keys.take("only_cross_attention", json!(false))?;
    config.use_linear_in_transformer = keys.take("use_linear_projection", json!(false))?;
    config.upcast_attention = keys.take("upcast_attention", json!(false))?;
    if transformers {
        // The name says width, the class takes it for the number of heads.
        config.num_heads = Some(heads);
        config.use_spatial_transformer = true;
        config.transformer_depth = depth;
        config.context_dim = match PerLevel::from_each(context.each("cross_attention_dim", config.levels())?)
        {
            PerLevel::All(width) => Some(width),
            PerLevel::Each(widths) => {
                return Err(unsupported("cross_attention_dim", &json!(widths), ": widths have to be alike"));
            }
        };
        if only_cross != PerLevel::All(false) {
            config.disable_self_attentions = Some(only_cross);
        }
    } else {
        if let PerLevel::Each(_) = heads {
            // On the way up the class reads this list from the wrong end.
            let hint = ": one number, where blocks have attention without a context";
            return Err(unsupported("attention_head_dim", &json!(heads), hint));
        }
        config.num_head_channels = Some(heads);
    }
    config.time_cond_proj_dim = keys.take("time_cond_proj_dim", Value::Null)?;
    config.adm_in_channels = keys.take("projection_class_embeddings_input_dim", Value::Null)?;
    config.addition_time_embed_dim = keys.take("addition_time_embed_dim", Value::Null)?;
    config.addition_embed_type = keys.choice(
        "addition_embed_type",
        Value::Null,
        &[(Value::Null, None), (json!("text_time"), Some(AddedEmbedding::TextTime))],
    )?;
    config.num_classes = label(
        keys,
        &[
            ("timestep", VectorLabel::Timestep),
            ("identity", VectorLabel::Identity),
            ("projection", VectorLabel::Projection),
            ("simple_projection", VectorLabel::SimpleProjection),
        ],
    )?;
    Ok(config)
}

fn model(keys: &mut Keys) -> Result<UNetConfig, ConfigError> {
    let mut config = shared(keys, 3, json!([224, 448, 672, 896]))?;
    let kinds = [(json!("conv"), false), (json!("resnet"), true)];
    let resnet = [
        keys.choice("downsample_type", json!("conv"), &kinds)?,
        keys.choice("upsample_type", json!("conv"), &kinds)?,
    ];
    let attn = "AttnDownBlock2D";
    let down = keys.take("down_block_types", json!(["DownBlock2D", attn, attn, attn]))?;
    let attn = "AttnUpBlock2D";
    let up = keys.take("up_block_types", json!([attn, attn, attn, "UpBlock2D"]))?;
    let blocks = Blocks::read(down, up, config.levels(), resnet)?;
    if blocks.has(BlockAttention::Transformer) {
        let hint = " in a UNet2DModel, which has no context";
        return Err(unsupported("down_block_types", &json!("CrossAttnDownBlock2D"), hint));
    }
    blocks.apply(&mut config);
    let middle = [(json!("UNetMidBlock2D"), true), (Value::Null, false)];
    let middle = keys.choice("mid_block_type", json!("UNetMidBlock2D"), &middle)?;
    config.middle = match (middle, keys.take("add_attention", json!(true))?) {
        (false, _) => Middle::Nothing,
        (true, true) => Middle::Attention,
        (true, false) => Middle::Resnets,
    };
    // Without a number of its own, the middle's attention has a norm only where time is added, not scaled.
    config.middle_attention_norm = match keys.take::<Option<usize>>("attn_norm_num_groups", Value::Null)? {
        None => !config.use_scale_shift_norm,
        Some(groups) if groups == config.norm_num_groups => true,
        Some(groups) => {
            return Err(unsupported("attn_norm_num_groups", &json!(groups), ": as `norm_num_groups`"));
        }
    };
    // Here the width of a head, as the name says; null is one head as wide as the level.
    match keys.take("attention_head_dim", json!(8))? {
        Some(width) => config.num_head_channels = Some(PerLevel::All(width)),
        None => config.num_heads = Some(PerLevel::All(1)),
    }
    config.num_classes =
        label(keys, &[("timestep", VectorLabel::Timestep), ("identity", VectorLabel::Identity)])?;
    Ok(config)
}

fn label(keys: &mut Keys, kinds: &[(&str, VectorLabel)]) -> Result<Option<NumClasses>, ConfigError> {
    let classes: Option<usize> = keys.take("num_class_embeds", Value::Null)?;
    let mut table = vec![(Value::Null, classes.map(NumClasses::Count))];
    table.extend(kinds.iter().map(|(name, kind)| (json!(name), Some(NumClasses::Vector(*kind)))));
    keys.choice("class_embed_type", Value::Null, &table)
}

/// What the block types say of each level.
struct Blocks {
    attention: Vec<BlockAttention>,
    updown: Vec<bool>,
}

impl Blocks {
    /// `resnet`: whether `AttnDownBlock2D` and `AttnUpBlock2D` change the resolution in a residual block.
    fn read(
        down: Vec<String>,
        up: Vec<String>,
        levels: usize,
        resnet: [bool; 2],
    ) -> Result<Self, ConfigError> {
        for (key, types) in [("down_block_types", &down), ("up_block_types", &up)] {
            if types.len() != levels {
                return Err(ConfigError::Levels { key: key.into(), levels, got: types.len() });
            }
        }
        let (mut attention, mut updown) = (Vec::new(), Vec::new());
        for (level, (down, up)) in down.iter().zip(up.iter().rev()).enumerate() {
            let (kind, down_resnet) = block("down_block_types", down, |row| row.0, resnet[0])?;
            let (up_kind, up_resnet) = block("up_block_types", up, |row| row.1, resnet[1])?;
            // The coarsest level has no way further down, the finest none further up.
            let (goes_down, goes_up) = (level + 1 < levels, level > 0);
            if kind != up_kind || (goes_down && goes_up && down_resnet != up_resnet) {
                return Err(unsupported("up_block_types", &json!(up), &format!(" opposite {down}")));
            }
            attention.push(kind);
            updown.push((goes_down && down_resnet) || (goes_up && up_resnet));
        }
        Ok(Self { attention, updown })
    }

    fn has(&self, kind: BlockAttention) -> bool {
        self.attention.contains(&kind)
    }

    fn apply(self, config: &mut UNetConfig) {
        let has_attention = |level: &usize| self.attention[*level] != BlockAttention::None;
        config.attention_resolutions =
            (0..self.attention.len()).filter(has_attention).map(|level| 1 << level).collect();
        config.resblock_updown = PerLevel::from_each(self.updown);
    }
}

fn block(
    key: &str,
    name: &str,
    column: fn(&(&'static str, &'static str, BlockAttention, bool)) -> &'static str,
    resnet: bool,
) -> Result<(BlockAttention, bool), ConfigError> {
    let plain = name.strip_prefix("UNetRes").unwrap_or(name);
    let row = BLOCK_TYPES.iter().find(|row| column(row) == plain);
    let (_, _, attention, updown) = row.ok_or_else(|| {
        let known = BLOCK_TYPES.iter().map(column).collect::<Vec<_>>().join(", ");
        unsupported(key, &json!(name), &format!(": one of {known}"))
    })?;
    Ok((*attention, *updown || (resnet && *attention == BlockAttention::Block)))
}

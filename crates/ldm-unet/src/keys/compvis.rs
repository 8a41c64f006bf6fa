//! Names as in a CompVis checkpoint, below `model.diffusion_model.`.

use ldm_nn::lora::is_adapter;
use ldm_nn::weights::{Entry, KeyMap, Layout};

use super::{indexed, renamed, transformer};
use crate::plan::Plan;
use crate::{ConfigError, LabelEmbedding, Middle, UNetConfig};

const TOP: [(&str, &str); 6] = [
    ("conv_in", "input_blocks.0.0"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("class_embedding", "label_emb"),
];

const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// Places of query, key and value in `qkv`.
const QKV: [(&str, usize); 3] = [("to_q.", 0), ("to_k.", 1), ("to_v.", 2)];

/// Maps a [`UNet`](crate::UNet)'s parameters to CompVis' names: `input_blocks.N.M`, `middle_block.M`,
/// `output_blocks.N.M`, counted as the reference counts them.
#[derive(Debug, Clone)]
pub struct CompVisKeys {
    transformer: bool,
    linear: bool,
    new_attention_order: bool,
    /// The place of the label's two layers.
    label: &'static str,
    /// Down, middle, up; the way up with the coarsest level first.
    down: Vec<Side>,
    middle_heads: usize,
    up: Vec<Side>,
}

/// One level on one way.
#[derive(Debug, Clone)]
struct Side {
    /// The number of the level's first block.
    first: usize,
    res_blocks: usize,
    attention_blocks: usize,
    heads: usize,
}

impl UNetConfig {
    /// The names that CompVis' code gives this model's parameters, below `model.diffusion_model.`.
    ///
    /// # Errors
    ///
    /// As [`UNetConfig::init`], and [`ConfigError::Inexpressible`] where CompVis has no such model.
    pub fn compvis_keys(&self) -> Result<CompVisKeys, ConfigError> {
        let plan = Plan::new(self)?;
        let lacks = |key, value: String| ConfigError::Inexpressible { format: "CompVis", key, value };
        if self.middle != Middle::Attention {
            return Err(lacks("middle", format!("{:?}", self.middle)));
        }
        if !self.middle_attention_norm && !self.use_spatial_transformer {
            return Err(lacks("middle_attention_norm", "false".into()));
        }
        if let Some(width) = self.time_cond_proj_dim {
            return Err(lacks("time_cond_proj_dim", width.to_string()));
        }
        if plan.added.is_some() && plan.label.is_some() {
            return Err(lacks("addition_embed_type", "\"text_time\" beside `num_classes`".into()));
        }
        let (mut down, mut up) = (Vec::new(), Vec::new());
        let mut first = 1;
        for level in &plan.levels {
            let heads = level.attention.as_ref().map_or(1, |a| a.heads);
            let attention_blocks = level.attention_blocks;
            down.push(Side { first, res_blocks: level.res_blocks, attention_blocks, heads });
            first += level.res_blocks + 1;
        }
        first = 0;
        for level in plan.levels.iter().rev() {
            let heads = level.attention.as_ref().map_or(1, |a| a.heads_up);
            let (res_blocks, attention_blocks) = (level.res_blocks + 1, level.attention_blocks);
            up.push(Side { first, res_blocks, attention_blocks, heads });
            first += res_blocks;
        }
        Ok(CompVisKeys {
            transformer: self.use_spatial_transformer,
            linear: self.use_linear_in_transformer,
            new_attention_order: self.use_new_attention_order,
            label: if plan.label == Some(LabelEmbedding::Timestep) { "label_emb.1" } else { "label_emb.0" },
            down,
            middle_heads: plan.middle.as_ref().map_or(1, |a| a.heads),
            up,
        })
    }
}

impl CompVisKeys {
    fn attention(&self, path: &str, heads: usize) -> Option<(String, Layout)> {
        if self.transformer {
            return transformer(path, self.linear);
        }
        let per_head = (!self.new_attention_order).then_some(heads);
        for (ours, part) in QKV {
            if let Some(rest) = path.strip_prefix(ours) {
                let layout = Layout::Qkv { part, per_head, conv: rest == "weight" };
                return Some((format!("qkv.{rest}"), layout));
            }
        }
        let layout = if path == "to_out.weight" { Layout::Conv1d1x1 } else { Layout::Same };
        renamed(path, &[("norm", "norm"), ("to_out", "proj_out")]).map(|name| (name, layout))
    }

    /// A parameter of one level: the block's number, then the layer's number and name inside it.
    fn block(&self, side: &Side, path: &str) -> Option<(usize, String, Layout)> {
        if let Some((j, rest)) = path.strip_prefix("resnets.").and_then(indexed) {
            return Some((side.first + j, format!("0.{}", renamed(rest, &RESNET)?), Layout::Same));
        }
        if let Some((j, rest)) = path.strip_prefix("attentions.").and_then(indexed) {
            let (name, layout) = self.attention(rest, side.heads)?;
            return Some((side.first + j, format!("1.{name}"), layout));
        }
        // Half the resolution is a block of its own, twice the resolution the last layer of the last block.
        let end = side.first + side.res_blocks;
        if let Some(rest) = path.strip_prefix("downsample.") {
            let name = resampler(rest, "op")?;
            return Some((end, format!("0.{name}"), Layout::Same));
        }
        let name = resampler(path.strip_prefix("upsample.")?, "conv")?;
        let layer = if side.attention_blocks >= side.res_blocks { 2 } else { 1 };
        Some((end - 1, format!("{layer}.{name}"), Layout::Same))
    }

    fn middle(&self, path: &str) -> Option<(String, Layout)> {
        if let Some((j, rest)) = path.strip_prefix("resnets.").and_then(indexed) {
            return Some((format!("{}.{}", 2 * j, renamed(rest, &RESNET)?), Layout::Same));
        }
        let (name, layout) = self.attention(path.strip_prefix("attention.")?, self.middle_heads)?;
        Some((format!("1.{name}"), layout))
    }

    /// A label embedding or SDXL's added embedding: the same place in the reference.
    fn label(&self, path: &str) -> Option<String> {
        let layers = |rest: &str| {
            renamed(rest, &[("linear_1", "0"), ("linear_2", "2")])
                .map(|name| format!("{}.{name}", self.label))
        };
        for head in ["class_projection.", "add_embedding."] {
            if let Some(rest) = path.strip_prefix(head) {
                return layers(rest);
            }
        }
        renamed(path, &[("class_linear", "label_emb")])
    }
}

fn resampler(path: &str, conv: &str) -> Option<String> {
    match path.strip_prefix("resnet.") {
        Some(rest) => renamed(rest, &RESNET),
        None => renamed(path, &[("conv", conv)]),
    }
}

impl KeyMap for CompVisKeys {
    fn entry(&self, path: &str) -> Option<Entry> {
        if is_adapter(path) {
            return None;
        }
        for (ours, theirs, sides) in
            [("down_blocks.", "input_blocks", &self.down), ("up_blocks.", "output_blocks", &self.up)]
        {
            if let Some((i, rest)) = path.strip_prefix(ours).and_then(indexed) {
                let (block, name, layout) = self.block(sides.get(i)?, rest)?;
                return Some(Entry::new(format!("{theirs}.{block}.{name}"), layout));
            }
        }
        if let Some(rest) = path.strip_prefix("mid_block.") {
            return self
                .middle(rest)
                .map(|(name, layout)| Entry::new(format!("middle_block.{name}"), layout));
        }
        self.label(path).or_else(|| renamed(path, &TOP)).map(Entry::same)
    }
}

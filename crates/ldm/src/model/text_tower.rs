//! Text encoders in single files: their configs are not there, but their shapes tell.

use std::path::Path;

use ldm_conditioning::clip::{
    ClipKeys, ClipText, ClipTextConfig, ClipTextEncoder, ClipTokenizer, HiddenState,
};
use ldm_nn::Activation;
use ldm_nn::weights::WeightFile;

use super::single_file::{read, unsupported};
use super::yaml::Target;
use super::{Family, LoadOptions, StableDiffusion};
use crate::Error;

/// Where the text encoders lie: Stable Diffusion 1, 2, and XL's two.
pub(super) const CLIP: &str = "cond_stage_model.transformer.";
pub(super) const OPEN_CLIP: &str = "cond_stage_model.model.";
const XL_FIRST: &str = "conditioner.embedders.0.transformer.";
const XL_SECOND: &str = "conditioner.embedders.1.model.";

/// The head width of every published CLIP text tower.
const HEAD_WIDTH: usize = 64;

/// One text encoder of a single file.
pub(super) struct Tower {
    prefix: &'static str,
    config: ClipTextConfig,
    state: HiddenState,
}

/// The naming of the encoder under `prefix`.
pub(super) fn keys(prefix: &str) -> ClipKeys {
    if matches!(prefix, OPEN_CLIP | XL_SECOND) { ClipKeys::OpenClip } else { ClipKeys::Transformers }
}

/// A model's CLIP text encoders, each with the prefix that it is written under.
pub(super) fn written(model: &StableDiffusion) -> Vec<(&ClipText, &'static str)> {
    let Some(first) = model.text.first.clip() else { return Vec::new() };
    match &model.text.second {
        Some(second) => vec![(first, XL_FIRST), (second, XL_SECOND)],
        // OpenAI's towers have its approximate GELU, OpenCLIP's the exact one.
        None if first.encoder.config().hidden_act == Activation::QuickGelu => vec![(first, CLIP)],
        None => vec![(first, OPEN_CLIP)],
    }
}

/// The towers of a published model.
pub(super) fn published(family: Family, file: &WeightFile) -> Result<Vec<Tower>, Error> {
    match family {
        Family::StableDiffusionXl => xl(file),
        _ if file.contains(&format!("{OPEN_CLIP}token_embedding.weight")) => Ok(vec![penultimate(file)?]),
        _ => Ok(vec![Tower::new(file, CLIP, HiddenState::LAST)?]),
    }
}

/// The tower that a YAML's `cond_stage_config` names.
pub(super) fn from_target(yaml: &Path, target: &Target, file: &WeightFile) -> Result<Tower, Error> {
    let layer = target.params.get("layer").and_then(serde_json::Value::as_str);
    match (target.class(), layer) {
        ("FrozenCLIPEmbedder", None | Some("last")) => Tower::new(file, CLIP, HiddenState::LAST),
        ("FrozenOpenCLIPEmbedder", Some("penultimate")) => penultimate(file),
        ("FrozenOpenCLIPEmbedder", None | Some("last")) => Tower::new(file, OPEN_CLIP, HiddenState::LAST),
        (_, Some(layer)) => Err(unsupported(yaml, &format!("`{}` with layer `{layer}`", target.target))),
        (_, None) => Err(unsupported(yaml, &format!("the text encoder `{}`", target.target))),
    }
}

/// The towers that Stability's `conditioner_config` lists.
pub(super) fn from_conditioner(yaml: &Path, target: &Target, file: &WeightFile) -> Result<Vec<Tower>, Error> {
    let models = target.params.get("emb_models").cloned().unwrap_or_default();
    let models: Vec<Target> = serde_json::from_value(models).map_err(|e| Error::config(yaml, e))?;
    let classes: Vec<_> = models.iter().map(Target::class).collect();
    match classes.as_slice() {
        ["FrozenCLIPEmbedder", "FrozenOpenCLIPEmbedder2", ..] => xl(file),
        _ => Err(unsupported(yaml, &format!("a conditioner of {}", classes.join(", ")))),
    }
}

fn xl(file: &WeightFile) -> Result<Vec<Tower>, Error> {
    let state = HiddenState::PENULTIMATE;
    Ok(vec![Tower::new(file, XL_FIRST, state)?, Tower::new(file, XL_SECOND, state)?])
}

/// Stable Diffusion 2 reads the penultimate layer through the final norm: the same as a tower of one layer
/// less that is read at its end, which is how diffusers keeps it.
fn penultimate(file: &WeightFile) -> Result<Tower, Error> {
    let mut tower = Tower::new(file, OPEN_CLIP, HiddenState::LAST)?;
    tower.config.num_hidden_layers = tower.config.num_hidden_layers.saturating_sub(1);
    tower.config.architectures = vec!["CLIPTextModel".into()];
    Ok(tower)
}

impl Tower {
    fn new(file: &WeightFile, prefix: &'static str, state: HiddenState) -> Result<Self, Error> {
        let open = keys(prefix) == ClipKeys::OpenClip;
        let names = if open { &OPEN_CLIP_NAMES } else { &CLIP_NAMES };
        let shape = |name: &str| {
            let key = format!("{prefix}{name}");
            let shape = file.info(&key).map(|info| info.shape.clone());
            shape.filter(|shape| shape.len() == 2).ok_or_else(|| Error::NotAModel {
                path: file.path().into(),
                reason: format!("its text encoder lacks the table `{key}`"),
            })
        };
        let [tokens, positions, mlp] = [shape(names.tokens)?, shape(names.positions)?, shape(names.mlp)?];
        let width = tokens[1];
        let layers =
            (0..).take_while(|i| file.contains(&format!("{prefix}{}.{i}.{}", names.layers, names.norm)));
        let projection =
            file.info(&format!("{prefix}text_projection")).and_then(|info| info.shape.get(1).copied());
        let architecture = if projection.is_some() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
        let config = ClipTextConfig {
            architectures: vec![architecture.into()],
            vocab_size: tokens[0],
            hidden_size: width,
            intermediate_size: mlp[0],
            projection_dim: projection.unwrap_or(width),
            num_hidden_layers: layers.count(),
            num_attention_heads: (width / HEAD_WIDTH).max(1),
            max_position_embeddings: positions[0],
            hidden_act: if open { Activation::Gelu } else { Activation::QuickGelu },
            ..ClipTextConfig::vit_l_14()
        };
        Ok(Self { prefix, config, state })
    }

    /// Loads the encoder and makes its tokenizer, which no single file carries.
    pub fn load(&self, file: &WeightFile, options: &LoadOptions) -> Result<ClipText, Error> {
        let encoder = self.encoder(file, options)?;
        let tokenizer = match keys(self.prefix) {
            ClipKeys::OpenClip => ClipTokenizer::open_clip(),
            _ => ClipTokenizer::open_ai(),
        };
        let tokenizer = tokenizer.map_err(|e| Error::Conditioning(e.into()))?;
        Ok(ClipText::new(tokenizer, encoder, self.state))
    }

    /// Loads the encoder alone.
    pub fn encoder(&self, file: &WeightFile, options: &LoadOptions) -> Result<ClipTextEncoder, Error> {
        let encoder = self.config.init(&options.device).map_err(|e| Error::config(file.path(), e))?;
        // What `penultimate` leaves out.
        let unused = format!("transformer.resblocks.{}.*", self.config.num_hidden_layers);
        read(file, self.prefix, encoder, &keys(self.prefix), options.dtype, &[&unused, "text_projection"])
    }
}

/// The tensors whose shapes tell a tower's config.
struct Names {
    tokens: &'static str,
    positions: &'static str,
    mlp: &'static str,
    layers: &'static str,
    norm: &'static str,
}

const CLIP_NAMES: Names = Names {
    tokens: "text_model.embeddings.token_embedding.weight",
    positions: "text_model.embeddings.position_embedding.weight",
    mlp: "text_model.encoder.layers.0.mlp.fc1.weight",
    layers: "text_model.encoder.layers",
    norm: "layer_norm1.weight",
};

const OPEN_CLIP_NAMES: Names = Names {
    tokens: "token_embedding.weight",
    positions: "positional_embedding",
    mlp: "transformer.resblocks.0.mlp.c_fc.weight",
    layers: "transformer.resblocks",
    norm: "ln_1.weight",
};

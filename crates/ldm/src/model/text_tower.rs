//! Text encoders in single files: their configs are not there, but their shapes tell.

use std::path::Path;

use ldm_conditioning::clip::{
    ClipKeys, ClipText, ClipTextConfig, ClipTextEncoder, ClipTokenizer, HiddenState,
};
use ldm_nn::Activation;
use ldm_nn::weights::WeightFile;

use super::recognise::Known;
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

/// Where a text encoder lies in a whole model, and how that model reads it.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    prefix: &'static str,
    keys: ClipKeys,
    state: HiddenState,
    /// Stable Diffusion 2 reads the penultimate layer through the final norm: the same as a tower of one layer less
    /// that is read at its end, which is how diffusers keeps it.
    without_last: bool,
}

const SD1: Slot =
    Slot { prefix: CLIP, keys: ClipKeys::Transformers, state: HiddenState::LAST, without_last: false };
const SD2: Slot = Slot { without_last: true, ..SD2_WHOLE };
const SD2_WHOLE: Slot =
    Slot { prefix: OPEN_CLIP, keys: ClipKeys::OpenClip, state: HiddenState::LAST, without_last: false };
const XL: [Slot; 2] = [
    Slot { prefix: XL_FIRST, state: HiddenState::PENULTIMATE, ..SD1 },
    Slot { prefix: XL_SECOND, state: HiddenState::PENULTIMATE, ..SD2_WHOLE },
];

/// What may stand before the names of an encoder that a file holds alone.
const ALONE: [&str; 3] = ["transformer.", "model.", ""];
/// The widest of OpenAI's towers, which have the approximate GELU; OpenCLIP's in transformers' names are wider.
const WIDEST_OPEN_AI: usize = 768;

/// One text encoder of a single file.
pub(super) struct Tower {
    prefix: &'static str,
    keys: ClipKeys,
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

/// The encoders of a published model.
pub(super) fn published(family: Family, file: &WeightFile) -> Vec<Slot> {
    match family {
        Family::StableDiffusionXl => XL.to_vec(),
        _ if file.contains(&format!("{OPEN_CLIP}token_embedding.weight")) => vec![SD2],
        _ => vec![SD1],
    }
}

/// The encoders of a file without a YAML: a published model's, or the one that is there alone, which is then the one
/// that is asked for.
pub(super) fn recognised(file: &WeightFile) -> Result<Vec<Slot>, Error> {
    if let Some(known) = Known::recognise(file) {
        return Ok(published(known.family(), file));
    }
    let alone = [XL[0], SD1, SD2_WHOLE].into_iter().find(|slot| slot.place(file).is_some());
    let alone = alone.ok_or_else(|| Error::NotAModel {
        path: file.path().into(),
        reason: "its keys are those of no known text encoder; give its YAML config".into(),
    })?;
    Ok(vec![alone; 2])
}

/// The encoder that a YAML's `cond_stage_config` names.
pub(super) fn from_target(yaml: &Path, target: &Target) -> Result<Slot, Error> {
    let layer = target.params.get("layer").and_then(serde_json::Value::as_str);
    match (target.class(), layer) {
        ("FrozenCLIPEmbedder", None | Some("last")) => Ok(SD1),
        ("FrozenOpenCLIPEmbedder", Some("penultimate")) => Ok(SD2),
        ("FrozenOpenCLIPEmbedder", None | Some("last")) => Ok(SD2_WHOLE),
        (_, Some(layer)) => Err(unsupported(yaml, &format!("`{}` with layer `{layer}`", target.target))),
        (_, None) => Err(unsupported(yaml, &format!("the text encoder `{}`", target.target))),
    }
}

/// The encoders that Stability's `conditioner_config` lists.
pub(super) fn from_conditioner(yaml: &Path, target: &Target) -> Result<Vec<Slot>, Error> {
    let models = target.params.get("emb_models").cloned().unwrap_or_default();
    let models: Vec<Target> = serde_path_to_error::deserialize(models).map_err(|e| Error::config(yaml, e))?;
    let classes: Vec<_> = models.iter().map(Target::class).collect();
    match classes.as_slice() {
        ["FrozenCLIPEmbedder", "FrozenOpenCLIPEmbedder2", ..] => Ok(XL.to_vec()),
        _ => Err(unsupported(yaml, &format!("a conditioner of {}", classes.join(", ")))),
    }
}

impl Slot {
    fn names(&self) -> &'static Names {
        if self.keys == ClipKeys::OpenClip { &OPEN_CLIP_NAMES } else { &CLIP_NAMES }
    }

    /// The prefix under which the file has the encoder, and what transformers puts between that and its names.
    fn place(&self, file: &WeightFile) -> Option<(&'static str, &'static str)> {
        let names = self.names();
        let prefixes = std::iter::once(self.prefix).chain(ALONE);
        let mut places = prefixes.flat_map(|prefix| names.roots.iter().map(move |root| (prefix, *root)));
        places.find(|(prefix, root)| file.contains(&format!("{prefix}{root}{}", names.tokens)))
    }

    /// The encoder, its sizes told by the shapes of its tensors.
    pub fn tower(&self, file: &WeightFile) -> Result<Tower, Error> {
        let (open, names) = (self.keys == ClipKeys::OpenClip, self.names());
        let (prefix, root) = self.place(file).unwrap_or((self.prefix, names.roots[0]));
        let alone = prefix != self.prefix;
        let shape = |name: &str| {
            let key = format!("{prefix}{root}{name}");
            let shape = file.info(&key).map(|info| info.shape.clone());
            shape.filter(|shape| shape.len() == 2).ok_or_else(|| Error::NotAModel {
                path: file.path().into(),
                reason: format!("its text encoder lacks the table `{key}`"),
            })
        };
        let [tokens, positions, mlp] = [shape(names.tokens)?, shape(names.positions)?, shape(names.mlp)?];
        let width = tokens[1];
        let layer = |i: &usize| format!("{prefix}{root}{}.{i}.{}", names.layers, names.norm);
        let layers = (0..).take_while(|i| file.contains(&layer(i))).count();
        let (projection, axis) = names.projection;
        let projection = file.info(&format!("{prefix}{projection}"));
        let projection = projection.and_then(|info| info.shape.get(axis).copied());
        // Merged models may carry one in the first encoder's place, where no model reads it.
        let projects = projection.is_some() && !self.without_last && (open || alone);
        let architecture = if projects { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
        let exact = open || (alone && width > WIDEST_OPEN_AI);
        let config = ClipTextConfig {
            architectures: vec![architecture.into()],
            vocab_size: tokens[0],
            hidden_size: width,
            intermediate_size: mlp[0],
            projection_dim: projection.unwrap_or(width),
            num_hidden_layers: layers.saturating_sub(usize::from(self.without_last)),
            num_attention_heads: (width / HEAD_WIDTH).max(1),
            max_position_embeddings: positions[0],
            hidden_act: if exact { Activation::Gelu } else { Activation::QuickGelu },
            ..ClipTextConfig::vit_l_14()
        };
        Ok(Tower { prefix, keys: self.keys, config, state: self.state })
    }
}

impl Tower {
    /// What stands before its names in the file.
    pub fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Loads the encoder and makes its tokenizer, which no single file carries.
    pub fn load(&self, file: &WeightFile, options: &LoadOptions) -> Result<ClipText, Error> {
        let encoder = self.encoder(file, options)?;
        let tokenizer = match self.keys {
            ClipKeys::OpenClip => ClipTokenizer::open_clip(),
            _ => ClipTokenizer::open_ai(),
        };
        let tokenizer = tokenizer.map_err(|e| Error::Conditioning(e.into()))?;
        Ok(ClipText::new(tokenizer, encoder, self.state))
    }

    /// Loads the encoder alone.
    pub fn encoder(&self, file: &WeightFile, options: &LoadOptions) -> Result<ClipTextEncoder, Error> {
        let encoder = self.config.init(&options.device).map_err(|e| Error::config(file.path(), e))?;
        // What `without_last` leaves out.
        let unused = format!("transformer.resblocks.{}.*", self.config.num_hidden_layers);
        read(file, self.prefix, encoder, &self.keys, options.dtype, &[&unused, "text_projection"])
    }
}

/// The tensors whose shapes tell a tower's config.
struct Names {
    /// What stands before all of them but the projection: transformers 5 leaves its own out.
    roots: &'static [&'static str],
    tokens: &'static str,
    positions: &'static str,
    mlp: &'static str,
    layers: &'static str,
    norm: &'static str,
    /// The projection, and the axis that is its output.
    projection: (&'static str, usize),
}

const CLIP_NAMES: Names = Names {
    roots: &["text_model.", ""],
    tokens: "embeddings.token_embedding.weight",
    positions: "embeddings.position_embedding.weight",
    mlp: "encoder.layers.0.mlp.fc1.weight",
    layers: "encoder.layers",
    norm: "layer_norm1.weight",
    projection: ("text_projection.weight", 0),
};

const OPEN_CLIP_NAMES: Names = Names {
    roots: &[""],
    tokens: "token_embedding.weight",
    positions: "positional_embedding",
    mlp: "transformer.resblocks.0.mlp.c_fc.weight",
    layers: "transformer.resblocks",
    norm: "ln_1.weight",
    projection: ("text_projection", 1),
};

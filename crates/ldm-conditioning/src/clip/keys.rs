use ldm_nn::weights::{Entry, KeyMap, Layout};

/// How a weight file names a [`ClipTextEncoder`](super::ClipTextEncoder)'s parameters.
///
/// Inside a checkpoint the names follow a prefix, which the loader adds: `cond_stage_model.transformer.`
/// (Stable Diffusion 1), `cond_stage_model.model.` (2), `conditioner.embedders.0.transformer.` and
/// `conditioner.embedders.1.model.` (SDXL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipKeys {
    /// `text_model.encoder.layers.0...`: transformers, Stable Diffusion 1's checkpoints and SDXL's first
    /// encoder. Read also without `text_model.`, as transformers 5 saves a `CLIPTextModel`.
    Transformers,
    /// `transformer.resblocks.0...`: OpenCLIP.
    OpenClip,
}

/// Our name at the top level, then transformers', then OpenCLIP's.
const TOP: [(&str, &str, &str); 5] = [
    ("token_embedding.weight", "embeddings.token_embedding.weight", "token_embedding.weight"),
    ("position_embedding.weight", "embeddings.position_embedding.weight", "positional_embedding"),
    ("final_layer_norm.weight", "final_layer_norm.weight", "ln_final.weight"),
    ("final_layer_norm.bias", "final_layer_norm.bias", "ln_final.bias"),
    ("text_projection.weight", "text_projection.weight", "text_projection"),
];

/// Our name inside a layer (which is transformers'), then OpenCLIP's.
const LAYER: [(&str, &str); 5] = [
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
];

/// The parts of OpenCLIP's `in_proj`, in order.
const IN_PROJ: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];

impl ClipKeys {
    /// Recognises the naming from a file's tensor names; `None` where there is no text encoder under `prefix`.
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>, prefix: &str) -> Option<Self> {
        names.into_iter().find_map(|name| match name.strip_prefix(prefix)? {
            "text_model.embeddings.token_embedding.weight" | "embeddings.token_embedding.weight" => {
                Some(Self::Transformers)
            }
            "token_embedding.weight" => Some(Self::OpenClip),
            _ => None,
        })
    }
}

impl KeyMap for ClipKeys {
    fn entry(&self, path: &str) -> Option<Entry> {
        match self {
            Self::Transformers => transformers(path, "text_model."),
            Self::OpenClip => open_clip(path),
        }
    }

    fn entries(&self, path: &str) -> Vec<Entry> {
        let bare = matches!(self, Self::Transformers).then(|| transformers(path, "")).flatten();
        self.entry(path).into_iter().chain(bare).collect()
    }
}

fn transformers(path: &str, root: &str) -> Option<Entry> {
    if path.starts_with("layers.") {
        return Some(Entry::same(format!("{root}encoder.{path}")));
    }
    let (ours, theirs, _) = TOP.iter().find(|(ours, ..)| *ours == path)?;
    // The projection is no part of the text model.
    let root = if ours.starts_with("text_projection") { "" } else { root };
    Some(Entry::same(format!("{root}{theirs}")))
}

/// How a weight file names a [`ClipVisionEncoder`](super::ClipVisionEncoder)'s parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipVisionKeys {
    /// `vision_model.encoder.layers.0...`: transformers' `CLIPVisionModelWithProjection`.
    Transformers,
    /// `visual.transformer.resblocks.0...`: OpenAI's CLIP and OpenCLIP.
    OpenClip,
}

/// Our name, then transformers', then OpenCLIP's.
const VISION: [(&str, &str, &str); 8] = [
    ("class_embedding", "vision_model.embeddings.class_embedding", "class_embedding"),
    ("patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight", "conv1.weight"),
    (
        "position_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
        "positional_embedding",
    ),
    // The reference's own spelling.
    ("pre_layernorm.weight", "vision_model.pre_layrnorm.weight", "ln_pre.weight"),
    ("pre_layernorm.bias", "vision_model.pre_layrnorm.bias", "ln_pre.bias"),
    ("post_layernorm.weight", "vision_model.post_layernorm.weight", "ln_post.weight"),
    ("post_layernorm.bias", "vision_model.post_layernorm.bias", "ln_post.bias"),
    ("visual_projection.weight", "visual_projection.weight", "proj"),
];

impl KeyMap for ClipVisionKeys {
    fn entry(&self, path: &str) -> Option<Entry> {
        let layer = path.strip_prefix("layers.");
        if *self == Self::Transformers {
            let (_, name, _) = match layer {
                Some(_) => return Some(Entry::same(format!("vision_model.encoder.{path}"))),
                None => VISION.iter().find(|(ours, ..)| *ours == path)?,
            };
            return Some(Entry::same(*name));
        }
        let mut entry = match layer {
            Some(rest) => open_clip_layer(rest)?,
            None => {
                let (_, _, name) = VISION.iter().find(|(ours, ..)| *ours == path)?;
                Entry::new(*name, if *name == "proj" { Layout::Transposed } else { Layout::Same })
            }
        };
        entry.key.insert_str(0, "visual.");
        Some(entry)
    }
}

fn open_clip(path: &str) -> Option<Entry> {
    let Some(rest) = path.strip_prefix("layers.") else {
        let (_, _, key) = TOP.iter().find(|(ours, ..)| *ours == path)?;
        let layout = if *key == "text_projection" { Layout::Transposed } else { Layout::Same };
        return Some(Entry::new(*key, layout));
    };
    open_clip_layer(rest)
}

fn open_clip_layer(rest: &str) -> Option<Entry> {
    let (index, rest) = rest.split_once('.')?;
    let (name, kind) = rest.rsplit_once('.')?;
    let block = format!("transformer.resblocks.{index}");
    if let Some(part) = IN_PROJ.iter().position(|n| *n == name) {
        let layout = Layout::Qkv { part, per_head: None, conv: false };
        return Some(Entry::new(format!("{block}.attn.in_proj_{kind}"), layout));
    }
    let (_, key) = LAYER.iter().find(|(ours, _)| *ours == name)?;
    Some(Entry::same(format!("{block}.{key}.{kind}")))
}

//! `model_index.json`: which parts a diffusers directory holds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::read_json;
use crate::Error;

/// The pipelines of diffusers whose directories are read, and the family that each belongs to.
const PIPELINES: &[(&str, Family)] = &[
    ("StableDiffusionPipeline", Family::StableDiffusion),
    ("StableDiffusionImg2ImgPipeline", Family::StableDiffusion),
    ("StableDiffusionInpaintPipeline", Family::StableDiffusion),
    ("LatentConsistencyModelPipeline", Family::StableDiffusion),
    ("LatentConsistencyModelImg2ImgPipeline", Family::StableDiffusion),
    ("StableDiffusionXLPipeline", Family::StableDiffusionXl),
    ("StableDiffusionXLImg2ImgPipeline", Family::StableDiffusionXl),
    ("StableDiffusionXLInpaintPipeline", Family::StableDiffusionXl),
    ("LDMTextToImagePipeline", Family::LatentDiffusion),
];

/// How a model takes its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// One text encoder, cross-attention (Stable Diffusion 1 and 2).
    StableDiffusion,
    /// Two text encoders, pooled text and sizes added to the time embedding.
    StableDiffusionXl,
    /// One transformer over WordPiece tokens, cross-attention (the paper's text-to-image models, and ours).
    LatentDiffusion,
}

/// What a request takes where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// Guidance scale.
    pub guidance: f64,
    /// How far image to image goes, in [0, 1].
    pub image_strength: f64,
    /// How far inpainting goes, in [0, 1].
    pub inpaint_strength: f64,
}

impl Family {
    /// diffusers' own defaults of the family's pipelines; the guidance of the paper's models is that of the
    /// reference's `scripts/txt2img.py`.
    pub fn defaults(self) -> Defaults {
        match self {
            Self::StableDiffusion => Defaults { guidance: 7.5, image_strength: 0.8, inpaint_strength: 1.0 },
            // Just below 1, inpainting shows the picture through the noise ever so slightly.
            Self::StableDiffusionXl => {
                Defaults { guidance: 5.0, image_strength: 0.3, inpaint_strength: 0.9999 }
            }
            Self::LatentDiffusion => Defaults { guidance: 5.0, image_strength: 0.8, inpaint_strength: 1.0 },
        }
    }
}

/// A diffusers directory's table of contents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelIndex {
    /// The pipeline class that the directory was saved from.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Everything else: parts (`[library, class]`) and the pipeline's own settings.
    #[serde(flatten)]
    pub entries: BTreeMap<String, Value>,
}

impl ModelIndex {
    /// Reads `directory/model_index.json`.
    pub(crate) fn read(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("model_index.json");
        if !path.is_file() {
            return Err(Error::NotAModel {
                path: directory.into(),
                reason: "a diffusers directory holds model_index.json".into(),
            });
        }
        read_json(&path)
    }

    /// The family of the pipeline class.
    pub(crate) fn family(&self, directory: &Path) -> Result<Family, Error> {
        let known = PIPELINES.iter().find(|(name, _)| *name == self.class_name);
        known.map(|(_, family)| *family).ok_or_else(|| Error::Unsupported {
            path: directory.join("model_index.json"),
            what: format!("the pipeline class `{}`", self.class_name),
            supported: PIPELINES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Whether the directory says that it holds the part.
    pub(crate) fn has(&self, part: &str) -> bool {
        let class = self.entries.get(part).and_then(|v| v.get(1));
        class.is_some_and(|class| !class.is_null())
    }

    /// The part's class, where the directory says so.
    pub(crate) fn class(&self, part: &str) -> Option<&str> {
        self.entries.get(part)?.get(1)?.as_str()
    }

    /// A setting of the pipeline that is true or false; absent settings are `default`.
    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.entries.get(name).and_then(Value::as_bool).unwrap_or(default)
    }
}

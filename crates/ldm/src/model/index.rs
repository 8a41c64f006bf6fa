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
];

/// How a model takes its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// One text encoder, cross-attention (Stable Diffusion 1 and 2).
    StableDiffusion,
    /// Two text encoders, pooled text and sizes added to the time embedding.
    StableDiffusionXl,
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

    /// A setting of the pipeline that is true or false; absent settings are `default`.
    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.entries.get(name).and_then(Value::as_bool).unwrap_or(default)
    }
}

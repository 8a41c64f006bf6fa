//! One file says everything about a run.
//!
//! Its `model` section is that of the CompVis YAML files, in their own field names, so those load as they are;
//! `data` and `train` are ours. TOML works too: the sections and keys are the same.

mod compvis;
mod compvis_data;
mod data;
mod model;
mod train;
mod weights;

use std::path::Path;

use serde_json::{Value, json};

pub use data::DataSection;
pub use ldm_nn::ConditioningKey;
pub use model::{AutoencoderConfig, DiffusionConfig, EncoderConfig, EncoderSection, ModelConfig, Target};
pub use train::TrainConfig;

use crate::RunError;

/// A run: what is trained, on what, and how.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// A first stage or a diffusion model.
    pub model: ModelConfig,
    /// Where pictures and captions come from. A CompVis file names Python classes here, which mean nothing to this
    /// program: then only `batch_size` is taken, and what its data for super-resolution makes of a picture
    /// (`degradation`, `downscale_f`, `size`, the crops); the caller says where the data is.
    pub data: DataSection,
    /// Optimisation, checkpoints, logs.
    pub train: TrainConfig,
    /// Keys of the file that nothing here reads.
    pub unused: Vec<String>,
    /// The section `model` as it stands in the file.
    document: Value,
}

impl RunConfig {
    /// Reads a `.yaml`, `.yml` or `.toml` file and warns of what it doesn't use.
    ///
    /// # Errors
    ///
    /// A file that can't be read, a key that is missing, has a wrong value or is not known (in the sections that
    /// are ours).
    pub fn read(path: impl AsRef<Path>) -> Result<Self, RunError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(RunError::io(path))?;
        let config = match path.extension().and_then(|e| e.to_str()) {
            Some("toml") => toml::from_str::<Value>(&text).map_err(|e| RunError::config(path, e))?,
            _ => serde_yaml_ng::from_str::<Value>(&text).map_err(|e| RunError::config(path, e))?,
        };
        let config = Self::from_value(&config).map_err(|what| RunError::config(path, what))?;
        if !config.unused.is_empty() {
            tracing::warn!("{}: not used: {}", path.display(), config.unused.join(", "));
        }
        Ok(config)
    }

    /// From a document already read.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), in words.
    pub fn from_value(document: &Value) -> Result<Self, String> {
        compvis::read(document)
    }

    /// The section `model` as it stands in the file.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The highest learning rate: `base_learning_rate`, times the pictures of a step where `scale_lr` says so.
    ///
    /// Source: `main.py` of the reference (accumulate_grad_batches * ngpu * batch_size * base_lr).
    pub fn learning_rate(&self, devices: usize) -> f64 {
        let base = self.model.base_learning_rate();
        if !self.train.scale_lr {
            return base;
        }
        (self.train.accumulate_grad_batches * devices * self.data.loader.batch_size) as f64 * base
    }

    /// The config as it is kept in a checkpoint, to be compared when the run goes on.
    ///
    /// # Errors
    ///
    /// A path that is no text.
    pub(crate) fn fingerprint(&self) -> Result<Value, RunError> {
        let Self { data, train, document, .. } = self;
        let text =
            |value: serde_json::Result<Value>| value.map_err(|e| RunError::config(&data.source.path, e));
        let (data, train) = (text(serde_json::to_value(data))?, text(serde_json::to_value(train))?);
        let mut value = json!({ "model": document, "data": data, "train": train });
        if let Some(loader) = value.pointer_mut("/data/loader").and_then(Value::as_object_mut) {
            // How far ahead and by how many threads pictures are decoded changes nothing; the seed is the run's.
            loader.retain(|key, _| !["seed", "workers", "prefetch"].contains(&key.as_str()));
        }
        if let Some(train) = value.get_mut("train").and_then(Value::as_object_mut) {
            train.retain(|key, _| !TrainConfig::FREE.contains(&key.as_str()));
        }
        // A decay that ends with the run would change its course with `max_steps`.
        value[RESOLVED] = json!({ "decay_until": self.rate().end(self.train.max_steps) });
        Ok(value)
    }
}

/// What the config leaves to defaults that depend on keys that may change. Checkpoints older than an entry are not
/// compared by it.
const RESOLVED: &str = "resolved";

/// The first key, as a path, at which two documents differ, and the two values there.
pub(crate) fn difference(before: &Value, now: &Value) -> Option<(String, String, String)> {
    fn walk(path: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
        if let (Value::Object(a), Value::Object(b)) = (a, b) {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            return keys.into_iter().find_map(|key| {
                if key == RESOLVED && !a.contains_key(key) {
                    return None;
                }
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
            });
        }
        (a != b).then(|| (path.to_string(), a.to_string(), b.to_string()))
    }
    walk("", before, now)
}

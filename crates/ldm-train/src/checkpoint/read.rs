use std::path::{Path, PathBuf};

use burn::module::Module;
use ldm_nn::weights::{Loader, WeightFile};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{VERSION, own_paths};
use crate::RunError;
use crate::optim::AdamW;

/// A checkpoint on disk.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    folder: PathBuf,
    step: u64,
    state: Map<String, Value>,
}

impl Checkpoint {
    /// Opens the checkpoint in `folder`; its tensors are read when they are asked for.
    ///
    /// # Errors
    ///
    /// A `state.json` that is missing, damaged or of another version.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, RunError> {
        let folder = folder.into();
        let path = folder.join("state.json");
        let text = std::fs::read_to_string(&path).map_err(RunError::io(&path))?;
        let state: Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| RunError::checkpoint(&path, e))?;
        if state.get("version") != Some(&json!(VERSION)) {
            let found = state.get("version").cloned().unwrap_or_default();
            let what = format!("`version` is {found}, this program reads {VERSION}");
            return Err(RunError::checkpoint(&path, what));
        }
        let step = state.get("step").and_then(Value::as_u64);
        let step = step.ok_or_else(|| RunError::checkpoint(&path, "`step` is missing"))?;
        Ok(Self { folder, step, state })
    }

    /// How many steps are done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The parameters of a module, from `NAME.safetensors`.
    ///
    /// # Errors
    ///
    /// Parameters that are missing or of another shape, all at once.
    pub fn module<M: Module>(&self, name: &str, module: M) -> Result<M, RunError> {
        let file = self.file(name)?;
        let (module, report) = Loader::new(&own_paths).load(module, &file)?;
        if let Some(unknown) = report.unknown.first() {
            return Err(RunError::checkpoint(file.path(), format!("the model has no parameter {unknown}")));
        }
        Ok(module)
    }

    /// The moments of an optimiser, from `NAME.safetensors`.
    ///
    /// # Errors
    ///
    /// Moments that are missing or of another shape, all at once.
    pub fn optimizer(&self, name: &str, optimizer: AdamW) -> Result<AdamW, RunError> {
        Ok(optimizer.read(&self.file(name)?, "")?)
    }

    /// An entry of `state.json`.
    ///
    /// # Errors
    ///
    /// One that is missing or of another type.
    pub fn state<T: DeserializeOwned>(&self, key: &str) -> Result<T, RunError> {
        self.optional_state(key)?.ok_or_else(|| self.wrong_state(format!("`{key}` is missing")))
    }

    /// An entry of `state.json` that is not in every checkpoint: older ones lack what was added since.
    ///
    /// # Errors
    ///
    /// One of another type.
    pub fn optional_state<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, RunError> {
        let Some(value) = self.state.get(key) else { return Ok(None) };
        let value = serde_json::from_value(value.clone());
        value.map(Some).map_err(|e| self.wrong_state(format!("`{key}`: {e}")))
    }

    fn wrong_state(&self, what: String) -> RunError {
        RunError::checkpoint(&self.folder.join("state.json"), what)
    }

    fn file(&self, name: &str) -> Result<WeightFile, RunError> {
        Ok(WeightFile::open(self.folder.join(format!("{name}.safetensors")))?)
    }
}

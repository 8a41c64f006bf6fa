use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use burn::module::Module;
use ldm_nn::weights::Saver;
use serde_json::{Map, Value, json};

use super::{VERSION, own_paths};
use crate::RunError;
use crate::optim::AdamW;

/// The parts of a checkpoint that is being written.
#[derive(Debug)]
pub struct CheckpointWriter {
    folder: PathBuf,
    state: Map<String, Value>,
}

impl CheckpointWriter {
    pub(super) fn new(folder: PathBuf, step: u64) -> Self {
        let state = Map::from_iter([("version".into(), json!(VERSION)), ("step".into(), json!(step))]);
        Self { folder, state }
    }

    /// A module's float parameters as `NAME.safetensors`, by their own paths.
    ///
    /// # Errors
    ///
    /// What keeps the file from being written.
    pub fn module<M: Module>(&self, name: &str, module: &M) -> Result<(), RunError> {
        let path = self.folder.join(format!("{name}.safetensors"));
        Ok(Saver::new().add(module, &own_paths, "").write(path)?)
    }

    /// An optimiser's moments as `NAME.safetensors`.
    ///
    /// # Errors
    ///
    /// What keeps the file from being written.
    pub fn optimizer(&self, name: &str, optimizer: &AdamW) -> Result<(), RunError> {
        let path = self.folder.join(format!("{name}.safetensors"));
        let tensors = optimizer.tensors().into_iter();
        Ok(tensors.fold(Saver::new(), |saver, (key, data)| saver.add_tensor(key, data)).write(path)?)
    }

    /// An entry of `state.json`.
    pub fn state(&mut self, key: &str, value: Value) {
        self.state.insert(key.into(), value);
    }

    pub(super) fn finish(self) -> Result<(), RunError> {
        let path = self.folder.join("state.json");
        let text = serde_json::to_string_pretty(&Value::Object(self.state))
            .map_err(|e| RunError::checkpoint(&path, e))?;
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(RunError::io(&path))
    }
}

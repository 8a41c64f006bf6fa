//! Finished models in the formats that others read, and first stages read from them.

mod compvis;
mod diffusers;
mod first_stage;

pub use first_stage::{check_first_stage, load_first_stage, save_first_stage};

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::RunError;

fn create(folder: &Path) -> Result<(), RunError> {
    fs::create_dir_all(folder).map_err(RunError::io(folder))
}

fn write_yaml(path: &Path, value: &Value) -> Result<(), RunError> {
    let text = serde_yaml_ng::to_string(value).map_err(|e| RunError::checkpoint(path, e))?;
    fs::write(path, text).map_err(RunError::io(path))
}

fn write_json(path: &Path, value: &Value) -> Result<(), RunError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| RunError::checkpoint(path, e))?;
    fs::write(path, text + "\n").map_err(RunError::io(path))
}

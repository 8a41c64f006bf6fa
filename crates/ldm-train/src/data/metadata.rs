//! Hugging Face's image folder: `metadata.jsonl`, one JSON object a line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Component, Path};

use serde_json::Value;

use super::folder::Found;
use super::{DataConfig, DataError, fields};

/// Every line's picture, in the lines' order; blank lines are skipped.
pub(super) fn read(dir: &Path, config: &DataConfig) -> Result<Vec<Found>, DataError> {
    let path = dir.join("metadata.jsonl");
    let file = File::open(&path).map_err(DataError::io(&path))?;
    let mut found = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let error = |what: String| DataError::Metadata { path: path.clone(), line: number + 1, what };
        let line = line.map_err(|e| error(e.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(&line).map_err(|e| error(e.to_string()))?;
        let object = value.as_object().ok_or_else(|| error("not a JSON object".into()))?;
        let name = match object.get("file_name") {
            Some(Value::String(name)) => name,
            Some(other) => return Err(error(format!("`file_name` is {other}, expected a string"))),
            None => return Err(error("no `file_name`".into())),
        };
        // A data set must not reach outside its folder.
        if !Path::new(name).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(error(format!("`file_name` {name:?} leaves the folder")));
        }
        let picture = dir.join(name);
        if !picture.is_file() {
            return Err(DataError::CaptionWithoutPicture {
                path,
                key: format!("{name} (line {})", number + 1),
            });
        }
        let fields = fields::fields(object, config).map_err(error)?;
        found.push(Found { key: name.clone(), path: picture, fields });
    }
    Ok(found)
}

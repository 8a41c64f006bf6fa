//! Sharded models: a JSON index that says which file holds which tensor.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::WeightError;
use super::file::{self, Contents};
use super::source::Source;

/// The largest index that is read; those of real models are below 1 MB.
const MAX_INDEX: u64 = 64 << 20;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads the index and the list of tensors of every shard that it names.
pub(super) fn read(index: &Source) -> Result<Contents, WeightError> {
    if index.len() > MAX_INDEX {
        return Err(index.wrong_format("it starts as JSON does, but is too large for an index of shards"));
    }
    let text = index.up_to(0, index.len() as usize)?;
    let Index { weight_map } = serde_json::from_slice(&text).map_err(|e| {
        index.wrong_format(format!("it starts as JSON does, but is no index of a sharded model: {e}"))
    })?;

    let mut shards: BTreeMap<&str, Contents> = BTreeMap::new();
    let mut contents = Contents::default();
    for (key, shard) in &weight_map {
        if !shards.contains_key(shard.as_str()) {
            shards.insert(shard, open(index, shard)?);
        }
        let Some(found) = shards.get_mut(shard.as_str()) else { continue };
        if let Some(callable) = found.refused.remove(key) {
            contents.refused.insert(key.clone(), callable);
            continue;
        }
        let found = found.tensors.remove(key);
        let missing = || index.damaged(format!("the shard {shard} lacks {key}, which the index puts there"));
        contents.tensors.insert(key.clone(), found.ok_or_else(missing)?);
    }
    for shard in shards.into_values() {
        contents.metadata.extend(shard.metadata);
    }
    Ok(contents)
}

fn open(index: &Source, shard: &str) -> Result<Contents, WeightError> {
    let name = Path::new(shard);
    if !name.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(index.damaged(format!("the shard {shard:?} lies outside the index's folder")));
    }
    if name.extension().is_some_and(|e| e == "json") {
        return Err(index.damaged(format!("the shard {shard:?} is itself an index")));
    }
    let path = index.path().with_file_name(name);
    if !path.exists() {
        return Err(WeightError::MissingShard { path: index.path().into(), shard: shard.into() });
    }
    file::open(&path)
}

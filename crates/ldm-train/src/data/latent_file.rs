//! The cache of latents on disk: safetensors with `views` [n], `mean` and `logvar` [n, c, h, w]; the key is its metadata.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::{CacheKey, DataError, LatentCache};

const KIND: &str = "latents";

fn parts(key: &CacheKey) -> [(&'static str, &String); 3] {
    [("first_stage", &key.first_stage), ("transform", &key.transform), ("data", &key.data)]
}

pub(super) fn save(cache: &LatentCache, path: &Path) -> Result<(), DataError> {
    let error = |what: String| DataError::Cache { path: path.into(), what };
    let n = cache.len();
    let mut views = vec![0u64; n];
    for (view, place) in &cache.places {
        views[*place] = *view;
    }
    let [c, h, w] = cache.shape;
    let views: Vec<u8> = views.iter().flat_map(|v| v.to_le_bytes()).collect();
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let (means, logvars) = (bytes(&cache.means), bytes(&cache.logvars));
    let view = |dtype, shape: &[usize], data| {
        TensorView::new(dtype, shape.to_vec(), data).map_err(|e| error(e.to_string()))
    };
    let tensors = [
        ("views", view(Dtype::U64, &[n], &views)?),
        ("mean", view(Dtype::F32, &[n, c, h, w], &means)?),
        ("logvar", view(Dtype::F32, &[n, c, h, w], &logvars)?),
    ];
    let mut metadata: HashMap<String, String> =
        parts(&cache.key).into_iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    metadata.insert("kind".into(), KIND.into());
    let file = serialize(tensors, Some(metadata)).map_err(|e| error(e.to_string()))?;
    write_whole(path, &file)
}

/// Beside its place first, so that it is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    let beside = path.with_file_name(name);
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // Of no use to anyone; failing to remove it changes nothing.
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(DataError::io(path))
}

pub(super) fn load(path: &Path, key: &CacheKey) -> Result<LatentCache, DataError> {
    let error = |what: String| DataError::Cache { path: path.into(), what };
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| error(e.to_string()))?;
    let metadata = metadata.metadata().clone().unwrap_or_default();
    if metadata.get("kind").is_none_or(|kind| kind != KIND) {
        return Err(error("another kind of safetensors file".into()));
    }
    for (what, expected) in parts(key) {
        let found = metadata.get(what).cloned().unwrap_or_default();
        if found != *expected {
            let (path, what, expected) = (path.into(), what.into(), expected.clone());
            return Err(DataError::Stale { path, what, expected, found });
        }
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|e| error(e.to_string()))?;
    let tensor = |name: &str, dtype| {
        let tensor = file.tensor(name).map_err(|e| error(e.to_string()))?;
        match tensor.dtype() == dtype {
            true => Ok(tensor),
            false => Err(error(format!("{name} is {:?}", tensor.dtype()))),
        }
    };
    let (views, mean, logvar) =
        (tensor("views", Dtype::U64)?, tensor("mean", Dtype::F32)?, tensor("logvar", Dtype::F32)?);
    let &[n, c, h, w] = mean.shape() else { return Err(error(format!("mean is {:?}", mean.shape()))) };
    if logvar.shape() != mean.shape() || views.shape() != [n] {
        let shapes = (views.shape(), mean.shape(), logvar.shape());
        return Err(error(format!("views, mean and logvar have shapes {shapes:?}")));
    }
    let floats = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
    let views = views.data().as_chunks::<8>().0.iter().map(|v| u64::from_le_bytes(*v));
    Ok(LatentCache {
        key: key.clone(),
        shape: [c, h, w],
        places: views.zip(0..).collect(),
        means: floats(mean.data()),
        logvars: floats(logvar.data()),
    })
}

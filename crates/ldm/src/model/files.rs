//! Which file of a part's folder holds its weights, and JSON files that name themselves in errors.

use std::path::{Path, PathBuf};

use ldm_nn::weights::WeightFile;
use serde::de::DeserializeOwned;

use crate::Error;

/// What diffusers (`diffusion_pytorch_model`) and transformers (`model`, `pytorch_model`) call a part's weights.
const STEMS: &[&str] = &["diffusion_pytorch_model", "model", "pytorch_model"];
/// Formats in the order in which they are preferred; `.index.json` stands for a sharded set.
const FORMATS: &[&str] = &["safetensors", "safetensors.index.json", "bin", "bin.index.json"];

/// Opens the weights of `directory/part`.
///
/// `variant` (`fp16`) is taken first. As in diffusers a part that lacks it has its plain file taken, with a warning, if
/// another part of the directory has the variant; if none has, that is an error. Without a variant the plain file is
/// taken, then any variant that is there.
pub(crate) fn part_weights(directory: &Path, part: &str, variant: Option<&str>) -> Result<WeightFile, Error> {
    let folder = part_folder(directory, part)?;
    if let Some(variant) = variant {
        if let Some(path) = weights_in(&folder, Some(variant)) {
            return Ok(WeightFile::open(&path)?);
        }
        if !any_part_has(directory, variant) {
            return Err(Error::MissingPart {
                directory: directory.into(),
                part: part.into(),
                looked_for: format!("{} holds no weights of the variant `{variant}`", folder.display()),
            });
        }
        tracing::warn!(part, variant, "the part has no such variant; its plain weights are taken");
    }
    let other = ["fp16", "non_ema", "bf16"].into_iter().map(Some);
    let path = std::iter::once(None).chain(other).find_map(|variant| weights_in(&folder, variant));
    let path = path.ok_or_else(|| Error::MissingPart {
        directory: directory.into(),
        part: part.into(),
        looked_for: format!(
            "{} holds none of {}",
            folder.display(),
            candidates(None).collect::<Vec<_>>().join(", ")
        ),
    })?;
    Ok(WeightFile::open(&path)?)
}

/// The weights of this variant in a part's folder.
fn weights_in(folder: &Path, variant: Option<&str>) -> Option<PathBuf> {
    candidates(variant).map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Whether any folder of a model has weights of the variant.
fn any_part_has(directory: &Path, variant: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| weights_in(&entry.path(), Some(variant)).is_some())
}

/// The folder of a part, or the error that the directory lacks it.
pub(crate) fn part_folder(directory: &Path, part: &str) -> Result<PathBuf, Error> {
    let folder = directory.join(part);
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(Error::MissingPart {
        directory: directory.into(),
        part: part.into(),
        looked_for: format!("there is no folder {}", folder.display()),
    })
}

/// `stem.format`, and with a variant `stem.variant.format` as diffusers writes it.
fn candidates(variant: Option<&str>) -> impl Iterator<Item = String> {
    FORMATS.iter().flat_map(move |format| {
        STEMS.iter().map(move |stem| match (variant, format.split_once('.')) {
            (None, _) => format!("{stem}.{format}"),
            (Some(v), None) => format!("{stem}.{v}.{format}"),
            // A sharded set's index: model.safetensors.index.fp16.json
            (Some(v), Some((kind, _))) => format!("{stem}.{kind}.index.{v}.json"),
        })
    })
}

/// Reads `directory/part/name` as JSON.
pub(crate) fn part_json<T: DeserializeOwned>(directory: &Path, part: &str, name: &str) -> Result<T, Error> {
    let path = part_folder(directory, part)?.join(name);
    if !path.is_file() {
        return Err(Error::MissingPart {
            directory: directory.into(),
            part: part.into(),
            looked_for: format!("there is no file {}", path.display()),
        });
    }
    read_json(&path)
}

/// Reads a JSON file; errors name it, the line and the column.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|e| Error::config(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_named_as_diffusers_names_them() {
        let names: Vec<_> = candidates(Some("fp16")).collect();
        assert!(names.contains(&"diffusion_pytorch_model.fp16.safetensors".to_string()), "{names:?}");
        assert!(names.contains(&"model.safetensors.index.fp16.json".to_string()), "{names:?}");
    }
}

//! The samples of one WebDataset shard: entries in a row that share a name up to its first dot.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use ldm_conditioning::LayoutObject;
use serde_json::Value;
use tar::{Archive, Entry};

use super::fields::{Fields, Label, fields};
use super::folder::PICTURES;
use super::{DataConfig, DataError, Location};

const BLOCK: u64 = 512;
/// More than any caption or metadata needs.
const LARGEST_TEXT: u64 = 1 << 20;

/// One sample, its picture not read.
#[derive(Debug)]
pub(super) struct Sample {
    pub key: String,
    pub caption: String,
    pub class: Option<Label>,
    pub picture: Location,
    pub map: Option<Location>,
    pub objects: Option<Vec<LayoutObject>>,
}

/// What has been seen of a sample so far.
#[derive(Debug, Default)]
struct Parts {
    key: String,
    picture: Option<(u64, u64)>,
    map: Option<(u64, u64)>,
    text: Option<String>,
    json: Fields,
    class: Option<Label>,
}

/// A shard's samples of the config's split, in the shard's order. Reads headers and texts, seeks over pictures.
pub(super) fn samples(path: &Arc<Path>, config: &DataConfig) -> Result<Vec<Sample>, DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    let length = file.metadata().map_err(DataError::io(path))?.len();
    let mut archive = Archive::new(&file);
    let mut samples = Vec::new();
    let mut parts: Option<Parts> = None;
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(|e| broken(path, end, length, &e))? {
        let mut entry = entry.map_err(|e| broken(path, end, length, &e))?;
        let (start, size) = (entry.raw_file_position(), entry.size());
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        end = start.saturating_add(size).div_ceil(BLOCK).saturating_mul(BLOCK);
        if start.saturating_add(size) > length {
            let what = format!("{name} ends at byte {}, the file at {length}", start.saturating_add(size));
            return Err(DataError::truncated(path, what));
        }
        let Some((key, extension)) = key(&name) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if parts.as_ref().is_none_or(|p| p.key != key) {
            samples.extend(finish(path, parts.take(), config)?);
        }
        let parts = parts.get_or_insert_with(|| Parts { key: key.into(), ..Parts::default() });
        if PICTURES.contains(&extension.as_str()) {
            if parts.picture.replace((start, size)).is_some() {
                return Err(DataError::shard(path, key, "two pictures"));
            }
        } else if is_map(&extension, config) {
            parts.map = Some((start, size));
        } else if ["txt", "json", "cls"].contains(&extension.as_str()) {
            read(path, &mut entry, &extension, parts, config)?;
        }
    }
    samples.extend(finish(path, parts, config)?);
    ends_with_zeros(path, &file, end, length)?;
    Ok(samples)
}

/// Name up to the first dot of its last part, and the rest in lower case.
fn key(name: &str) -> Option<(&str, String)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[base..].find('.')?;
    (dot > 0).then(|| (&name[..base + dot], name[base + dot + 1..].to_lowercase()))
}

/// Whether a member is the second picture of its sample.
fn is_map(extension: &str, config: &DataConfig) -> bool {
    let Some(suffix) = &config.map_suffix else { return false };
    let kind = extension.strip_prefix(&suffix.to_lowercase()).and_then(|rest| rest.strip_prefix('.'));
    kind.is_some_and(|kind| PICTURES.contains(&kind))
}

/// Takes in a text member.
fn read(
    path: &Path,
    entry: &mut Entry<'_, &File>,
    extension: &str,
    parts: &mut Parts,
    config: &DataConfig,
) -> Result<(), DataError> {
    let error = |what: &dyn std::fmt::Display| {
        DataError::shard(path, format!("{}.{extension}", parts.key), what.to_string())
    };
    if entry.size() > LARGEST_TEXT {
        return Err(error(&format!("{} bytes of text", entry.size())));
    }
    let mut text = String::new();
    entry.read_to_string(&mut text).map_err(|e| error(&e))?;
    match extension {
        "txt" => parts.text = Some(text.trim().to_string()),
        "cls" => {
            let number = text.trim().parse().map_err(|e| error(&format!("{text:?}: {e}")))?;
            parts.class = Some(Label::Number(number));
        }
        _ => {
            let value: Value = serde_json::from_str(&text).map_err(|e| error(&e))?;
            let object = value.as_object().ok_or_else(|| error(&"not a JSON object"))?;
            parts.json = fields(object, config).map_err(|e| error(&e))?;
        }
    }
    Ok(())
}

/// The sample, if it is of the split.
fn finish(path: &Arc<Path>, parts: Option<Parts>, config: &DataConfig) -> Result<Option<Sample>, DataError> {
    let Some(parts) = parts else { return Ok(None) };
    let Some(range) = parts.picture else {
        // Other kinds of files may lie in a shard; words without a picture are a mistake.
        return match parts.text.or(parts.json.caption) {
            None => Ok(None),
            Some(_) => Err(DataError::CaptionWithoutPicture { path: path.to_path_buf(), key: parts.key }),
        };
    };
    if config.split.is_some() && parts.json.split != config.split {
        return Ok(None);
    }
    // The caption that was asked for by name comes before the text beside the picture.
    let caption = match &config.caption_key {
        Some(_) => parts.json.caption.or(parts.text),
        None => parts.text.or(parts.json.caption),
    };
    let map = match (&config.map_suffix, parts.map) {
        (Some(suffix), None) => {
            let what = format!("no second picture ({}.{suffix}.png)", parts.key);
            return Err(DataError::shard(path, parts.key, what));
        }
        (_, range) => range.map(|range| Location { file: path.clone(), range: Some(range) }),
    };
    Ok(Some(Sample {
        key: parts.key,
        caption: caption.unwrap_or_default(),
        class: parts.json.class.or(parts.class),
        picture: Location { file: path.clone(), range: Some(range) },
        map,
        objects: parts.json.objects,
    }))
}

/// An archive ends with a block of zeros: without it the rest may be missing.
fn ends_with_zeros(path: &Path, mut file: &File, end: u64, length: u64) -> Result<(), DataError> {
    if end + BLOCK > length {
        let what = format!("no end of the archive at byte {end}, the file ends at {length}");
        return Err(DataError::truncated(path, what));
    }
    let mut block = [1; BLOCK as usize];
    file.seek(SeekFrom::Start(end)).map_err(DataError::io(path))?;
    file.read_exact(&mut block).map_err(DataError::io(path))?;
    match block == [0; BLOCK as usize] {
        true => Ok(()),
        false => Err(DataError::shard(path, format!("byte {end}"), "not a tar header")),
    }
}

/// An error of the tar reader: near the file's end something is cut off, elsewhere it is no tar archive.
fn broken(path: &Path, end: u64, length: u64, error: &std::io::Error) -> DataError {
    match end + BLOCK > length || error.kind() == std::io::ErrorKind::UnexpectedEof {
        true => DataError::truncated(path, format!("after byte {end}: {error}")),
        false => DataError::shard(path, format!("byte {end}"), error),
    }
}

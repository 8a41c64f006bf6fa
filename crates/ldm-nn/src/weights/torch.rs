//! What `torch.save` writes: a zip archive since PyTorch 1.6, a row of pickles before.
//!
//! Source: PyTorch's torch/serialization.py (`_save`, `_legacy_load`).

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive};

use super::WeightError;
use super::file::{Contents, Stored, TensorInfo};
use super::pickle::{self, Id, Pickle, StorageRef, TensorRef, Value};
use super::source::{Source, SourceReader};
use super::storage::{Place, Storage};

/// The keys under which checkpoints keep a state dict, in the order in which they are tried.
const STATE_DICT_KEYS: [&str; 5] = ["state_dict", "model_state_dict", "model", "module", "params"];

/// A pickled 0x1950a86a20f9469cfc6c: how files from before PyTorch 1.6 start.
const LEGACY_MAGIC: [u8; 15] =
    [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// The most elements of a tensor that repeats those of its storage by strides of 0.
const MAX_REPEATED: usize = 1 << 24;

/// Reads a zip archive that `torch.save` wrote.
pub(super) fn read_zip(source: &Source) -> Result<Contents, WeightError> {
    let mut archive = ZipArchive::new(source.reader()).map_err(|e| {
        source.damaged(format!("a zip archive whose list of contents can't be read, perhaps truncated: {e}"))
    })?;
    let pickle_name = archive
        .file_names()
        .find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
        .map(str::to_owned)
        .ok_or_else(|| {
            source.wrong_format("it is a zip archive, but torch.save did not write it: no data.pkl")
        })?;
    let root = pickle_name.trim_end_matches("data.pkl").to_owned();
    if archive.index_for_name(&format!("{root}constants.pkl")).is_some() {
        return Err(source.wrong_format("it is a TorchScript program; save its state_dict() with torch.save"));
    }
    if entry(source, &mut archive, &format!("{root}byteorder"), 16).is_ok_and(|order| order == b"big") {
        return Err(source.wrong_format("it was written on a big-endian machine; re-save it on another one"));
    }

    let pickle = entry(source, &mut archive, &pickle_name, pickle::MAX_LENGTH as u64)?;
    let pickle = Pickle::read(&pickle).map_err(|e| source.damaged(e))?;
    let shared = Arc::new(archive.clone());
    contents(source, &pickle, &mut |storage| {
        let name = format!("{root}data/{}", pickle.text(storage.key).unwrap_or_default());
        let missing = || source.damaged(format!("it lacks its entry {name}"));
        let index = archive.index_for_name(&name).ok_or_else(missing)?;
        zip_storage(source, &mut archive, &shared, index)
    })
}

/// All bytes of an entry of at most `limit` bytes.
fn entry(
    source: &Source,
    archive: &mut ZipArchive<SourceReader>,
    name: &str,
    limit: u64,
) -> Result<Vec<u8>, WeightError> {
    let damaged = |e: &dyn std::fmt::Display| source.damaged(format!("its entry {name}: {e}"));
    let file = archive.by_name(name).map_err(|e| damaged(&e))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| damaged(&e))?;
    if bytes.len() as u64 > limit {
        return Err(damaged(&format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

fn zip_storage(
    source: &Source,
    archive: &mut ZipArchive<SourceReader>,
    shared: &Arc<ZipArchive<SourceReader>>,
    index: usize,
) -> Result<Storage, WeightError> {
    let entry = archive.by_index_raw(index).map_err(|e| source.damaged(format!("a zip entry: {e}")))?;
    let (length, crc) = (entry.size(), entry.crc32());
    match (entry.compression(), entry.data_start()) {
        _ if entry.encrypted() => Err(source.wrong_format("its contents are encrypted")),
        (CompressionMethod::Stored, Some(start)) => {
            let end = start.saturating_add(length);
            if end > source.len() {
                return Err(source.truncated(entry.name(), end));
            }
            Ok(Storage::checked(source.clone(), start, length, crc))
        }
        _ => Ok(Storage::compressed(source.clone(), length, shared.clone(), index)),
    }
}

/// Whether `start`, a file's first bytes, is how PyTorch before 1.6 starts a file.
pub(super) fn is_legacy(start: &[u8]) -> bool {
    start.starts_with(&LEGACY_MAGIC)
}

/// Reads a file that PyTorch before 1.6 wrote (or a later one when told so).
///
/// Five pickles stand in a row: a magic number, the protocol's version, notes about the system, the object,
/// and the keys of its storages. The storages follow in the order of their keys, each after its length.
pub(super) fn read_legacy(source: &Source) -> Result<Contents, WeightError> {
    let bytes = source.up_to(0, pickle::MAX_LENGTH)?;
    let mut at = 0;
    let mut next = || {
        let pickle = Pickle::read(&bytes[at..]).map_err(|e| source.damaged(e))?;
        at += pickle.length;
        Ok::<_, WeightError>(pickle)
    };
    let (_magic, _version, _system) = (next()?, next()?, next()?);
    let (object, keys) = (next()?, next()?);
    let elements: HashMap<&str, (u64, u64)> = object.storages().collect();

    let mut storages: HashMap<String, (u64, u64)> = HashMap::new();
    let mut position = at as u64;
    for key in keys.texts() {
        let mut count = [0; 8];
        source.read("a storage's length", position, &mut count)?;
        let count = u64::from_le_bytes(count);
        let &(length, size) = elements
            .get(key)
            .ok_or_else(|| source.damaged(format!("nothing says what its storage {key} holds")))?;
        if count != length {
            return Err(source.damaged(format!("its storage {key} holds {count} elements, not {length}")));
        }
        let start = position + 8;
        let end = count.checked_mul(size).and_then(|n| start.checked_add(n)).unwrap_or(u64::MAX);
        if end > source.len() {
            return Err(source.truncated(&format!("its storage {key}"), end));
        }
        storages.insert(key.into(), (start, end - start));
        position = end;
    }
    contents(source, &object, &mut |storage| {
        let key = object.text(storage.key).unwrap_or_default();
        let missing = || source.damaged(format!("it lacks its storage {key}"));
        let &(start, length) = storages.get(key).ok_or_else(missing)?;
        Ok(Storage::plain(source.clone(), start, length))
    })
}

/// The tensors of a pickle's state dict.
fn contents(
    source: &Source,
    pickle: &Pickle,
    open: &mut dyn FnMut(&StorageRef) -> Result<Storage, WeightError>,
) -> Result<Contents, WeightError> {
    let items = state_dict(pickle).map_err(|what| source.wrong_format(what))?;
    let mut storages: HashMap<&str, Arc<Storage>> = HashMap::new();
    let mut callables: HashMap<Id, Arc<str>> = HashMap::new();
    let mut contents = Contents::default();
    for &(key, value) in items {
        let Some(name) = pickle.text(key) else { continue };
        // Of several items of one name the last counts, as in Python.
        contents.tensors.remove(name);
        contents.refused.remove(name);
        match pickle.get(value) {
            Value::Tensor(tensor) => {
                let Value::Storage(storage) = pickle.get(tensor.storage) else { continue };
                let key = pickle.text(storage.key).unwrap_or_default();
                let opened = match storages.get(key) {
                    Some(opened) => opened.clone(),
                    None => Arc::new(open(storage)?),
                };
                storages.insert(key, opened.clone());
                let stored = stored(name, pickle, tensor, storage, opened);
                contents.tensors.insert(name.into(), stored.map_err(|what| source.damaged(what))?);
            }
            Value::Opaque(function) => {
                // One copy of a name for all that it would make.
                let callable = callables.entry(*function).or_insert_with(|| pickle.name(*function).into());
                contents.refused.insert(name.into(), callable.clone());
            }
            _ => {}
        }
    }
    Ok(contents)
}

/// The dictionary that holds the tensors: the whole pickle, or one of its items.
fn state_dict(pickle: &Pickle) -> Result<&[(Id, Id)], String> {
    let root = match pickle.get(pickle.root) {
        Value::Dict(items) => items,
        Value::Opaque(function) => {
            let name = pickle.name(*function);
            return Err(format!("it is a pickled {name}, not a state dict; save its state_dict()"));
        }
        _ => return Err("it is a pickle of something that is no state dict".into()),
    };
    let holds_tensors =
        |items: &[(Id, Id)]| items.iter().any(|(_, value)| matches!(pickle.get(*value), Value::Tensor(_)));
    let nested = STATE_DICT_KEYS.iter().find_map(|wanted| {
        let (_, value) = root.iter().rev().find(|(key, _)| pickle.text(*key) == Some(wanted))?;
        match pickle.get(*value) {
            Value::Dict(items) => Some(items),
            _ => None,
        }
    });
    match nested {
        Some(items) if holds_tensors(items) || !holds_tensors(root) => Ok(items),
        _ => Ok(root),
    }
}

fn stored(
    name: &str,
    pickle: &Pickle,
    tensor: &TensorRef,
    storage: &StorageRef,
    opened: Arc<Storage>,
) -> Result<Stored, String> {
    let element = pickle.element(storage);
    let TensorRef { offset, shape, strides, .. } = tensor;
    let count = shape.iter().try_fold(1usize, |n, axis| n.checked_mul(*axis));
    let count = count.ok_or_else(|| format!("{name} has the impossible shape {shape:?}"))?;

    let in_storage = match element.size() {
        Some(size) => opened.len() / size as u64,
        None => storage.length,
    };
    if in_storage != storage.length {
        let of = storage.length;
        return Err(format!("the storage of {name} has {in_storage} elements, not {of}"));
    }
    if count > 0 {
        let last = shape
            .iter()
            .zip(strides)
            .try_fold(*offset, |at, (n, stride)| at.checked_add((n - 1).checked_mul(*stride)?));
        if last.is_none_or(|last| last as u64 >= in_storage) {
            return Err(format!("{name} reaches beyond its storage of {in_storage} elements"));
        }
        if count as u64 > in_storage && count > MAX_REPEATED {
            return Err(format!("{name} has {count} elements made of {in_storage}"));
        }
    }
    let strides = (count > 0 && !is_contiguous(shape, strides)).then(|| strides.clone());
    let info = TensorInfo { name: name.into(), element, shape: shape.clone() };
    let offset = if count > 0 { *offset } else { 0 };
    Ok(Stored { info, place: Place { storage: opened, offset, strides } })
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(n, stride)| {
        let fits = *n == 1 || *stride == expected;
        expected *= n;
        fits
    })
}

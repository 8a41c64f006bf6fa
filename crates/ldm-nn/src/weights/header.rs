//! The safetensors header: which tensors a file holds, and where.

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata};

use super::file::{Contents, Stored, TensorInfo};
use super::source::Source;
use super::storage::{Place, Storage};
use super::{ElementType, WeightError};

/// The longest header that the safetensors crate reads.
const MAX_HEADER: u64 = 100_000_000;

/// Whether `start`, a file's first bytes, can be the start of a safetensors file.
pub(super) fn is_safetensors(start: &[u8]) -> bool {
    header_length(start).is_some_and(|n| n <= MAX_HEADER) && start.get(8) == Some(&b'{')
}

fn header_length(start: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(start.get(..8)?.try_into().ok()?))
}

/// Reads and checks the header of a safetensors file.
pub(super) fn read(source: &Source) -> Result<Contents, WeightError> {
    let start = source.up_to(0, 8)?;
    let length = header_length(&start).ok_or_else(|| source.truncated("the header's length", 8))?;
    if length > MAX_HEADER {
        return Err(source.damaged(format!("a header of {length} bytes")));
    }
    let end = 8 + length;
    if end > source.len() {
        return Err(source.truncated("the header", end));
    }
    let header = source.up_to(8, length as usize)?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|e| source.damaged(format!("the header: {e}")))?;

    let needed = end + header.data_len() as u64;
    if needed > source.len() {
        return Err(source.truncated("the last tensor", needed));
    }
    if needed < source.len() {
        return Err(source.damaged(format!("{} bytes follow the last tensor", source.len() - needed)));
    }

    let stored = |name: String, info: &safetensors::tensor::TensorInfo| {
        let (from, to) = info.data_offsets;
        let storage = Arc::new(Storage::plain(source.clone(), end + from as u64, (to - from) as u64));
        let place = Place { storage, offset: 0, strides: None };
        let (element, shape) = (element_type(info.dtype), info.shape.clone());
        (name.clone(), Stored { info: TensorInfo { name, element, shape }, place })
    };
    let tensors = header.tensors().into_iter().map(|(name, info)| stored(name, info)).collect();
    let metadata: BTreeMap<_, _> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(Contents { tensors, metadata, ..Contents::default() })
}

fn element_type(dtype: Dtype) -> ElementType {
    match dtype {
        Dtype::F64 => ElementType::F64,
        Dtype::F32 => ElementType::F32,
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::BF16,
        Dtype::I64 => ElementType::I64,
        Dtype::I32 => ElementType::I32,
        Dtype::I16 => ElementType::I16,
        Dtype::I8 => ElementType::I8,
        Dtype::U8 => ElementType::U8,
        Dtype::BOOL => ElementType::Bool,
        other => ElementType::Other(format!("{other:?}")),
    }
}

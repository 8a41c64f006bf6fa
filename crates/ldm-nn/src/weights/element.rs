//! The types of a file's elements, and their conversion to the type that a model computes in.

use std::fmt::{self, Display, Formatter};

use burn::tensor::{DType, TensorData};
use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// The type of a tensor's elements in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // the names say it
pub enum ElementType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    /// A type that can be listed, not read; its name in the file's own words.
    Other(String),
}

impl ElementType {
    /// Bytes an element; `None` for a type that can't be read.
    pub fn size(&self) -> Option<usize> {
        Some(match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::Other(_) => return None,
        })
    }

    /// Whether the elements are floating point numbers.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

impl Display for ElementType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(name) => f.write_str(name),
            known => write!(f, "{known:?}"),
        }
    }
}

/// Elements as they lie in a file, in memory of their own type.
pub(super) enum Elements {
    F64(Vec<f64>),
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    I16(Vec<i16>),
    I8(Vec<i8>),
    /// Also booleans.
    U8(Vec<u8>),
}

/// Calls a generic expression with the vector inside [`Elements`].
macro_rules! with_elements {
    ($elements:expr, $v:ident => $body:expr) => {
        match $elements {
            Elements::F64($v) => $body,
            Elements::F32($v) => $body,
            Elements::F16($v) => $body,
            Elements::BF16($v) => $body,
            Elements::I64($v) => $body,
            Elements::I32($v) => $body,
            Elements::I16($v) => $body,
            Elements::I8($v) => $body,
            Elements::U8($v) => $body,
        }
    };
}

/// Elements a task: large enough to outweigh its start.
const CHUNK: usize = 1 << 16;

impl Elements {
    /// `n` zeros of the type; `None` for a type that can't be read.
    pub fn zeros(element: &ElementType, n: usize) -> Option<Self> {
        Some(match element {
            ElementType::F64 => Self::F64(vec![0.0; n]),
            ElementType::F32 => Self::F32(vec![0.0; n]),
            ElementType::F16 => Self::F16(bytemuck::zeroed_vec(n)),
            ElementType::BF16 => Self::BF16(bytemuck::zeroed_vec(n)),
            ElementType::I64 => Self::I64(vec![0; n]),
            ElementType::I32 => Self::I32(vec![0; n]),
            ElementType::I16 => Self::I16(vec![0; n]),
            ElementType::I8 => Self::I8(vec![0; n]),
            ElementType::U8 | ElementType::Bool => Self::U8(vec![0; n]),
            ElementType::Other(_) => return None,
        })
    }

    /// Burn's tensor data; `None` for types that weight files don't use.
    pub fn from_data(data: TensorData) -> Option<Self> {
        Some(match data.dtype() {
            DType::F64 => Self::F64(data.try_into_vec().ok()?),
            DType::F32 => Self::F32(data.try_into_vec().ok()?),
            DType::F16 => Self::F16(data.try_into_vec().ok()?),
            DType::BF16 => Self::BF16(data.try_into_vec().ok()?),
            DType::I64 => Self::I64(data.try_into_vec().ok()?),
            DType::I32 => Self::I32(data.try_into_vec().ok()?),
            DType::I16 => Self::I16(data.try_into_vec().ok()?),
            DType::I8 => Self::I8(data.try_into_vec().ok()?),
            DType::U8 => Self::U8(data.try_into_vec().ok()?),
            _ => return None,
        })
    }

    /// The memory to read into (files are little-endian, as [`Elements::swap_if_big_endian`] minds).
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        fn bytes<T: Pod>(values: &mut [T]) -> &mut [u8] {
            bytemuck::cast_slice_mut(values)
        }
        with_elements!(self, v => bytes(v))
    }

    /// How many elements are NaN or infinite.
    pub fn count_not_finite(&self) -> usize {
        fn count<T: Sync>(values: &[T], bad: impl Fn(&T) -> bool + Sync) -> usize {
            values.par_chunks(CHUNK).map(|c| c.iter().map(|v| usize::from(bad(v))).sum::<usize>()).sum()
        }
        match self {
            Self::F64(v) => count(v, |x| !x.is_finite()),
            Self::F32(v) => count(v, |x| !x.is_finite()),
            Self::F16(v) => count(v, |x| x.to_bits() & 0x7c00 == 0x7c00),
            Self::BF16(v) => count(v, |x| x.to_bits() & 0x7f80 == 0x7f80),
            _ => 0,
        }
    }

    /// As floats of type `dtype`; `None` where the elements are not floats or `dtype` is no float type.
    pub fn into_floats(self, dtype: DType) -> Option<Self> {
        Some(match (self, dtype) {
            (v @ Self::F64(_), DType::F64)
            | (v @ Self::F32(_), DType::F32)
            | (v @ Self::F16(_), DType::F16)
            | (v @ Self::BF16(_), DType::BF16) => v,
            (Self::F32(v), DType::F64) => Self::F64(map(&v, |x| f64::from(*x))),
            (Self::F32(v), DType::F16) => Self::F16(map_chunks(&v, |a, b| b.convert_from_f32_slice(a))),
            (Self::F32(v), DType::BF16) => Self::BF16(map_chunks(&v, |a, b| b.convert_from_f32_slice(a))),
            (v, _) => Self::F32(v.into_f32()?).into_floats(dtype)?,
        })
    }

    /// As f32 values; `None` where the elements are not floats.
    pub fn into_f32(self) -> Option<Vec<f32>> {
        Some(match self {
            Self::F32(v) => v,
            Self::F64(v) => map(&v, |x| *x as f32),
            Self::F16(v) => map_chunks(&v, |a, b| a.convert_to_f32_slice(b)),
            Self::BF16(v) => map_chunks(&v, |a, b| a.convert_to_f32_slice(b)),
            _ => return None,
        })
    }

    /// As i64 values; `None` where the elements are floats.
    pub fn into_i64(self) -> Option<Vec<i64>> {
        Some(match self {
            Self::I64(v) => v,
            Self::I32(v) => map(&v, |x| i64::from(*x)),
            Self::I16(v) => map(&v, |x| i64::from(*x)),
            Self::I8(v) => map(&v, |x| i64::from(*x)),
            Self::U8(v) => map(&v, |x| i64::from(*x)),
            _ => return None,
        })
    }

    /// As burn's tensor data.
    pub fn into_data(self, shape: &[usize]) -> TensorData {
        with_elements!(self, v => TensorData::new(v, shape.to_vec()))
    }

    /// The same elements in another order or fewer of them.
    pub fn rearrange(self, how: impl Rearrange) -> Self {
        match self {
            Self::F64(v) => Self::F64(how.apply(v)),
            Self::F32(v) => Self::F32(how.apply(v)),
            Self::F16(v) => Self::F16(how.apply(v)),
            Self::BF16(v) => Self::BF16(how.apply(v)),
            Self::I64(v) => Self::I64(how.apply(v)),
            Self::I32(v) => Self::I32(how.apply(v)),
            Self::I16(v) => Self::I16(how.apply(v)),
            Self::I8(v) => Self::I8(how.apply(v)),
            Self::U8(v) => Self::U8(how.apply(v)),
        }
    }

    /// Turns little-endian elements, just read, into the machine's order, or back.
    pub fn swap_if_big_endian(&mut self) {
        if cfg!(target_endian = "big") {
            fn size<T>(_: &[T]) -> usize {
                size_of::<T>()
            }
            let size = with_elements!(&*self, v => size(v));
            self.bytes_mut().chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
    }

    /// The bytes as a file has them.
    pub fn little_endian(&mut self) -> &[u8] {
        self.swap_if_big_endian();
        self.bytes_mut()
    }
}

/// A reordering of elements of any type.
pub(super) trait Rearrange {
    fn apply<T: Copy>(self, values: Vec<T>) -> Vec<T>;
}

fn map<S: Sync, T: Send>(values: &[S], f: impl Fn(&S) -> T + Sync + Send) -> Vec<T> {
    values.par_iter().with_min_len(CHUNK).map(f).collect()
}

fn map_chunks<S: Sync, T: Pod + Send>(values: &[S], f: impl Fn(&[S], &mut [T]) + Sync) -> Vec<T> {
    let mut out = bytemuck::zeroed_vec(values.len());
    values.par_chunks(CHUNK).zip(out.par_chunks_mut(CHUNK)).for_each(|(a, b)| f(a, b));
    out
}

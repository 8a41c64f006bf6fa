//! Arrays out of NumPy's `.npz` files.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use half::f16;
use npyz::{DType, DTypeError, Deserialize, Endianness, NpyFile, Order, TypeChar, TypeRead};
use zip::ZipArchive;

use super::RetrievalError;

/// An open `.npz` file.
pub(super) struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

/// An array's shape, and its elements in C order.
pub(super) struct Array<T> {
    pub shape: Vec<u64>,
    pub values: Vec<T>,
}

impl Npz {
    pub fn open(path: &Path) -> Result<Self, RetrievalError> {
        let file = File::open(path).map_err(|source| RetrievalError::Io { path: path.into(), source })?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|e| RetrievalError::Format {
            path: path.into(),
            reason: format!("no .npz file: {e}"),
        })?;
        Ok(Self { path: path.into(), archive })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the arrays.
    pub fn names(&self) -> Vec<String> {
        self.archive.file_names().map(|name| name.trim_end_matches(".npy").to_string()).collect()
    }

    /// Floats of any width.
    pub fn floats(&mut self, array: &'static str) -> Result<Array<f32>, RetrievalError> {
        let expected = "float16, float32 or float64";
        self.read(array, expected, |file, dtype| match dtype {
            (TypeChar::Float, 2) => {
                Some(elements::<Half>(file).map(|v| v.into_iter().map(|h| h.0.to_f32()).collect()))
            }
            (TypeChar::Float, 4) => Some(elements::<f32>(file)),
            (TypeChar::Float, 8) => {
                Some(elements::<f64>(file).map(|v| v.into_iter().map(|x| x as f32).collect()))
            }
            _ => None,
        })
    }

    /// Integers of any width.
    pub fn integers(&mut self, array: &'static str) -> Result<Array<i64>, RetrievalError> {
        self.read(array, "integers", integers)
    }

    /// Strings, or integers as decimal text.
    pub fn names_or_numbers(&mut self, array: &'static str) -> Result<Array<String>, RetrievalError> {
        self.read(array, "integers or strings", |file, dtype| match dtype {
            (TypeChar::UnicodeStr | TypeChar::ByteStr, _) => Some(elements::<String>(file)),
            _ => integers(file, dtype)
                .map(|values| values.map(|v| v.into_iter().map(|n| n.to_string()).collect())),
        })
    }

    fn read<T: Clone>(
        &mut self,
        array: &'static str,
        expected: &'static str,
        values: impl FnOnce(NpyFile<&mut dyn Read>, (TypeChar, u64)) -> Option<io::Result<Vec<T>>>,
    ) -> Result<Array<T>, RetrievalError> {
        let path = self.path.clone();
        let damaged = |e: &dyn std::fmt::Display| RetrievalError::Format {
            path: path.clone(),
            reason: format!("{array}: {e}"),
        };
        let mut entry = self.archive.by_name(&format!("{array}.npy")).map_err(|e| damaged(&e))?;
        let size = entry.size();
        let file = NpyFile::new(&mut entry as &mut dyn Read).map_err(|e| damaged(&e))?;
        let wrong_type = |found: String| RetrievalError::Type { path: path.clone(), array, found, expected };
        let dtype = match file.dtype() {
            DType::Plain(dtype) if dtype.uses_pickled_array() => {
                return Err(wrong_type("pickled objects, which are never run".into()));
            }
            DType::Plain(dtype) => dtype,
            other => return Err(wrong_type(other.descr())),
        };
        let (shape, order) = (file.shape().to_vec(), file.order());
        // A header that claims more than there is must not make us ask for the memory.
        let count = shape.iter().try_fold(1u64, |n, side| n.checked_mul(*side));
        let bytes = count.zip(dtype.num_bytes()).and_then(|(n, each)| n.checked_mul(each as u64));
        if bytes.is_none_or(|bytes| bytes > size) {
            return Err(damaged(&format!(
                "shape {shape:?} of {dtype} is more than the {size} bytes there are"
            )));
        }
        let read = values(file, (dtype.type_char(), dtype.size_field()));
        let values = read.ok_or_else(|| wrong_type(dtype.to_string()))?.map_err(|e| damaged(&e))?;
        let values = match (order, shape.as_slice()) {
            (Order::Fortran, [rows, columns]) => {
                let (rows, columns) = (*rows as usize, *columns as usize);
                (0..rows * columns).map(|i| values[i % columns * rows + i / columns].clone()).collect()
            }
            (Order::Fortran, [_, _, _, ..]) => return Err(damaged(&"Fortran order of more than two axes")),
            _ => values,
        };
        Ok(Array { shape, values })
    }
}

fn integers(file: NpyFile<&mut dyn Read>, dtype: (TypeChar, u64)) -> Option<io::Result<Vec<i64>>> {
    fn wide<T: Deserialize + Into<i64>>(file: NpyFile<&mut dyn Read>) -> Option<io::Result<Vec<i64>>> {
        Some(elements::<T>(file).map(|values| values.into_iter().map(Into::into).collect()))
    }
    match dtype {
        (TypeChar::Int, 1) => wide::<i8>(file),
        (TypeChar::Int, 2) => wide::<i16>(file),
        (TypeChar::Int, 4) => wide::<i32>(file),
        (TypeChar::Int, 8) => wide::<i64>(file),
        (TypeChar::Uint, 1) => wide::<u8>(file),
        (TypeChar::Uint, 2) => wide::<u16>(file),
        (TypeChar::Uint, 4) => wide::<u32>(file),
        _ => None,
    }
}

fn elements<T: Deserialize>(file: NpyFile<&mut dyn Read>) -> io::Result<Vec<T>> {
    file.data::<T>().map_err(io::Error::other)?.collect()
}

/// A float16, which npyz reads only with a feature.
struct Half(f16);

struct HalfReader(bool);

impl Deserialize for Half {
    type TypeReader = HalfReader;

    fn reader(dtype: &DType) -> Result<HalfReader, DTypeError> {
        let big = matches!(dtype, DType::Plain(dtype) if dtype.endianness() == Endianness::Big);
        Ok(HalfReader(big))
    }
}

impl TypeRead for HalfReader {
    type Value = Half;

    fn read_one<R: Read>(&self, mut bytes: R) -> io::Result<Half> {
        let mut two = [0; 2];
        bytes.read_exact(&mut two)?;
        Ok(Half(if self.0 { f16::from_be_bytes(two) } else { f16::from_le_bytes(two) }))
    }
}

//! A weight file of any kind: its list of tensors, and their elements on demand.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{DType, TensorData};

use super::element::{Elements, Rearrange};
use super::layout::{Layout, Transpose};
use super::source::Source;
use super::storage::Place;
use super::{ElementType, TensorProblem, WeightError, header, shards, torch};

/// A weight file that has been opened: the list of its tensors is read, their elements are not.
///
/// Elements are read one tensor at a time, by positioned reads; nothing of the file stays in memory.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    contents: Contents,
}

/// What a weight file says about one of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name in the file.
    pub name: String,
    /// The type of its elements in the file.
    pub element: ElementType,
    /// Its shape in the file.
    pub shape: Vec<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Contents {
    pub tensors: BTreeMap<String, Stored>,
    /// The unknown function that would have to run to make an object of this name.
    pub refused: BTreeMap<String, Arc<str>>,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub info: TensorInfo,
    pub place: Place,
}

impl WeightFile {
    /// Opens a weight file and reads its list of tensors.
    ///
    /// The kind is told by the content, not by the name: safetensors; what `torch.save` writes (`.bin`,
    /// `.ckpt`, `.pt`, `.pth`; a pickle in it is read, never run), from PyTorch 1.6 on or before; or the JSON
    /// index of a sharded model of either kind (diffusers and transformers write `*.index.json`).
    ///
    /// # Errors
    ///
    /// Where the file is empty, truncated, damaged or something else (an HTML page, a git-lfs pointer),
    /// or an index names a shard that isn't there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightError> {
        let path = path.as_ref();
        Ok(Self { path: path.into(), contents: open(path)? })
    }

    /// The path that it was opened at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor of the file, by name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.contents.tensors.values().map(|stored| &stored.info)
    }

    /// What the file says about the tensor `key`.
    pub fn info(&self, key: &str) -> Option<&TensorInfo> {
        self.contents.tensors.get(key).map(|stored| &stored.info)
    }

    /// Whether the file has a tensor `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.contents.tensors.contains_key(key)
    }

    /// The file's own notes (safetensors' `__metadata__`).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.contents.metadata
    }

    /// The shape and the elements of the tensor `key`, of any float type, as f32.
    ///
    /// # Errors
    ///
    /// Where the tensor is missing, can't be read or is no float tensor, or holds NaN or infinity.
    pub fn read_f32(&self, key: &str) -> Result<(Vec<usize>, Vec<f32>), WeightError> {
        let shape = self.shape(key)?;
        let data = self.read_float(key, Layout::Same, &shape, DType::F32)?;
        let values = data.try_into_vec::<f32>().map_err(|_| self.not_usable(key))?;
        Ok((shape, values))
    }

    /// The shape and the elements of the tensor `key`, of any integer type or boolean, as i64.
    ///
    /// # Errors
    ///
    /// Where the tensor is missing, can't be read or is a float tensor.
    pub fn read_i64(&self, key: &str) -> Result<(Vec<usize>, Vec<i64>), WeightError> {
        let shape = self.shape(key)?;
        let values = self.elements(key, Layout::Same, &shape)?.into_i64();
        Ok((shape, values.ok_or_else(|| self.not_usable(key))?))
    }

    /// The parameter of shape `param` that the tensor `key` holds in `layout`, as `dtype`.
    ///
    /// The caller has checked the shape.
    pub(super) fn read_float(
        &self,
        key: &str,
        layout: Layout,
        param: &[usize],
        dtype: DType,
    ) -> Result<TensorData, WeightError> {
        let elements = self.elements(key, layout, param)?;
        let elements = elements.into_floats(dtype).ok_or_else(|| self.not_usable(key))?;
        if elements.count_not_finite() > 0 {
            // Where the file's own values are finite, they are too large for `dtype`.
            let key = key.to_owned();
            return Err(self.problem(match self.elements(&key, layout, param)?.count_not_finite() {
                0 => TensorProblem::Overflow { key, dtype },
                count => TensorProblem::NotFinite { key, count },
            }));
        }
        Ok(elements.into_data(param))
    }

    /// The elements of the parameter of shape `param`, as the file has them.
    fn elements(&self, key: &str, layout: Layout, param: &[usize]) -> Result<Elements, WeightError> {
        let Stored { info, place } = self.stored(key)?;
        let runs = layout.runs(param);
        let elements = match &place.strides {
            None => read_runs(info, place, &runs)?,
            Some(strides) => read_strided(info, place, strides)?.rearrange(Pick(&runs)),
        };
        match (layout, info.shape.as_slice()) {
            (Layout::Transposed, &[rows, columns]) => Ok(elements.rearrange(Transpose(rows, columns))),
            _ => Ok(elements),
        }
    }

    fn stored(&self, key: &str) -> Result<&Stored, WeightError> {
        self.contents.tensors.get(key).ok_or_else(|| {
            let key = key.to_owned();
            self.problem(match self.refused(&key) {
                Some(callable) => TensorProblem::Code { key, callable: callable.into() },
                None => TensorProblem::Missing { key, shape: None },
            })
        })
    }

    fn shape(&self, key: &str) -> Result<Vec<usize>, WeightError> {
        self.stored(key).map(|stored| stored.info.shape.clone())
    }

    fn not_usable(&self, key: &str) -> WeightError {
        let found = self.info(key).map_or(ElementType::Other(String::new()), |info| info.element.clone());
        self.problem(TensorProblem::Type { key: key.into(), found })
    }

    fn problem(&self, problem: TensorProblem) -> WeightError {
        WeightError::Tensors { path: self.path.clone(), problems: vec![problem] }
    }

    /// The function that would have to be called to make the object `key` of a pickle, where it is not one
    /// of PyTorch's own. Nothing is called, so there is no such tensor.
    pub fn refused(&self, key: &str) -> Option<&str> {
        self.contents.refused.get(key).map(|callable| &**callable)
    }
}

/// The contents of the file at `path`, by what it starts with.
pub(super) fn open(path: &Path) -> Result<Contents, WeightError> {
    let source = Source::open(path)?;
    let start = source.up_to(0, 512)?;
    if start.is_empty() {
        return Err(WeightError::Empty { path: path.into() });
    }
    if header::is_safetensors(&start) {
        return header::read(&source);
    }
    if start.starts_with(b"PK\x03\x04") {
        return torch::read_zip(&source);
    }
    if torch::is_legacy(&start) {
        return torch::read_legacy(&source);
    }
    if start.trim_ascii_start().starts_with(b"{") {
        return shards::read(&source);
    }
    if start.get(257..262) == Some(b"ustar") {
        return Err(
            source.wrong_format("it is a tar archive; a model from before PyTorch 0.1.10 is to be re-saved")
        );
    }
    Err(source.wrong_format(guess(&start)))
}

/// What a file that is no weight file seems to be, by its first bytes.
fn guess(start: &[u8]) -> &'static str {
    const KNOWN: [(&[u8], &str); 8] = [
        (b"version https://git-lfs", "it is a git-lfs pointer; fetch the file itself with `git lfs pull`"),
        (b"<!doctype html", "it is an HTML page, perhaps a download page or an error page"),
        (b"<html", "it is an HTML page, perhaps a download page or an error page"),
        (b"<?xml", "it is an XML document, perhaps an error page"),
        (b"gguf", "it is a GGUF file; only safetensors and PyTorch files are read"),
        (b"\x89hdf", "it is an HDF5 file; only safetensors and PyTorch files are read"),
        (b"\x93numpy", "it is a NumPy array; only safetensors and PyTorch files are read"),
        (b"\x1f\x8b", "it is gzip-compressed; unpack it first"),
    ];
    let start = start.trim_ascii_start().to_ascii_lowercase();
    let found = KNOWN.iter().find(|(magic, _)| start.starts_with(magic));
    found.map_or("its first bytes are those of no known weight format", |(_, what)| what)
}

fn byte_range(range: &Range<usize>, offset: usize, size: usize) -> Option<Range<u64>> {
    let at = |i: usize| Some((offset.checked_add(i)?.checked_mul(size)?) as u64);
    Some(at(range.start)?..at(range.end)?)
}

fn read_runs(info: &TensorInfo, place: &Place, runs: &[Range<usize>]) -> Result<Elements, WeightError> {
    let source = place.storage.source();
    let problem = || {
        let problem = TensorProblem::Type { key: info.name.clone(), found: info.element.clone() };
        WeightError::Tensors { path: source.path().into(), problems: vec![problem] }
    };
    let size = info.element.size().ok_or_else(problem)?;
    let ranges: Option<Vec<_>> = runs.iter().map(|run| byte_range(run, place.offset, size)).collect();
    let ranges = ranges.ok_or_else(|| source.damaged(format!("{} reaches beyond its storage", info.name)))?;
    // Before memory is asked for: no length is believed that the file doesn't bear out.
    place.storage.check(&info.name, &ranges)?;
    let count = runs.iter().map(Range::len).sum();
    let mut elements = Elements::zeros(&info.element, count).ok_or_else(problem)?;
    place.storage.read(&info.name, &ranges, elements.bytes_mut())?;
    elements.swap_if_big_endian();
    Ok(elements)
}

/// The elements of a tensor that is a view of its storage with strides, in the view's order.
fn read_strided(info: &TensorInfo, place: &Place, strides: &[usize]) -> Result<Elements, WeightError> {
    if info.shape.contains(&0) {
        return read_runs(info, place, &[]);
    }
    let last: usize = info.shape.iter().zip(strides).map(|(n, stride)| (n - 1) * stride).sum();
    let covered = read_runs(info, place, &[Range { start: 0, end: last + 1 }])?;
    Ok(covered.rearrange(Gather { shape: &info.shape, strides }))
}

struct Pick<'a>(&'a [Range<usize>]);

impl Rearrange for Pick<'_> {
    fn apply<T: Copy>(self, values: Vec<T>) -> Vec<T> {
        self.0.iter().flat_map(|run| values[run.clone()].iter().copied()).collect()
    }
}

struct Gather<'a> {
    shape: &'a [usize],
    strides: &'a [usize],
}

impl Rearrange for Gather<'_> {
    fn apply<T: Copy>(self, values: Vec<T>) -> Vec<T> {
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        let n = self.shape.iter().product();
        let mut out = Vec::with_capacity(n);
        while out.len() < n {
            out.push(values[at]);
            for axis in (0..self.shape.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        out
    }
}

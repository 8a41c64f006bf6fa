//! Weights from modules into a safetensors file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};
use safetensors::tensor::Dtype;
use serde_json::json;

use super::element::Elements;
use super::layout::{Layout, Transpose};
use super::path::Path;
use super::{Entry, KeyMap, WeightError};

/// Writes a module's float parameters to a safetensors file, named as `map` says, as `dtype`.
///
/// The file appears whole or not at all, and is the same for the same weights. See [`Saver`] for several
/// modules in one file.
///
/// # Errors
///
/// Where the file can't be written, `dtype` can't hold a value, or the map names two parameters alike.
pub fn save_safetensors<M: Module>(
    module: &M,
    map: &dyn KeyMap,
    path: impl AsRef<FilePath>,
    dtype: DType,
) -> Result<(), WeightError> {
    Saver::new().dtype(dtype).add(module, map, "").write(path)
}

/// Writes several modules and single tensors into one safetensors file.
///
/// ```no_run
/// # use burn::module::Module;
/// # use burn::tensor::TensorData;
/// # use ldm_nn::weights::{KeyMap, Saver, WeightError};
/// # fn save<M: Module>(unet: M, vae: M, map: &dyn KeyMap, betas: TensorData) -> Result<(), WeightError> {
/// Saver::new()
///     .add(&unet, map, "model.diffusion_model.")
///     .add(&vae, map, "first_stage_model.")
///     .add_tensor("betas", betas)
///     .write("model.safetensors")
/// # }
/// ```
pub struct Saver<'a> {
    dtype: DType,
    metadata: BTreeMap<String, String>,
    modules: Vec<Part<'a>>,
    tensors: Vec<(String, TensorData)>,
}

/// A module to be written.
struct Part<'a> {
    visit: Box<dyn Fn(&mut Walk<'_>) + 'a>,
    map: &'a dyn KeyMap,
    prefix: String,
}

impl Default for Saver<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Saver<'a> {
    /// A file with nothing in it yet, of f32 weights.
    pub fn new() -> Self {
        // The note that transformers and diffusers ask for.
        let metadata = BTreeMap::from([("format".into(), "pt".into())]);
        Self { dtype: DType::F32, metadata, modules: Vec::new(), tensors: Vec::new() }
    }

    /// The float type that the modules' weights are written as: f64, f32, f16 or bf16 (default: f32).
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// A note in the file's `__metadata__`; `format: pt` is always there.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The float parameters of `module`, named as `map` says after `prefix`.
    pub fn add<M: Module>(mut self, module: &'a M, map: &'a dyn KeyMap, prefix: impl Into<String>) -> Self {
        let visit = Box::new(|walk: &mut Walk<'_>| module.visit(walk));
        self.modules.push(Part { visit, map, prefix: prefix.into() });
        self
    }

    /// One tensor more, written in its own type.
    pub fn add_tensor(mut self, key: impl Into<String>, data: TensorData) -> Self {
        self.tensors.push((key.into(), data));
        self
    }

    /// Writes the file: to a temporary name in the same folder, then renamed. One parameter at a time is
    /// taken from its device.
    ///
    /// # Errors
    ///
    /// As [`save_safetensors`].
    pub fn write(self, path: impl AsRef<FilePath>) -> Result<(), WeightError> {
        self.write_observed(path, &mut |_, _| ())
    }

    /// As [`write`](Self::write); after each parameter of a module that is written, `observer` is told how many are, of how
    /// many. Several of them may lie in one tensor, and those of [`add_tensor`](Self::add_tensor) are not counted.
    ///
    /// # Errors
    ///
    /// As [`save_safetensors`].
    pub fn write_observed(
        self,
        path: impl AsRef<FilePath>,
        observer: &mut dyn FnMut(usize, usize),
    ) -> Result<(), WeightError> {
        let path = path.as_ref();
        let plan = self.plan(path)?;
        let io = |source| WeightError::Io { path: path.into(), source };
        let temporary = Temporary::beside(path).map_err(io)?;
        self.write_to(&temporary, &plan, path, observer)?;
        temporary.rename(path).map_err(io)
    }

    /// Every tensor's type, shape and place in the file.
    fn plan(&self, path: &FilePath) -> Result<Plan, WeightError> {
        let refuse = |what: String| WeightError::Save { path: path.into(), what };
        let dtype = safetensors_dtype(self.dtype)
            .filter(|_| is_float(self.dtype))
            .ok_or_else(|| refuse(format!("{:?} is no float type of safetensors", self.dtype)))?;

        let mut slots: BTreeMap<String, Slot> = BTreeMap::new();
        let mut parameters = 0;
        for part in &self.modules {
            let mut found: Vec<(Entry, Vec<usize>)> = Vec::new();
            part.walk(&mut |entry, param| found.push((entry, param.shape())));
            parameters += found.len();
            for (entry, shape) in found {
                let Entry { key, layout } = entry;
                let file_shape = layout
                    .file_shape(&shape)
                    .ok_or_else(|| refuse(format!("{key}: the key map's layout does not fit {shape:?}")))?;
                let slot = slots.entry(key.clone()).or_insert_with(|| Slot::new(dtype, file_shape.clone()));
                if slot.shape != file_shape {
                    let shapes = format!("{file_shape:?} and {:?}", slot.shape);
                    return Err(refuse(format!("{key} would hold parameters of shapes {shapes}")));
                }
                slot.claim(layout, &shape)
                    .ok_or_else(|| refuse(format!("two parameters are named {key}")))?;
            }
        }
        for (key, data) in &self.tensors {
            let dtype = safetensors_dtype(data.dtype())
                .ok_or_else(|| refuse(format!("{key}: safetensors has no type {:?}", data.dtype())))?;
            let mut slot = Slot::new(dtype, data.shape().to_vec());
            slot.filled = slot.elements();
            if slots.insert(key.clone(), slot).is_some() {
                return Err(refuse(format!("two tensors are named {key}")));
            }
        }
        if let Some((key, _)) = slots.iter().find(|(_, slot)| slot.filled != slot.elements()) {
            return Err(refuse(format!("a part of {key} has no parameter")));
        }

        // The widest elements first keeps every tensor aligned, as the reference writer does.
        let mut order: Vec<&String> = slots.keys().collect();
        order.sort_by_key(|key| (std::cmp::Reverse(slots[*key].dtype.bitsize()), (*key).clone()));
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), json!(self.metadata));
        let mut offset = 0;
        let mut places = BTreeMap::new();
        for key in order {
            let slot = &slots[key];
            let end = offset + (slot.elements() * slot.dtype.bitsize() / 8) as u64;
            let entry = json!({ "dtype": slot.dtype, "shape": slot.shape, "data_offsets": [offset, end] });
            header.insert(key.clone(), entry);
            places.insert(key.clone(), offset);
            offset = end;
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        Ok(Plan { header, places, parameters })
    }

    fn write_to(
        &self,
        temporary: &Temporary,
        plan: &Plan,
        path: &FilePath,
        observer: &mut dyn FnMut(usize, usize),
    ) -> Result<(), WeightError> {
        let io = |source| WeightError::Io { path: path.into(), source };
        let mut file = &temporary.file;
        file.write_all(&(plan.header.len() as u64).to_le_bytes()).map_err(io)?;
        file.write_all(&plan.header).map_err(io)?;
        let start = 8 + plan.header.len() as u64;

        let mut written = 0;
        for part in &self.modules {
            let mut result = Ok(());
            part.walk(&mut |entry, param| {
                if result.is_ok() {
                    result = self.write_param(file, start + plan.places[&entry.key], &entry, param, path);
                    if result.is_ok() {
                        written += 1;
                        observer(written, plan.parameters);
                    }
                }
            });
            result?;
        }
        for (key, data) in &self.tensors {
            file.seek(SeekFrom::Start(start + plan.places[key])).map_err(io)?;
            let mut data = Elements::from_data(data.clone()).ok_or_else(|| {
                let what = format!("{key}: safetensors has no type {:?}", data.dtype());
                WeightError::Save { path: path.into(), what }
            })?;
            file.write_all(data.little_endian()).map_err(io)?;
        }
        file.sync_all().map_err(io)
    }

    /// Writes one parameter into its runs of the tensor that starts at `start`.
    fn write_param(
        &self,
        mut file: &File,
        start: u64,
        entry: &Entry,
        param: &dyn AnyParam,
        path: &FilePath,
    ) -> Result<(), WeightError> {
        let shape = param.shape();
        let refuse =
            |why: &str| WeightError::Save { path: path.into(), what: format!("{}: {why}", entry.key) };
        let values = Elements::from_data(param.data()).ok_or_else(|| refuse("no float parameter"))?;
        let was_finite = values.count_not_finite() == 0;
        let mut values = values.into_floats(self.dtype).ok_or_else(|| refuse("no float parameter"))?;
        if was_finite && values.count_not_finite() > 0 {
            return Err(refuse(&format!("its values are too large for {:?}", self.dtype)));
        }
        if let (Layout::Transposed, &[rows, columns]) = (entry.layout, shape.as_slice()) {
            values = values.rearrange(Transpose(rows, columns));
        }
        let size = self.dtype.size();
        let mut rest = values.little_endian();
        for run in entry.layout.runs(&shape) {
            let (now, after) = rest.split_at(run.len() * size);
            let write = file
                .seek(SeekFrom::Start(start + (run.start * size) as u64))
                .and_then(|_| file.write_all(now));
            write.map_err(|source| WeightError::Io { path: path.into(), source })?;
            rest = after;
        }
        Ok(())
    }
}

impl Part<'_> {
    fn walk(&self, each: &mut dyn FnMut(Entry, &dyn AnyParam)) {
        let mut each = |path: &str, param: &dyn AnyParam| {
            if let Some(mut entry) = self.map.entries(path).into_iter().next() {
                entry.key.insert_str(0, &self.prefix);
                each(entry, param);
            }
        };
        (self.visit)(&mut Walk { path: Path::default(), each: &mut each });
    }
}

/// The bytes before the tensors, where each tensor starts after them, and how many parameters fill them.
struct Plan {
    header: Vec<u8>,
    places: BTreeMap<String, u64>,
    parameters: usize,
}

/// A tensor of the file to be, and how much of it has a parameter.
struct Slot {
    dtype: Dtype,
    shape: Vec<usize>,
    claimed: Vec<Range<usize>>,
    filled: usize,
}

impl Slot {
    fn new(dtype: Dtype, shape: Vec<usize>) -> Self {
        Self { dtype, shape, claimed: Vec::new(), filled: 0 }
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Notes that a parameter fills its runs; `None` where another one does so already.
    fn claim(&mut self, layout: Layout, shape: &[usize]) -> Option<()> {
        for run in layout.runs(shape) {
            if self.claimed.iter().any(|other| run.start < other.end && other.start < run.end) {
                return None;
            }
            self.filled += run.len();
            self.claimed.push(run);
        }
        Some(())
    }
}

/// A parameter of any rank.
trait AnyParam {
    /// Without initialising it.
    fn shape(&self) -> Vec<usize>;
    fn data(&self) -> TensorData;
}

impl<const D: usize> AnyParam for Param<Tensor<D>> {
    fn shape(&self) -> Vec<usize> {
        self.lazy_shape().to_vec()
    }

    fn data(&self) -> TensorData {
        self.transform_for_save().val().into_data()
    }
}

/// Shows every float parameter of a module with its path.
struct Walk<'a> {
    path: Path,
    each: &'a mut dyn FnMut(&str, &dyn AnyParam),
}

impl ModuleVisitor for Walk<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        (self.each)(&self.path.joined(), param);
    }
}

/// A file that is removed unless it is renamed.
struct Temporary {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    fn beside(path: &FilePath) -> std::io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.part", std::process::id()));
        let path = path.with_file_name(name);
        Ok(Self { file: File::create(&path)?, path, kept: false })
    }

    fn rename(mut self, to: &FilePath) -> std::io::Result<()> {
        std::fs::rename(&self.path, to)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // The error that brought us here is the one to report.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
}

fn safetensors_dtype(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U8 => Dtype::U8,
        _ => return None,
    })
}

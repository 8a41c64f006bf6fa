//! Weights from a file into a module.

use std::collections::{BTreeSet, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};

use super::path::Path;
use super::{Entry, KeyMap, TensorProblem, WeightError, WeightFile, attentions_together, extras};
use crate::laid_out;

/// Loads a module's float parameters from a weight file.
///
/// ```no_run
/// # use burn::module::Module;
/// # use ldm_nn::weights::{KeyMap, Loader, WeightError, WeightFile};
/// # fn load<M: Module>(vae: M, map: &dyn KeyMap) -> Result<M, WeightError> {
/// let file = WeightFile::open("sd-v1-4.ckpt")?;
/// let (vae, report) = Loader::new(map).prefix("first_stage_model.").load(vae, &file)?;
/// println!("{} tensors, not used: {:?}", report.loaded.len(), report.unknown);
/// # Ok(vae)
/// # }
/// ```
#[derive(Clone)]
pub struct Loader<'a> {
    map: &'a dyn KeyMap,
    dtype: DType,
    prefix: String,
    ignore: Vec<String>,
}

/// What was done with the tensors of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Names of the file's tensors that were loaded.
    pub loaded: Vec<String>,
    /// Paths of parameters that the format doesn't hold: they keep their values.
    pub kept: Vec<String>,
    /// Names of tensors under the prefix that are known not to be needed.
    pub ignored: Vec<String>,
    /// Names of tensors under the prefix that nothing asked for.
    pub unknown: Vec<String>,
}

impl<'a> Loader<'a> {
    /// A loader for files that name their tensors as `map` says.
    pub fn new(map: &'a dyn KeyMap) -> Self {
        Self { map, dtype: DType::F32, prefix: String::new(), ignore: Vec::new() }
    }

    /// The float type that the parameters get, whatever the file's is (default: f32).
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// What stands before each of the map's names in the file, with its dot: `"first_stage_model."`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Names (after the prefix, `*` for any run of characters) of tensors that are not needed, besides those
    /// that are known: schedule buffers, EMA weights, losses and such.
    pub fn ignore<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.ignore.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Gives every float parameter of `module` its tensor, cast to the loader's type, on the device where the
    /// parameter is or would be initialised.
    ///
    /// A lazy parameter is not initialised first, and one tensor is read at a time, so memory peaks at the
    /// weights and one tensor.
    ///
    /// # Errors
    ///
    /// Where tensors are missing or mis-shaped: all of them at once, before any is read. Where tensors hold
    /// NaN or infinity: all of them. Where the device lacks the type, or the file can't be read.
    pub fn load<M: Module>(&self, module: M, file: &WeightFile) -> Result<(M, LoadReport), WeightError> {
        let mut planner = Planner { loader: self, file, path: Path::default(), plan: Plan::default() };
        module.visit(&mut planner);
        let plan = planner.plan;
        if let Some(device) = plan.unsupported {
            return Err(WeightError::Device { dtype: self.dtype, device });
        }
        fail_on(&plan.problems, file)?;

        let path = Path::default();
        let mut filler =
            Filler { file, dtype: self.dtype, entries: &plan.entries, path, problems: vec![], failure: None };
        let module = module.map(&mut filler);
        if let Some(failure) = filler.failure {
            return Err(failure);
        }
        fail_on(&filler.problems, file)?;
        Ok((attentions_together(module), self.report(&plan, file)))
    }

    fn report(&self, plan: &Plan, file: &WeightFile) -> LoadReport {
        let used: BTreeSet<_> = plan.entries.values().map(|entry| entry.key.as_str()).collect();
        let (mut ignored, mut unknown) = (vec![], vec![]);
        for info in file.tensors().filter(|info| !used.contains(info.name.as_str())) {
            let Some(name) = info.name.strip_prefix(&self.prefix) else { continue };
            let ignored_here = |name| self.ignore.iter().any(|pattern| extras::matches(pattern, name));
            let known = extras::is_known_extra(name) || ignored_here(name);
            if known { &mut ignored } else { &mut unknown }.push(info.name.clone());
        }
        let loaded = used.into_iter().map(String::from).collect();
        LoadReport { loaded, kept: plan.kept.clone(), ignored, unknown }
    }
}

fn fail_on(problems: &[TensorProblem], file: &WeightFile) -> Result<(), WeightError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(WeightError::Tensors { path: file.path().into(), problems: problems.to_vec() })
}

/// Which tensor of the file each parameter gets, by the parameter's path.
#[derive(Default)]
struct Plan {
    entries: HashMap<String, Entry>,
    kept: Vec<String>,
    problems: Vec<TensorProblem>,
    unsupported: Option<String>,
}

/// Walks the module without touching a value and makes the [`Plan`].
struct Planner<'a> {
    loader: &'a Loader<'a>,
    file: &'a WeightFile,
    path: Path,
    plan: Plan,
}

impl Planner<'_> {
    /// The first of the map's entries that the file holds in the right shape.
    fn choose(&self, path: &str, shape: &[usize]) -> Result<Option<Entry>, TensorProblem> {
        let entries = self.loader.map.entries(path).into_iter().map(|mut entry| {
            entry.key.insert_str(0, &self.loader.prefix);
            entry
        });
        let mut problem = None;
        for entry in entries {
            match self.check(&entry, shape) {
                Ok(()) => return Ok(Some(entry)),
                // A name that is there in a wrong shape says more than one that isn't there.
                Err(found) => match (&problem, &found) {
                    (None | Some(TensorProblem::Missing { .. }), TensorProblem::Shape { .. }) | (None, _) => {
                        problem = Some(found)
                    }
                    _ => {}
                },
            }
        }
        problem.map_or(Ok(None), Err)
    }

    fn check(&self, entry: &Entry, shape: &[usize]) -> Result<(), TensorProblem> {
        let key = entry.key.clone();
        let Some(expected) = entry.layout.file_shape(shape) else {
            return Err(TensorProblem::Layout { key, shape: shape.into() });
        };
        let Some(info) = self.file.info(&key) else {
            return Err(match self.file.refused(&key) {
                Some(callable) => TensorProblem::Code { key, callable: callable.into() },
                None => TensorProblem::Missing { key, shape: Some(expected) },
            });
        };
        if info.shape != expected {
            return Err(TensorProblem::Shape { key, expected, found: info.shape.clone() });
        }
        if !info.element.is_float() {
            return Err(TensorProblem::Type { key, found: info.element.clone() });
        }
        Ok(())
    }
}

impl ModuleVisitor for Planner<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let device = param.lazy_device();
        if !can_hold(&device, self.loader.dtype) {
            self.plan.unsupported = Some(format!("{device:?}"));
        }
        let path = self.path.joined();
        match self.choose(&path, param.lazy_shape().as_slice()) {
            Ok(Some(entry)) => {
                self.plan.entries.insert(path, entry);
            }
            Ok(None) => self.plan.kept.push(path),
            Err(problem) => self.plan.problems.push(problem),
        }
    }
}

/// Whether `dtype` is a float type that the device has.
fn can_hold(device: &Device, dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) && device.supports_dtype(dtype)
}

/// Walks the module and replaces the values as planned.
struct Filler<'a> {
    file: &'a WeightFile,
    dtype: DType,
    entries: &'a HashMap<String, Entry>,
    path: Path,
    problems: Vec<TensorProblem>,
    /// What stops the reading altogether: the file is damaged or can't be read.
    failure: Option<WeightError>,
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(entry) = self.entries.get(&self.path.joined()) else {
            return param;
        };
        if self.failure.is_some() {
            return param;
        }
        match self.file.read_float(&entry.key, entry.layout, param.lazy_shape().as_slice(), self.dtype) {
            Ok(data) => {
                let tensor = laid_out(Tensor::from_data(data, (&param.lazy_device(), self.dtype)));
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            Err(WeightError::Tensors { problems, .. }) => {
                self.problems.extend(problems);
                param
            }
            Err(failure) => {
                self.failure = Some(failure);
                param
            }
        }
    }
}

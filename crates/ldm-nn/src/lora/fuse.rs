use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};

use super::names::Names;
use super::{LoraConfig, LoraError, LoraFile, LoraPart, is_adapter};
use crate::weights::{ParameterPath as Path, TensorProblem, WeightError, attentions_together};

/// What a LoRA file adds to the weights of one model, found but not yet read.
#[derive(Debug, Default)]
pub struct LoraUpdate {
    /// By the parameter's path.
    products: BTreeMap<String, Product>,
}

/// One product `scale B A`.
#[derive(Debug)]
struct Product {
    names: Names,
    r: usize,
    scale: f64,
}

impl LoraFile {
    /// Finds the factors for the weights of `module`: of its linear layers and convolutions.
    ///
    /// # Errors
    /// Factors of wrong shapes, or one without the other: all of them at once. A note that can't be followed.
    pub fn update<M: Module>(&self, module: &M, part: &LoraPart<'_>) -> Result<LoraUpdate, LoraError> {
        let mut planner = Planner {
            file: self,
            part,
            path: Path::default(),
            update: LoraUpdate::default(),
            problems: vec![],
            failure: None,
        };
        module.visit(&mut planner);
        if let Some(failure) = planner.failure {
            return Err(failure);
        }
        if !planner.problems.is_empty() {
            let (path, problems) = (self.path().into(), planner.problems);
            return Err(WeightError::Tensors { path, problems }.into());
        }
        Ok(planner.update)
    }

    /// Whether every tensor of the file has its place in one of the updates.
    ///
    /// # Errors
    /// [`LoraError::Unused`] names the others; [`LoraError::NoFactors`] where the file holds nothing at all.
    pub fn check_all_used(&self, updates: &[&LoraUpdate]) -> Result<(), LoraError> {
        if self.file.tensors().next().is_none() {
            return Err(LoraError::NoFactors { path: self.path().into() });
        }
        let names = updates.iter().flat_map(|update| update.products.values()).map(|product| &product.names);
        let used: BTreeSet<&str> =
            names.flat_map(|n| [&n.down, &n.up, &n.alpha]).map(String::as_str).collect();
        let unused = self.file.tensors().map(|t| &t.name).filter(|name| !used.contains(name.as_str()));
        let keys: Vec<String> = unused.cloned().collect();
        match keys.is_empty() {
            true => Ok(()),
            false => Err(LoraError::Unused { path: self.path().into(), keys }),
        }
    }

    /// Adds `scale` times the products to the module's weights, computed in f32; each weight keeps its type.
    ///
    /// To undo it, load the model anew: subtracting the product again would leave rounding errors.
    ///
    /// # Errors
    /// Factors that can't be read.
    pub fn fuse<M: Module>(&self, module: M, update: &LoraUpdate, scale: f64) -> Result<M, LoraError> {
        let mut fuser = Fuser { file: self, update, scale, path: Path::default(), failure: None };
        let module = attentions_together(module.map(&mut fuser));
        fuser.failure.map_or(Ok(module), |failure| Err(failure.into()))
    }
}

impl LoraUpdate {
    /// How many weights it changes.
    pub fn len(&self) -> usize {
        self.products.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.products.is_empty()
    }

    /// The rank and alpha of all products; `None` where they differ, or where there is no product.
    pub fn config(&self) -> Option<LoraConfig> {
        let config =
            |product: &Product| LoraConfig { r: product.r, lora_alpha: product.scale * product.r as f64 };
        let mut all = self.products.values().map(config);
        let first = all.next()?;
        all.all(|other| other.agrees_with(&first)).then_some(first)
    }
}

struct Planner<'a> {
    file: &'a LoraFile,
    part: &'a LoraPart<'a>,
    path: Path,
    update: LoraUpdate,
    problems: Vec<TensorProblem>,
    failure: Option<LoraError>,
}

impl Planner<'_> {
    fn find(&mut self, shape: &[usize]) -> Result<(), LoraError> {
        let path = self.path.joined();
        let &[out, ref rest @ ..] = shape else { return Ok(()) };
        if rest.is_empty() || is_adapter(&path) {
            return Ok(());
        }
        let Some((layer, names)) = self.part.names(&path) else { return Ok(()) };
        let file = &self.file.file;
        let Some(names) = names.into_iter().find(|n| file.contains(&n.down) || file.contains(&n.up)) else {
            return Ok(());
        };
        let (Some(down), Some(up)) = (file.info(&names.down), file.info(&names.up)) else {
            let key = if file.contains(&names.down) { names.up } else { names.down };
            self.problems.push(TensorProblem::Missing { key, shape: None });
            return Ok(());
        };
        let r = down.shape.first().copied().unwrap_or(0);
        let width: usize = rest.iter().product();
        let fits = |found: &[usize], rows: usize, columns: usize| {
            found.first() == Some(&rows) && found.len() > 1 && found[1..].iter().product::<usize>() == columns
        };
        let before = self.problems.len();
        for (info, rows, columns) in [(down, r, width), (up, out, r)] {
            if r == 0 || !fits(&info.shape, rows, columns) {
                let (key, found) = (info.name.clone(), info.shape.clone());
                self.problems.push(TensorProblem::Shape { key, expected: vec![rows, columns], found });
            }
        }
        if self.problems.len() == before {
            let scale = self.file.scale(self.part.name, &layer, &names, r)?;
            self.update.products.insert(path, Product { names, r, scale });
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
        if self.failure.is_none() {
            self.failure = self.find(param.lazy_shape().as_slice()).err();
        }
    }
}

struct Fuser<'a> {
    file: &'a LoraFile,
    update: &'a LoraUpdate,
    scale: f64,
    path: Path,
    failure: Option<WeightError>,
}

impl Fuser<'_> {
    /// `scale B A` in the parameter's shape.
    fn product<const D: usize>(
        &self,
        product: &Product,
        param: &Param<Tensor<D>>,
    ) -> Result<Tensor<D>, WeightError> {
        let device = param.lazy_device();
        let read = |key: &str| -> Result<Tensor<2>, WeightError> {
            let (shape, values) = self.file.file.read_f32(key)?;
            let rows = shape.first().copied().unwrap_or(1);
            let shape = [rows, values.len() / rows];
            Ok(Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32)))
        };
        let (down, up) = (read(&product.names.down)?, read(&product.names.up)?);
        Ok((up.matmul(down) * (product.scale * self.scale)).reshape(param.lazy_shape()))
    }
}

impl ModuleMapper for Fuser<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(product) = self.update.products.get(&self.path.joined()) else { return param };
        if self.failure.is_some() {
            return param;
        }
        match self.product(product, &param) {
            Ok(product) => {
                let weight = param.val().detach();
                let dtype = weight.dtype();
                let fused = (weight.cast(DType::F32) + product).cast(dtype);
                let id = param.id;
                param.transform_for_load(fused, id)
            }
            Err(failure) => {
                self.failure = Some(failure);
                param
            }
        }
    }
}

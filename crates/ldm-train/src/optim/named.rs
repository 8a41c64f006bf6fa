//! A module's float parameters, and their gradients, by the parameters' paths.
//!
//! Everything that outlives a step (moments, averages, checkpoints) goes by the path: burn's own ids are drawn
//! anew whenever a model is built, so what is keyed by them is lost silently when a run resumes.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor};
use ldm_nn::optimizer::sum_of_squares;
use ldm_nn::weights::ParameterPath as Path;

use super::Precision;
use super::copied::{Copied, copied};

/// Flat tensors by their parameters' paths (`down_blocks.0.resnets.1.conv1.weight`), in the float type in which they were
/// found; what is computed of them is in f32.
#[derive(Debug, Clone, Default)]
pub struct Named(pub(crate) BTreeMap<String, Tensor<1>>);

impl Named {
    /// The tensor of the parameter at `path`, `[elements]`.
    pub fn get(&self, path: &str) -> Option<&Tensor<1>> {
        self.0.get(path)
    }

    /// Takes the tensor of the parameter at `path` out.
    pub fn remove(&mut self, path: &str) -> Option<Tensor<1>> {
        self.0.remove(path)
    }

    /// Paths and tensors in the paths' order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<1>)> {
        self.0.iter().map(|(path, tensor)| (path.as_str(), tensor))
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds another's tensors to these; what only one of them has stays as it is.
    pub fn add(&mut self, other: Named) {
        for (path, tensor) in other.0 {
            let sum = match self.0.remove(&path) {
                Some(sum) => sum.cast(DType::F32) + tensor.cast(DType::F32),
                None => tensor,
            };
            self.0.insert(path, sum);
        }
    }

    /// Multiplies every tensor.
    pub fn scale(&mut self, factor: f64) {
        if factor != 1.0 {
            let scaled =
                std::mem::take(&mut self.0).into_iter().map(|(path, t)| (path, t.cast(DType::F32) * factor));
            self.0 = scaled.collect();
        }
    }

    /// The mean of several sets of gradients, each of a loss that is a mean over as many items: what one batch
    /// of all items would have given. All on the first one's device.
    pub fn mean(sets: Vec<Named>) -> Named {
        let count = sets.len().max(1);
        let mut sets = sets.into_iter();
        let mut sum = sets.next().unwrap_or_default();
        let device = sum.0.values().next().map(Tensor::device);
        for mut set in sets {
            if let Some(device) = &device {
                set.0.values_mut().for_each(|t| *t = t.clone().to_device(device));
            }
            sum.add(set);
        }
        sum.scale(1.0 / count as f64);
        sum
    }

    /// The Euclidean norm of all tensors together, `[1]`; `None` where there are none.
    pub fn norm(&self) -> Option<Tensor<1>> {
        let all: Vec<_> = self.0.values().cloned().collect();
        sum_of_squares(&all).map(Tensor::sqrt)
    }
}

/// Scales all gradients together so that their common norm is at most `max_norm`; gives the norm before.
///
/// burn's own clipping takes each tensor by itself, which turns the direction of the step.
/// Source: `torch.nn.utils.clip_grad_norm_` (eps 1e-6).
pub fn clip_by_global_norm(gradients: &mut Named, max_norm: Option<f64>) -> f64 {
    let Some(norm) = gradients.norm() else { return 0.0 };
    let norm: f64 = norm.into_scalar();
    if let Some(max_norm) = max_norm {
        let factor = max_norm / (norm + 1e-6);
        if factor < 1.0 {
            gradients.scale(factor);
        }
    }
    norm
}

/// A copy of `module` to take gradients of: its parameters are leaves of the graph, in the float types that
/// `precision` decides on. The master weights stay f32 and untouched.
pub fn trainable<M: Module>(module: &M, precision: Precision) -> M {
    struct Leaves(Path, BTreeMap<String, Copied>);
    impl ModuleMapper for Leaves {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.0.exit(container);
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let path = self.0.joined();
            if is_statistic(&path) {
                return param;
            }
            let value = match self.1.remove(&path) {
                Some(copy) => copy.shaped(param.lazy_shape()),
                None => param.val().without_autodiff(),
            };
            Param::initialized(param.id, value.autodiff().require_grad())
        }
    }
    module.clone().map(&mut Leaves(Path::default(), copied(module, precision)))
}

/// Whether a float "parameter" is a running statistic of a batch norm, which no gradient moves.
pub(super) fn is_statistic(path: &str) -> bool {
    path.ends_with(".running_mean") || path.ends_with(".running_var")
}

/// What `backward` found for the parameters of a [`trainable`] copy, in their float types. Parameters that the loss
/// doesn't depend on are left out.
pub fn gradients<M: Module>(module: &M, found: &mut Gradients) -> Named {
    struct Collect<'a>(Path, &'a mut Gradients, Named);
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.0.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.0.joined();
            if is_statistic(&path) {
                return;
            }
            if let Some(gradient) = param.val().grad_remove(self.1) {
                let n = gradient.shape().num_elements();
                self.2.0.insert(path, gradient.reshape([n]));
            }
        }
    }
    let mut collect = Collect(Path::default(), found, Named::default());
    module.visit(&mut collect);
    collect.2
}

/// Path and shape of every parameter that an optimiser moves, in the module's order.
pub fn names<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    struct List(Path, Vec<(String, Vec<usize>)>);
    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.0.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.0.joined();
            if !is_statistic(&path) {
                self.1.push((path, param.lazy_shape().to_vec()));
            }
        }
    }
    let mut list = List(Path::default(), Vec::new());
    module.visit(&mut list);
    list.1
}

/// Shows every float parameter: `see` takes its path and its elements.
pub(super) fn visit_values<M: Module>(module: &M, see: &mut dyn FnMut(&str, Tensor<1>)) {
    struct See<'a>(Path, &'a mut dyn FnMut(&str, Tensor<1>));
    impl ModuleVisitor for See<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.0.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.0.joined();
            if !is_statistic(&path) {
                let value = param.val();
                let n = value.shape().num_elements();
                (self.1)(&path, value.reshape([n]));
            }
        }
    }
    module.visit(&mut See(Path::default(), see));
}

/// Gives those float parameters that `values` has by their paths these values, flat ones, which are taken out.
pub(crate) fn replace_values<M: Module>(module: M, values: &mut BTreeMap<String, Tensor<1>>) -> M {
    struct Replace<'a>(Path, &'a mut BTreeMap<String, Tensor<1>>);
    impl ModuleMapper for Replace<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.0.exit(container);
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.1.remove(&self.0.joined()) {
                Some(value) => param.map(|old| value.reshape(old.shape())),
                None => param,
            }
        }
    }
    module.map(&mut Replace(Path::default(), values))
}

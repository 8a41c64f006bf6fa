//! Q, K and V of an attention in one piece of memory, where a GPU makes them by one product.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use ldm_kernels::laid_together;

use super::ParameterPath;

const NAMES: [&str; 3] = ["to_q.weight", "to_k.weight", "to_v.weight"];

/// The same weights, those of every attention's `to_q`, `to_k` and `to_v` of one shape one after the other in memory, for
/// [`Linear::forward_together`](crate::Linear::forward_together): where the device has a kernel that reads them so. [`Loader`]
/// does this; after weights are changed it is to be done again, or those three are three products.
///
/// [`Loader`]: super::Loader
pub fn attentions_together<M: Module>(module: M) -> M {
    if !cfg!(feature = "gpu-kernels") {
        return module;
    }
    let mut found = Found::default();
    module.visit(&mut found);
    let mut laid = BTreeMap::new();
    for (prefix, weights) in found.attentions {
        if let [Some(q), Some(k), Some(v)] = weights {
            let names = NAMES.map(|name| format!("{prefix}{name}"));
            laid.extend(names.into_iter().zip(laid_together([q, k, v])));
        }
    }
    module.map(&mut Replace { path: ParameterPath::default(), laid })
}

/// Weights by what comes before their names.
#[derive(Default)]
struct Found {
    path: ParameterPath,
    attentions: BTreeMap<String, [Option<Tensor<2>>; 3]>,
}

impl ModuleVisitor for Found {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.joined();
        for (i, name) in NAMES.iter().enumerate() {
            if let (Some(prefix), &[rows, columns]) = (path.strip_suffix(name), param.lazy_shape().as_slice())
            {
                let weight = param.val().reshape([rows, columns]);
                self.attentions.entry(prefix.into()).or_default()[i] = Some(weight);
            }
        }
    }
}

struct Replace {
    path: ParameterPath,
    laid: BTreeMap<String, Tensor<2>>,
}

impl ModuleMapper for Replace {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.laid.remove(&self.path.joined()) {
            Some(laid) => param.map(|old| laid.reshape(old.shape())),
            None => param,
        }
    }
}

//! Copies of a model's weights in the float types of a step.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Shape, Tensor};
use ldm_nn::optimizer::{copies, orders};
use ldm_nn::weights::ParameterPath as Path;

use super::Precision;
use super::named::is_statistic;

/// A parameter's copy.
pub struct Copied {
    values: Tensor<1>,
    /// Whether the values lie in the order of [`copies`], in which the second axis is the last.
    ordered: bool,
}

impl Copied {
    /// As the parameter, which has this shape, has it.
    pub fn shaped<const D: usize>(self, shape: Shape) -> Tensor<D> {
        if !self.ordered {
            return self.values.reshape(shape);
        }
        let lying: [usize; D] = std::array::from_fn(|i| {
            shape[match i {
                0 => 0,
                _ if i + 1 == D => 1,
                _ => i + 1,
            }]
        });
        let axes: [isize; D] = std::array::from_fn(|i| match i {
            0 => 0,
            1 => D as isize - 1,
            _ => i as isize - 1,
        });
        self.values.reshape(lying).permute(axes)
    }
}

/// A parameter and how it is to be copied.
struct Original {
    path: String,
    values: Tensor<1>,
    dtype: DType,
    ordered: bool,
    /// As [`copies`] takes it.
    order: [usize; 3],
}

/// Copies, by their paths, of the parameters that `precision` wants in another float type than they have.
pub fn copied<M: Module>(module: &M, precision: Precision) -> BTreeMap<String, Copied> {
    let mut found = Originals { path: Path::default(), precision, all: Vec::new() };
    module.visit(&mut found);
    let mut all = BTreeMap::new();
    while let Some(dtype) = found.all.first().map(|original| original.dtype) {
        let (these, others) = found.all.into_iter().partition(|original| original.dtype == dtype);
        found.all = others;
        let (names, weights): (Vec<_>, Vec<_>) =
            Vec::<Original>::into_iter(these).map(|x| ((x.path, x.ordered), (x.values, x.order))).unzip();
        let copies = copies(weights, dtype).into_iter();
        all.extend(
            names.into_iter().zip(copies).map(|((path, ordered), values)| (path, Copied { values, ordered })),
        );
    }
    all
}

struct Originals {
    path: Path,
    precision: Precision,
    all: Vec<Original>,
}

impl ModuleVisitor for Originals {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.joined();
        let dtype = self.precision.of(&path);
        let value = param.val().without_autodiff();
        if value.dtype() == dtype || is_statistic(&path) {
            return;
        }
        let shape = value.shape();
        let values = value.reshape([shape.num_elements()]);
        // Those of convolutions.
        let ordered = D == 4 && orders(&values, dtype);
        let order = match ordered {
            true => [shape[0], shape[1], shape[2] * shape[3]],
            false => [1, shape.num_elements(), 1],
        };
        self.all.push(Original { path, values, dtype, ordered, order });
    }
}

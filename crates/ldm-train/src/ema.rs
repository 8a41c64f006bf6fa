use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Shape, Tensor};
use ldm_nn::optimizer::ema;
use ldm_nn::weights::ParameterPath;

use crate::optim::replace_values;

/// What keeps an average from following a model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EmaError {
    /// A decay outside [0, 1].
    #[error("EMA: the decay is {0}, expected a number from 0 to 1")]
    Decay(f64),
    /// A parameter of the average that the model lacks, or has in another shape.
    #[error("EMA: the model has no `{path}` of shape {shape:?}")]
    Parameter {
        /// The parameter's path in the average.
        path: String,
        /// Its shape there.
        shape: Vec<usize>,
    },
}

/// The exponential moving average of a model's weights, after each update
/// `average += (1 - d) (weights - average)` with `d = min(decay, (1 + n) / (10 + n))` after n updates.
///
/// Source: `LitEma` in CompVis' ema.py, which keeps one of the U-Net alone. Parameters are matched by their paths,
/// so an average read from a file follows as well as one that was just begun; those that need no gradient, and
/// running statistics, are copied.
#[derive(Debug, Clone)]
pub struct Ema<M> {
    average: M,
    decay: f64,
    num_updates: u64,
}

impl<M: Module> Ema<M> {
    /// An average that begins with the model's present weights; CompVis' decay is 0.9999.
    ///
    /// # Errors
    /// [`EmaError::Decay`].
    pub fn new(model: &M, decay: f64) -> Result<Self, EmaError> {
        Self::resume(model.valid(), decay, 0)
    }

    /// Goes on with an average after `num_updates` updates.
    ///
    /// # Errors
    /// [`EmaError::Decay`].
    pub fn resume(average: M, decay: f64, num_updates: u64) -> Result<Self, EmaError> {
        if !(0.0..=1.0).contains(&decay) {
            return Err(EmaError::Decay(decay));
        }
        Ok(Self { average: average.valid(), decay, num_updates })
    }

    /// Takes the model's weights in; once for each step of the optimiser (the reference does so with each micro-batch, also
    /// where the weights are as they were).
    ///
    /// # Errors
    /// [`EmaError::Parameter`] where the model is not built as the average is; the average is then as it was.
    pub fn update(&mut self, model: &M) -> Result<(), EmaError> {
        let mut weights = Weights::default();
        model.visit(&mut weights);
        let mut found = Averages {
            path: ParameterPath::default(),
            weights: weights.found,
            all: Vec::new(),
            missing: None,
        };
        self.average.visit(&mut found);
        if let Some(missing) = found.missing {
            return Err(missing);
        }
        self.num_updates += 1;
        let n = self.num_updates as f64;
        let step = 1.0 - self.decay.min((1.0 + n) / (10.0 + n));
        let (moving, still): (Vec<_>, Vec<_>) =
            found.all.into_iter().partition(|(_, _, weight)| weight.moves);
        let (paths, pairs): (Vec<_>, Vec<_>) =
            moving.into_iter().map(|(path, average, weight)| (path, [average, weight.value])).unzip();
        let moved = paths.into_iter().zip(ema(pairs, step));
        let mut values: BTreeMap<_, _> =
            still.into_iter().map(|(path, _, weight)| (path, weight.value)).chain(moved).collect();
        self.average = replace_values(self.average.clone(), &mut values);
        Ok(())
    }

    /// The model with the averaged weights, outside autodiff: to sample from, to visit by name, to save.
    pub fn model(&self) -> &M {
        &self.average
    }

    /// The largest decay.
    pub fn decay(&self) -> f64 {
        self.decay
    }

    /// How many updates there were (`num_updates` of LitEma).
    pub fn num_updates(&self) -> u64 {
        self.num_updates
    }
}

/// A weight, flat.
struct Weight {
    value: Tensor<1>,
    shape: Shape,
    /// Whether an optimiser moves it.
    moves: bool,
}

fn flat<const D: usize>(param: &Param<Tensor<D>>) -> Tensor<1> {
    let value = param.val().without_autodiff();
    let n = value.shape().num_elements();
    value.reshape([n])
}

#[derive(Default)]
struct Weights {
    path: ParameterPath,
    found: BTreeMap<String, Weight>,
}

impl ModuleVisitor for Weights {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Outside autodiff nothing says so, and what doesn't move is its own average.
        let moves = param.is_require_grad() || !param.lazy_device().is_autodiff();
        let weight = Weight { value: flat(param), shape: param.lazy_shape(), moves };
        self.found.insert(self.path.joined(), weight);
    }
}

/// The averages beside the weights that they follow.
struct Averages {
    path: ParameterPath,
    weights: BTreeMap<String, Weight>,
    all: Vec<(String, Tensor<1>, Weight)>,
    missing: Option<EmaError>,
}

impl ModuleVisitor for Averages {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (path, shape) = (self.path.joined(), param.lazy_shape());
        match self.weights.remove(&path).filter(|weight| weight.shape == shape) {
            Some(mut weight) => {
                let average = flat(param);
                weight.value = weight.value.to_device(&average.device());
                self.all.push((path, average, weight));
            }
            None => self.missing = Some(EmaError::Parameter { path, shape: shape.to_vec() }),
        }
    }
}

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_nn::optimizer::{AdamWFactors, AdamWTensors, adamw};
use ldm_nn::weights::{TensorProblem, WeightError, WeightFile};
use serde::{Deserialize, Serialize};

use super::named::{replace_values, visit_values};
use super::{Named, names};

/// The numbers of Adam with decoupled weight decay; PyTorch's names and defaults (`torch.optim.AdamW`).
///
/// burn's own defaults differ (eps 1e-5, decay 1e-4), so nothing here is left to them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// How much of the first and of the second moment each step keeps.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Times the learning rate: the part of a weight that each step takes away. 0 is plain Adam.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2 }
    }
}

impl AdamWConfig {
    /// Adam as the reference trains first stages and discriminators: betas 0.5 and 0.9, no decay.
    pub const FIRST_STAGE: Self = Self { betas: [0.5, 0.9], eps: 1e-8, weight_decay: 0.0 };
}

/// AdamW (Loshchilov & Hutter 2019, algorithm 2), in the order of operations of `torch.optim.AdamW`.
///
/// Moments go by the parameter's path, so a resumed run finds them again; each parameter has its own count
/// of steps, and one without a gradient keeps value and moments.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    moments: BTreeMap<String, Moments>,
}

#[derive(Debug, Clone)]
struct Moments {
    shape: Vec<usize>,
    steps: u64,
    first: Tensor<1>,
    second: Tensor<1>,
}

impl AdamW {
    /// An optimiser of `module`'s parameters, all moments zero.
    pub fn new<M: Module>(config: AdamWConfig, module: &M, device: &Device) -> Self {
        let zeros = |(path, shape): (String, Vec<usize>)| {
            let zeros = || Tensor::zeros([shape.iter().product::<usize>()], device);
            let (first, second) = (zeros(), zeros());
            (path, Moments { shape, steps: 0, first, second })
        };
        Self { config, moments: names(module).into_iter().map(zeros).collect() }
    }

    /// One step against the gradients, which are used up.
    pub fn step<M: Module>(&mut self, module: M, mut gradients: Named, rate: f64) -> M {
        let AdamWConfig { betas, eps, weight_decay } = self.config;
        // Those that have taken as many steps have the same factors.
        let mut alike: BTreeMap<u64, Vec<(String, Vec<usize>, AdamWTensors)>> = BTreeMap::new();
        visit_values(&module, &mut |path, value| {
            let Some(gradient) = gradients.remove(path) else { return };
            // Taken out, so that nobody else holds them and they can be written over.
            let Some((path, moments)) = self.moments.remove_entry(path) else { return };
            let Moments { shape, steps, first, second } = moments;
            let tensors = AdamWTensors { value, gradient, first, second };
            alike.entry(steps + 1).or_default().push((path, shape, tensors));
        });
        let mut values = BTreeMap::new();
        for (steps, parameters) in alike {
            let (names, tensors): (Vec<_>, Vec<_>) =
                parameters.into_iter().map(|(path, shape, tensors)| ((path, shape), tensors)).unzip();
            let after = adamw(tensors, AdamWFactors::new(betas, eps, weight_decay, rate, steps));
            for ((path, shape), [value, first, second]) in names.into_iter().zip(after) {
                self.moments.insert(path.clone(), Moments { shape, steps, first, second });
                values.insert(path, value);
            }
        }
        replace_values(module, &mut values)
    }

    /// A step with gradients of zero while all moments are zero: it only counts.
    pub(crate) fn idle(&mut self) {
        self.moments.values_mut().for_each(|moments| moments.steps += 1);
    }

    /// Sets the moments of some rows (first axis) of the parameter at `path` to zero, as those of a codebook's
    /// entries that have been given other values. Its count of steps stays; rows that it lacks are skipped.
    pub fn forget_rows(&mut self, path: &str, rows: &[usize]) {
        let Some(moments) = self.moments.get_mut(path) else { return };
        let count = moments.shape.first().copied().unwrap_or(1).max(1);
        let width = moments.shape.iter().skip(1).product::<usize>();
        let mut kept = vec![1f32; count * width];
        for row in rows.iter().filter(|row| **row < count) {
            kept[row * width..(row + 1) * width].fill(0.0);
        }
        let device = moments.first.device();
        let kept = Tensor::<1>::from_data(TensorData::new(kept, [count * width]), (&device, DType::F32));
        moments.first = moments.first.clone() * kept.clone();
        moments.second = moments.second.clone() * kept;
    }

    /// The moments to be written, by PyTorch's names for them: `PATH.exp_avg`, `PATH.exp_avg_sq`, `PATH.step`.
    pub(crate) fn tensors(&self) -> Vec<(String, TensorData)> {
        let mut tensors = Vec::with_capacity(3 * self.moments.len());
        for (path, moments) in &self.moments {
            let data = |t: &Tensor<1>| {
                let values: Vec<f32> = t.to_data().iter::<f32>().collect();
                TensorData::new(values, moments.shape.clone())
            };
            tensors.push((format!("{path}.exp_avg"), data(&moments.first)));
            tensors.push((format!("{path}.exp_avg_sq"), data(&moments.second)));
            tensors.push((format!("{path}.step"), TensorData::new(vec![moments.steps as i64], [1])));
        }
        tensors
    }

    /// Takes the moments of every parameter from a file that [`tensors`](Self::tensors) went into, under `prefix`.
    ///
    /// # Errors
    ///
    /// All moments that the file lacks or holds in another shape, at once: to go on without them would
    /// silently be another run.
    pub(crate) fn read(mut self, file: &WeightFile, prefix: &str) -> Result<Self, WeightError> {
        let mut problems = Vec::new();
        for (path, moments) in &mut self.moments {
            let parts = [("exp_avg", &moments.shape), ("exp_avg_sq", &moments.shape), ("step", &vec![1])];
            let wrong = parts.into_iter().filter_map(|(part, shape)| {
                let key = format!("{prefix}{path}.{part}");
                match file.info(&key) {
                    None => Some(TensorProblem::Missing { key, shape: Some(shape.clone()) }),
                    Some(info) if info.shape != *shape => {
                        let (expected, found) = (shape.clone(), info.shape.clone());
                        Some(TensorProblem::Shape { key, expected, found })
                    }
                    Some(_) => None,
                }
            });
            problems.extend(wrong);
            if !problems.is_empty() {
                continue;
            }
            let device = moments.first.device();
            let read = |part: &str| -> Result<Tensor<1>, WeightError> {
                let (_, values) = file.read_f32(&format!("{prefix}{path}.{part}"))?;
                let n = values.len();
                Ok(Tensor::from_data(TensorData::new(values, [n]), &device))
            };
            moments.first = read("exp_avg")?;
            moments.second = read("exp_avg_sq")?;
            let (_, steps) = file.read_i64(&format!("{prefix}{path}.step"))?;
            moments.steps = steps.first().map_or(0, |n| u64::try_from(*n).unwrap_or(0));
        }
        if !problems.is_empty() {
            return Err(WeightError::Tensors { path: file.path().into(), problems });
        }
        Ok(self)
    }
}

//! A step's micro-batches, shared by the devices of a run.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{At, RunError, finite, mean};
use crate::Logs;
use crate::config::TrainConfig;
use crate::data::Batch;
use crate::log::Metrics;
use crate::optim::Named;
use crate::parallel::{Reduction, average, on_devices};

/// The devices of a stage. The first one holds the weights; the others get a replica for each step.
#[derive(Debug, Clone)]
pub(super) struct Places {
    devices: Vec<Device>,
    reduction: Reduction,
}

/// One of them.
pub(super) struct Place<'a> {
    /// Counted from 0.
    pub number: usize,
    pub device: &'a Device,
}

/// What the micro-batches of a step gave together.
pub(super) struct Gathered<T> {
    /// The mean gradients, on the first device.
    pub gradients: Named,
    /// The mean numbers: all, or the loss alone where nobody looks at the rest.
    pub metrics: Metrics,
    /// What else each of them gave.
    pub rest: Vec<T>,
}

impl Places {
    pub fn one(device: &Device) -> Self {
        Self { devices: vec![device.clone()], reduction: Reduction::Gather }
    }

    /// These devices, as many as the config says.
    ///
    /// Dropout is refused: burn draws it from one generator for all threads, so what is dropped would depend on which
    /// device comes first.
    pub fn several(devices: Vec<Device>, train: &TrainConfig, dropout: f64) -> Result<Self, RunError> {
        let (given, expected) = (devices.len(), train.device_count());
        if given != expected || given == 0 {
            return Err(RunError::Devices { given, expected });
        }
        if given > 1 && dropout > 0.0 {
            return Err(RunError::NotTrainable { what: "a model with `dropout` on more than one device" });
        }
        for device in &devices {
            super::check_device(train.precision, device)?;
        }
        Ok(Self { reduction: Reduction::of(&devices), devices })
    }

    pub fn first(&self) -> &Device {
        &self.devices[0]
    }

    pub fn first_place(&self) -> Place<'_> {
        Place { number: 0, device: self.first() }
    }

    /// What each device needs a copy of: the first as it is, the others moved there.
    pub fn replicas<T: Clone>(&self, value: &T, mut moved: impl FnMut(&T, &Device) -> T) -> Vec<T> {
        let rest = self.devices[1..].iter().map(|device| moved(value, device));
        std::iter::once(value.clone()).chain(rest.collect::<Vec<_>>()).collect()
    }

    /// Runs `micro` on each micro-batch, with what `working` makes once on each device.
    ///
    /// `micro` is given the micro-batch's number in the run. Numbers are read once all gradients are there: those called
    /// `only`, or all of them.
    ///
    /// # Errors
    ///
    /// [`RunError::NotFinite`], [`RunError::Shares`], and what `micro` returns.
    pub fn gather<W, T: Send>(
        &self,
        at: &At,
        batches: &[Batch],
        only: Option<&str>,
        working: impl Fn(&Place<'_>) -> W + Sync,
        micro: impl Fn(&Place<'_>, &W, u64, &Batch) -> Result<(Named, Logs, T), RunError> + Sync,
    ) -> Result<Gathered<T>, RunError> {
        let devices = self.devices.len();
        if !batches.len().is_multiple_of(devices) {
            return Err(RunError::Shares { batches: batches.len(), devices });
        }
        let found = on_devices(&self.devices, |number, device| {
            let place = Place { number, device };
            let working = working(&place);
            // Added up as they come: a set is as large as the model.
            let (mut sum, mut logs, mut rest) = (Named::default(), Vec::new(), Vec::new());
            for (k, batch) in batches.iter().enumerate().skip(number).step_by(devices) {
                let (gradients, numbers, more) = micro(&place, &working, at.micro + k as u64, batch)?;
                sum.add(gradients);
                logs.push(numbers);
                rest.push(more);
            }
            sum.scale(1.0 / logs.len().max(1) as f64);
            Ok::<_, RunError>((sum, read(at.step, &logs, only)?, rest))
        })?;
        let (mut sets, mut metrics, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (gradients, numbers, more) in found {
            sets.push(gradients);
            metrics.push(numbers);
            rest.extend(more);
        }
        Ok(Gathered { gradients: average(sets, self.reduction), metrics: mean(metrics), rest })
    }
}

/// A copy of `module` at a place.
pub(super) fn replica<M: Module>(module: &M, place: &Place<'_>) -> M {
    match place.number {
        0 => module.clone(),
        _ => module.clone().to_device(place.device),
    }
}

/// Reads the numbers of several micro-batches, or those called `only`, in one transfer; gives their means and refuses
/// those that are not finite.
fn read(step: u64, logs: &[Logs], only: Option<&str>) -> Result<Metrics, RunError> {
    let names: Vec<&str> = logs.first().into_iter().flat_map(Logs::names).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| only.is_none_or(|only| only == *name)).collect();
    let numbers: Vec<Tensor<1>> =
        logs.iter().flat_map(|logs| names.iter().filter_map(|name| logs.get(name))).collect();
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let values: Vec<f64> = Tensor::cat(numbers, 0).into_data().iter::<f64>().collect();
    let named = |(i, name): (usize, &&str)| {
        let of_all = values.iter().skip(i).step_by(names.len());
        let value = of_all.sum::<f64>() / logs.len() as f64;
        Ok(((*name).to_string(), finite(step, name, value)?))
    };
    names.iter().enumerate().map(named).collect()
}

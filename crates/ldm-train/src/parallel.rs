//! Several devices in one process: each takes the gradients of its own micro-batches, then they are averaged.

use burn::tensor::distributed::{ReduceOperation, all_reduce};
use burn::tensor::{DType, Device};
use rayon::ThreadPoolBuilder;
use serde::{Deserialize, Serialize};

use crate::optim::Named;

/// The devices of a run (`train.devices`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of devices, or a list of their names")]
pub enum Devices {
    /// So many of the kind that the run is on: on a CPU as many threads with a replica each.
    Count(usize),
    /// These, by the names that the program's `--device` takes; the first holds the weights.
    Names(Vec<String>),
}

impl Devices {
    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Self::Count(count) => *count,
            Self::Names(names) => names.len(),
        }
    }
}

/// How the gradients of several devices come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// The first device gathers and averages: works anywhere.
    #[default]
    Gather,
    /// burn's all-reduce, which on CUDA is NCCL's and elsewhere panics. It makes its communicator of the devices at
    /// first use and needs no `DistributedContext`: that one serves the synchronisation inside `backward`. Not yet
    /// run: no machine with several GPUs was at hand.
    AllReduce,
}

impl Reduction {
    /// The fastest that these devices have: the all-reduce where all are CUDA devices and none is named twice.
    pub fn of(devices: &[Device]) -> Self {
        let twice = devices.iter().enumerate().any(|(i, device)| devices[..i].contains(device));
        if devices.len() > 1 && !twice && is_cuda(devices) { Self::AllReduce } else { Self::Gather }
    }
}

#[cfg(feature = "cuda")]
fn is_cuda(devices: &[Device]) -> bool {
    let found = ldm_nn::device::enumerate(burn::tensor::DeviceType::Cuda);
    found.is_some_and(|cuda| devices.iter().all(|device| cuda.contains(device)))
}

#[cfg(not(feature = "cuda"))]
fn is_cuda(_: &[Device]) -> bool {
    false
}

/// Calls `each` with the number of every device and the device, in one thread a device, and gives the results in the
/// devices' order. A single device stays in the caller's thread.
///
/// Each of several devices has its share of the caller's worker threads to itself: where the devices are replicas on
/// one CPU, the operations of one neither wait for nor interrupt those of another, and what burn computes in one
/// thread alone no longer leaves the other cores idle.
///
/// # Errors
///
/// The first device's error.
pub fn on_devices<R: Send, E: Send>(
    devices: &[Device],
    each: impl Fn(usize, &Device) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    if let [device] = devices {
        return Ok(vec![each(0, device)?]);
    }
    let each = &each;
    let share = (rayon::current_num_threads() / devices.len()).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = devices
            .iter()
            .enumerate()
            .map(|(i, device)| {
                scope.spawn(move || match ThreadPoolBuilder::new().num_threads(share).build() {
                    Ok(workers) => workers.install(|| each(i, device)),
                    // No thread more to be had: the common ones do.
                    Err(_) => each(i, device),
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// The mean of the devices' gradients, each of a loss that is a mean over as many pictures: the gradients of one
/// batch of them all. On the first device.
pub fn average(sets: Vec<Named>, reduction: Reduction) -> Named {
    match reduction {
        Reduction::Gather => Named::mean(sets),
        Reduction::AllReduce => all_reduced(sets),
    }
}

fn all_reduced(sets: Vec<Named>) -> Named {
    let devices: Vec<Device> =
        sets.iter().filter_map(|set| set.iter().next().map(|(_, tensor)| tensor.device())).collect();
    let paths: Vec<String> =
        sets.first().into_iter().flat_map(Named::iter).map(|(path, _)| path.into()).collect();
    let mut sets = sets;
    let mut mean = Named::default();
    for path in paths {
        // Every device joins before the first result is waited for.
        let tensors: Vec<_> =
            sets.iter_mut().filter_map(|set| Some(set.remove(&path)?.cast(DType::F32))).collect();
        let reduced: Vec<_> = tensors
            .into_iter()
            .map(|tensor| all_reduce(tensor, ReduceOperation::Mean, devices.clone()))
            .collect();
        // Every device waits, not the first alone: memory that one of them frees while the others still read it
        // would be given to its next kernel.
        let mut resolved = reduced.into_iter().map(|tensor| tensor.resolve());
        if let Some(first) = resolved.next() {
            resolved.for_each(drop);
            mean.0.insert(path, first);
        }
    }
    mean
}

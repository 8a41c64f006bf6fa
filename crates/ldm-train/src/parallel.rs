//! Several devices in one process: each takes the gradients of its own micro-batches, then they are averaged.

use burn::module::Module;
use burn::tensor::Device;
use burn::tensor::distributed::{ReduceOperation, all_reduce};

use crate::optim::{Named, Precision, trainable};

/// How the gradients of several devices come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// The first device gathers and averages: works anywhere.
    #[default]
    Gather,
    /// burn's all-reduce, which on CUDA is NCCL's and elsewhere panics. The caller holds burn's
    /// `DistributedContext` of the devices. Not yet run: no machine with several GPUs was at hand.
    AllReduce,
}

/// Calls `each` with a copy of `module` on every device, one thread a device, and gives the results in the
/// devices' order. The copies' parameters are leaves to take gradients of.
///
/// # Errors
///
/// The first device's error.
pub fn on_devices<M: Module, R: Send, E: Send>(
    module: &M,
    devices: &[Device],
    precision: Precision,
    each: impl Fn(usize, &Device, &M) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let each = &each;
    std::thread::scope(|scope| {
        let threads: Vec<_> = devices
            .iter()
            .enumerate()
            .map(|(i, device)| {
                let replica = module.clone().to_device(device);
                scope.spawn(move || each(i, device, &trainable(&replica, precision)))
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
        let tensors: Vec<_> = sets.iter_mut().filter_map(|set| set.remove(&path)).collect();
        let reduced: Vec<_> = tensors
            .into_iter()
            .map(|tensor| all_reduce(tensor, ReduceOperation::Mean, devices.clone()))
            .collect();
        let first = reduced.into_iter().map(|tensor| tensor.resolve()).next();
        if let Some(tensor) = first {
            mean.0.insert(path, tensor);
        }
    }
    mean
}

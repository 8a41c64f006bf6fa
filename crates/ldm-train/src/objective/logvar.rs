use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

/// The learned log-variance of each timestep's loss (`logvar` of ddpm.py, with `learn_logvar`).
///
/// A module of its own, so that an optimiser moves it beside the U-Net.
#[derive(Module, Debug)]
pub struct LogVar {
    /// `[T]`.
    pub logvar: Param<Tensor<1>>,
}

impl LogVar {
    pub(super) fn new(timesteps: usize, init: f64, device: &Device) -> Self {
        let values = Tensor::full([timesteps], init, (device, DType::F32));
        Self { logvar: Param::from_tensor(values) }
    }
}

use burn::module::{Initializer, Module, Param, RunningState};
use burn::tensor::{DType, Device, Tensor};

/// PyTorch's defaults, which taming leaves as they are.
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// Batch normalisation as `torch.nn.BatchNorm2d`: with the batch's own statistics where the input records
/// gradients (training), with the running ones elsewhere.
///
/// burn's own keeps the biased variance, loses the last update when it is saved, and takes the running statistics
/// where it is frozen.
#[derive(Module, Debug)]
pub struct BatchNorm2d {
    /// `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// `[channels]`.
    pub bias: Param<Tensor<1>>,
    /// `[channels]`, f32.
    pub running_mean: RunningState<Tensor<1>>,
    /// `[channels]`, f32, of n - 1.
    pub running_var: RunningState<Tensor<1>>,
}

impl BatchNorm2d {
    /// Weights from N(1, 0.02), biases 0 (`weights_init` of taming's discriminator).
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        let plain = device.clone().inner();
        Self {
            weight: Initializer::Normal { mean: 1.0, std: 0.02 }.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            running_mean: RunningState::new(Tensor::zeros([channels], (&plain, DType::F32))),
            running_var: RunningState::new(Tensor::ones([channels], (&plain, DType::F32))),
        }
    }

    /// `[b, channels, h, w] -> [b, channels, h, w]`; statistics in f32.
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let ([b, c, h, w], dtype) = (x.dims(), x.dtype());
        let training = x.is_autodiff();
        let x = x.cast(DType::F32);
        let (centred, var) = if training {
            let mean = of_channels(x.clone());
            let centred = x - mean.clone();
            let var = of_channels(centred.clone().square());
            let n = b * h * w;
            let unbiased = n as f64 / (n.max(2) - 1) as f64;
            follow(&self.running_mean, mean.inner().reshape([c]));
            follow(&self.running_var, var.clone().inner().reshape([c]) * unbiased);
            (centred, var)
        } else {
            let [mean, var] = [&self.running_mean, &self.running_var]
                .map(|state| state.value_sync().inner().to_device(&x.device()).reshape([1, c, 1, 1]));
            (x - mean, var)
        };
        let [weight, bias] =
            [&self.weight, &self.bias].map(|param| param.val().cast(DType::F32).reshape([1, c, 1, 1]));
        (centred / (var + EPS).sqrt() * weight + bias).cast(dtype)
    }
}

/// The mean over all but the channels: `[1, c, 1, 1]`.
fn of_channels(x: Tensor<4>) -> Tensor<4> {
    x.mean_dim(0).mean_dim(2).mean_dim(3)
}

fn follow(state: &RunningState<Tensor<1>>, batch: Tensor<1>) {
    let running = state.value_sync().inner().to_device(&batch.device());
    state.update(running * (1.0 - MOMENTUM) + batch * MOMENTUM);
    // A walk through the module reads what has been synchronised.
    let _ = state.value_sync();
}

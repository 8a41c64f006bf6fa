//! The embedding of a timestep: sinusoids, then a small network.

use std::f64::consts::TAU;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_nn::{Linear, LinearConfig, silu};

/// 2 pi in two parts: the first has 8 significant bits, so its product with a whole number of turns is exact.
const TURN_HIGH: f64 = 6.28125;
const TURN_LOW: f64 = TAU - TURN_HIGH;

/// Sinusoidal embedding of `[n]` timesteps (fractions allowed): `[n, dim]`, in f32.
///
/// Frequencies fall from 1 to 1/10000: `10000^(-i / (dim / 2 - freq_shift))`. Cosines come first where
/// `cos_first` (diffusers' `flip_sin_to_cos`), sines otherwise; an odd `dim` ends in a column of zeros.
/// Source: `timestep_embedding` in the reference's `util.py`, `get_timestep_embedding` in diffusers.
pub fn sinusoidal_embedding(timesteps: Tensor<1>, dim: usize, cos_first: bool, freq_shift: f64) -> Tensor<2> {
    let device = timesteps.device();
    let half = dim / 2;
    // In f32 and in the references' order: at t = 999 a frequency's last bit shows in the fourth digit.
    let step = (half as f64 - freq_shift) as f32;
    let frequency = |i: usize| (-(10_000f64.ln()) as f32 * i as f32 / step).exp();
    let frequencies = TensorData::new((0..half).map(frequency).collect::<Vec<_>>(), [1, half]);
    let frequencies = Tensor::<2>::from_data(frequencies, (&device, DType::F32));

    let n = timesteps.dims()[0];
    let angle = whole_turns_removed(timesteps.cast(DType::F32).reshape([n, 1]) * frequencies);
    let (sin, cos) = (angle.clone().sin(), angle.cos());
    let mut parts = if cos_first { vec![cos, sin] } else { vec![sin, cos] };
    if dim % 2 == 1 {
        parts.push(Tensor::zeros([n, 1], (&device, DType::F32)));
    }
    Tensor::cat(parts, 1)
}

/// The angle less its whole turns: a GPU's sine loses digits with the size of its argument.
fn whole_turns_removed(angle: Tensor<2>) -> Tensor<2> {
    let turns = angle.clone().div_scalar(TAU).round();
    angle - turns.clone() * TURN_HIGH - turns * TURN_LOW
}

/// `linear_2(silu(linear_1 x))`: from sinusoids, or from a vector of features, to the blocks' time embedding.
///
/// Source: `time_embed` and `label_emb` in the reference's `openaimodel.py`, `TimestepEmbedding` in diffusers.
#[derive(Module, Debug)]
pub struct TimestepEmbedding {
    /// `[d_in -> width]`.
    pub linear_1: Linear,
    /// `[width -> width]`.
    pub linear_2: Linear,
    /// `[d_cond -> d_in]`, without bias: a guidance embedding added to the input (latent consistency models).
    pub cond_proj: Option<Linear>,
}

impl TimestepEmbedding {
    /// From `d_in` features, plus `d_cond` of a further condition, to `width`.
    pub fn new(d_in: usize, width: usize, d_cond: Option<usize>, device: &Device) -> Self {
        Self {
            linear_1: LinearConfig::new(d_in, width).init(device),
            linear_2: LinearConfig::new(width, width).init(device),
            cond_proj: d_cond.map(|d| LinearConfig::new(d, d_in).with_bias(false).init(device)),
        }
    }

    /// `x` `[b, d_in]`, `condition` `[b, d_cond]` -> `[b, width]`.
    pub fn forward(&self, x: Tensor<2>, condition: Option<Tensor<2>>) -> Tensor<2> {
        let x = match (&self.cond_proj, condition) {
            (Some(proj), Some(condition)) => x + proj.forward(condition),
            _ => x,
        };
        self.linear_2.forward(silu(self.linear_1.forward(x)))
    }
}

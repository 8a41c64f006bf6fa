use burn::tensor::{DType, Tensor, TensorData};
use serde_json::json;

use crate::{Error, SchedulerConfig};

/// The forward process that a model was trained on: `q(x_t | x_0) = N(sqrt(a_t) x_0, (1 - a_t) I)`,
/// with `a_t` = alpha-bar (Ho et al. 2020, eq. 4).
///
/// Computed in f32 in PyTorch's order, so that every value equals diffusers' bit for bit.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    betas: Vec<f32>,
    alpha_bar: Vec<f32>,
}

#[derive(Clone, Copy)]
enum BetaSchedule {
    Linear,
    ScaledLinear,
    SquaredCos,
}

const BETA_SCHEDULES: [(&str, BetaSchedule); 3] = [
    ("linear", BetaSchedule::Linear),
    ("scaled_linear", BetaSchedule::ScaledLinear),
    ("squaredcos_cap_v2", BetaSchedule::SquaredCos),
];

/// What a class takes where its config says nothing.
#[derive(Clone, Copy)]
pub(crate) struct ScheduleDefaults {
    beta_start: f64,
    beta_end: f64,
    beta_schedule: BetaSchedule,
    /// Whether the class knows `rescale_betas_zero_snr`.
    rescales: bool,
    /// Whether it keeps the last alpha-bar above zero after rescaling, so that sigma stays finite.
    keeps_above_zero: bool,
}

impl ScheduleDefaults {
    /// DDPM, DDIM, PNDM; Euler, DPM-Solver and UniPC with `above_zero`.
    pub const fn ddpm() -> Self {
        Self {
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            rescales: true,
            keeps_above_zero: false,
        }
    }

    /// Heun.
    pub const fn heun() -> Self {
        Self { beta_start: 0.00085, beta_end: 0.012, rescales: false, ..Self::ddpm() }
    }

    /// LCM.
    pub const fn lcm() -> Self {
        Self { beta_schedule: BetaSchedule::ScaledLinear, rescales: true, ..Self::heun() }
    }

    pub const fn above_zero(self) -> Self {
        Self { keeps_above_zero: true, ..self }
    }

    /// PNDM and LMS know no rescaling and ignore the key, as diffusers does.
    pub const fn never_rescaled(self) -> Self {
        Self { rescales: false, ..self }
    }
}

impl NoiseSchedule {
    /// The schedule as the config says, with DDPM's defaults: the one to train with.
    pub fn from_config(config: &SchedulerConfig) -> Result<Self, Error> {
        Self::with_defaults(config, ScheduleDefaults::ddpm())
    }

    pub(crate) fn with_defaults(config: &SchedulerConfig, defaults: ScheduleDefaults) -> Result<Self, Error> {
        let betas = match config.numbers("trained_betas")? {
            Some(betas) => betas.into_iter().map(|b| b as f32).collect(),
            None => {
                let steps = config.count("num_train_timesteps", 1000)?;
                let start =
                    in_unit_interval("beta_start", config.number("beta_start", defaults.beta_start)?)?;
                let end = in_unit_interval("beta_end", config.number("beta_end", defaults.beta_end)?)?;
                match config.choice("beta_schedule", &BETA_SCHEDULES, defaults.beta_schedule)? {
                    BetaSchedule::Linear => linspace(start, end, steps),
                    BetaSchedule::ScaledLinear => {
                        linspace(start.sqrt(), end.sqrt(), steps).iter().map(|b| b * b).collect()
                    }
                    BetaSchedule::SquaredCos => squared_cosine(steps),
                }
            }
        };
        let rescale = defaults.rescales && config.flag("rescale_betas_zero_snr", false)?;
        let mut schedule = Self::from_betas(if rescale { zero_terminal_snr(&betas) } else { betas })?;
        if rescale && defaults.keeps_above_zero {
            // f16's least positive number: diffusers keeps the first sigma finite with it (4096).
            schedule.alpha_bar.iter_mut().last().into_iter().for_each(|last| *last = 2f32.powi(-24));
        }
        Ok(schedule)
    }

    /// The schedule of these betas; at least one, each in [0, 1].
    pub fn from_betas(betas: Vec<f32>) -> Result<Self, Error> {
        if betas.is_empty() {
            let expected = "at least 1".into();
            return Err(Error::Value { key: "num_train_timesteps", value: "0".into(), expected });
        }
        for beta in &betas {
            in_unit_interval("trained_betas", f64::from(*beta))?;
        }
        // torch.cumprod accumulates f32 in f64 on the CPU.
        let alpha_bar = betas.iter().scan(1f64, |product, beta| {
            *product *= f64::from(1.0 - beta);
            Some(*product as f32)
        });
        let alpha_bar = alpha_bar.collect();
        Ok(Self { betas, alpha_bar })
    }

    /// The number of training timesteps, T.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.alpha_bar.len()
    }

    /// beta_t for t = 0 ... T - 1.
    pub fn betas(&self) -> &[f32] {
        &self.betas
    }

    /// alpha-bar_t, the product of `1 - beta` up to t, for t = 0 ... T - 1.
    pub fn alphas_bar(&self) -> &[f32] {
        &self.alpha_bar
    }

    /// `sigma_t = sqrt((1 - a_t) / a_t)`, the noise level of `x_t / sqrt(a_t)`.
    pub fn sigmas(&self) -> Vec<f32> {
        self.alpha_bar.iter().map(|a| ((1.0 - a) / a).sqrt()).collect()
    }

    pub(crate) fn alpha_bar(&self, t: i64) -> Result<f32, Error> {
        let found = usize::try_from(t).ok().and_then(|t| self.alpha_bar.get(t));
        found.copied().ok_or(Error::TimestepRange { timestep: t, train: self.len() })
    }

    /// `x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise`, with a timestep for each item of the batch
    /// (Ho et al. 2020, eq. 4; DDPMScheduler.add_noise).
    ///
    /// `x0` and `noise`: `[B, ...]` of one shape; `timesteps`: B numbers below T, or one for all.
    ///
    /// # Errors
    /// Shapes that differ, a number of timesteps that is neither 1 nor B, a timestep out of range.
    pub fn add_noise<const D: usize>(
        &self,
        x0: Tensor<D>,
        noise: Tensor<D>,
        timesteps: &[usize],
    ) -> Result<Tensor<D>, Error> {
        let (signal, sigma) = self.coefficients(&x0, &noise, timesteps)?;
        Ok(x0 * signal + noise * sigma)
    }

    /// `v_t = sqrt(a_t) noise - sqrt(1 - a_t) x_0`, the target of v-prediction
    /// (Salimans & Ho 2022, appendix D; DDPMScheduler.get_velocity). Shapes and errors as in
    /// [`Self::add_noise`].
    pub fn velocity<const D: usize>(
        &self,
        x0: Tensor<D>,
        noise: Tensor<D>,
        timesteps: &[usize],
    ) -> Result<Tensor<D>, Error> {
        let (signal, sigma) = self.coefficients(&x0, &noise, timesteps)?;
        Ok(noise * signal - x0 * sigma)
    }

    /// `sqrt(a_t)` and `sqrt(1 - a_t)` as `[B, 1, ...]`, on the device and in the type of `x0`.
    fn coefficients<const D: usize>(
        &self,
        x0: &Tensor<D>,
        noise: &Tensor<D>,
        timesteps: &[usize],
    ) -> Result<(Tensor<D>, Tensor<D>), Error> {
        same_shape("noise", noise, x0)?;
        let mut shape = [1; D];
        if timesteps.len() != 1 {
            shape[0] = x0.dims()[0];
        }
        if timesteps.len() != shape[0] {
            let (actual, expected) = (vec![timesteps.len()], vec![shape[0]]);
            return Err(Error::Shape { what: "timesteps", actual, expected });
        }
        let alpha_bar: Vec<f32> =
            timesteps.iter().map(|t| self.alpha_bar(*t as i64)).collect::<Result<_, _>>()?;
        let tensor = |f: fn(f32) -> f32| {
            let values = alpha_bar.iter().map(|a| f(*a)).collect::<Vec<_>>();
            Tensor::<D>::from_data(TensorData::new(values, shape), (&x0.device(), DType::F32))
                .cast(x0.dtype())
        };
        Ok((tensor(f32::sqrt), tensor(|a| (1.0 - a).sqrt())))
    }
}

pub(crate) fn same_shape<const D: usize>(
    what: &'static str,
    tensor: &Tensor<D>,
    like: &Tensor<D>,
) -> Result<(), Error> {
    if tensor.dims() == like.dims() {
        return Ok(());
    }
    Err(Error::Shape { what, actual: tensor.dims().to_vec(), expected: like.dims().to_vec() })
}

fn in_unit_interval(key: &'static str, beta: f64) -> Result<f64, Error> {
    if (0.0..=1.0).contains(&beta) {
        return Ok(beta);
    }
    Err(Error::Value { key, value: json!(beta).to_string(), expected: "a number from 0 to 1".into() })
}

/// torch.linspace in f32: from both ends to the middle, with fused multiply-add.
pub(crate) fn linspace(start: f64, end: f64, steps: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if steps == 1 {
        return vec![start];
    }
    let step = (end - start) / (steps as f32 - 1.0);
    let value = |i: usize| {
        if i < steps / 2 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((steps - 1 - i) as f32, end)
        }
    };
    (0..steps).map(value).collect()
}

/// `1 - a(t + 1) / a(t)` with `a(t) = cos^2((t / T + 0.008) / 1.008 pi / 2)`, at most 0.999
/// (Nichol & Dhariwal 2021, eq. 17).
fn squared_cosine(steps: usize) -> Vec<f32> {
    let alpha_bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2);
    let t = |i: usize| i as f64 / steps as f64;
    (0..steps).map(|i| (1.0 - alpha_bar(t(i + 1)) / alpha_bar(t(i))).min(0.999) as f32).collect()
}

/// Shifts and scales sqrt(alpha-bar) so that it ends at zero (Lin et al. 2024, algorithm 1).
fn zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let Ok(schedule) = NoiseSchedule::from_betas(betas.to_vec()) else { return betas.to_vec() };
    let root: Vec<f32> = schedule.alpha_bar.iter().map(|a| a.sqrt()).collect();
    let (first, last) = (root[0], root[root.len() - 1]);
    let scale = first / (first - last);
    let alpha_bar: Vec<f32> = root.iter().map(|r| (r - last) * scale).map(|r| r * r).collect();
    let later = alpha_bar.windows(2).map(|a| a[1] / a[0]);
    std::iter::once(alpha_bar[0]).chain(later).map(|alpha| 1.0 - alpha).collect()
}

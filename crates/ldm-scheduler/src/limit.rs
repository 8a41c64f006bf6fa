use burn::tensor::Tensor;
use serde_json::Value;

use crate::{Error, SchedulerConfig, config::wrong};

/// What keeps a predicted x0 in range.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    None,
    /// `clip_sample`, `clip_sample_range`.
    Clip(f32),
    /// `thresholding`, `dynamic_thresholding_ratio`, `sample_max_value` (Saharia et al. 2022, section 2.3).
    Dynamic {
        ratio: f32,
        max: f32,
    },
}

impl Limit {
    /// Of the classes that know both keys; thresholding wins.
    pub fn from_config(config: &SchedulerConfig, clips: bool) -> Result<Self, Error> {
        match Self::thresholding(config)? {
            Self::None => Self::clipping(config, clips),
            dynamic => Ok(dynamic),
        }
    }

    pub fn clipping(config: &SchedulerConfig, clips: bool) -> Result<Self, Error> {
        if !config.flag("clip_sample", clips)? {
            return Ok(Self::None);
        }
        Ok(Self::Clip(at_least(config, "clip_sample_range", 0.0)?))
    }

    pub fn thresholding(config: &SchedulerConfig) -> Result<Self, Error> {
        if !config.flag("thresholding", false)? {
            return Ok(Self::None);
        }
        let ratio = config.number("dynamic_thresholding_ratio", 0.995)?;
        if !(0.0..=1.0).contains(&ratio) {
            return Err(wrong("dynamic_thresholding_ratio", &Value::from(ratio), "a number from 0 to 1"));
        }
        Ok(Self::Dynamic { ratio: ratio as f32, max: at_least(config, "sample_max_value", 1.0)? })
    }

    pub fn apply<const D: usize>(self, x0: Tensor<D>) -> Tensor<D> {
        match self {
            Self::None => x0,
            Self::Clip(range) => x0.clamp(-range, range),
            Self::Dynamic { ratio, max } => {
                let shape = x0.dims();
                let flat = x0.reshape([shape[0] as i32, -1]);
                let s = quantile(flat.clone().abs(), ratio).clamp(1.0, max);
                let s = s.expand(flat.dims());
                (flat.max_pair(-s.clone()).min_pair(s.clone()) / s).reshape(shape)
            }
        }
    }
}

/// `[B, N]` to `[B, 1]`: the value below which a part `q` of each row lies, linear between two
/// (torch.quantile). On the device, by a sort.
fn quantile(values: Tensor<2>, q: f32) -> Tensor<2> {
    let n = values.dims()[1];
    let rank = q * (n - 1) as f32;
    let low = (rank as usize).min(n - 1);
    let high = (low + 1).min(n - 1);
    let sorted = values.sort(1);
    let (a, b) = (sorted.clone().narrow(1, low, 1), sorted.narrow(1, high, 1));
    a.clone() + (b - a) * (rank - low as f32)
}

fn at_least(config: &SchedulerConfig, key: &'static str, least: f64) -> Result<f32, Error> {
    let value = config.number(key, 1.0)?;
    if value >= least && value.is_finite() {
        return Ok(value as f32);
    }
    Err(wrong(key, &Value::from(value), &format!("a number of at least {least}")))
}

use serde::{Deserialize, Serialize};

/// How the learning rate goes on after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It stays.
    #[default]
    Constant,
    /// Half a cosine down to `f_min` at the last step.
    Cosine,
    /// A straight line down to `f_min` at the last step.
    Linear,
}

/// The learning rate at each step, as a factor of the highest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateConfig {
    /// Steps over which the factor rises in a straight line from `f_start` to 1.
    pub warm_up_steps: u64,
    /// The factor at step 0 of a warm-up.
    pub f_start: f64,
    /// What follows.
    pub decay: Decay,
    /// The factor at the end of a decay.
    pub f_min: f64,
    /// The step at which a decay ends (default: the run's `max_steps`). Later steps keep `f_min`.
    pub decay_until: Option<u64>,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self { warm_up_steps: 0, f_start: 1e-6, decay: Decay::Constant, f_min: 0.0, decay_until: None }
    }
}

impl RateConfig {
    /// The factor at `step`, counted from 0, of a run of `max_steps`.
    ///
    /// Sources: `LambdaLinearScheduler` and `LambdaWarmUpCosineScheduler` in the reference's `lr_scheduler.py`,
    /// with one cycle.
    pub fn factor(&self, step: u64, max_steps: u64) -> f64 {
        if step < self.warm_up_steps {
            return self.f_start + (1.0 - self.f_start) * step as f64 / self.warm_up_steps as f64;
        }
        let end = self.decay_until.unwrap_or(max_steps);
        let length = end.saturating_sub(self.warm_up_steps).max(1);
        let t = ((step - self.warm_up_steps) as f64 / length as f64).min(1.0);
        let between = |x: f64| self.f_min + (1.0 - self.f_min) * x;
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine => between(0.5 * (1.0 + (std::f64::consts::PI * t).cos())),
            Decay::Linear => between(1.0 - t),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_fall_as_asked() {
        let rate =
            |decay| RateConfig { warm_up_steps: 10, f_start: 0.0, decay, f_min: 0.1, decay_until: None };
        for decay in [Decay::Constant, Decay::Cosine, Decay::Linear] {
            assert_eq!(rate(decay).factor(0, 110), 0.0);
            assert_eq!(rate(decay).factor(5, 110), 0.5);
            assert_eq!(rate(decay).factor(10, 110), 1.0);
        }
        assert_eq!(rate(Decay::Constant).factor(1000, 110), 1.0);
        assert!((rate(Decay::Cosine).factor(60, 110) - 0.55).abs() < 1e-12);
        assert!((rate(Decay::Linear).factor(35, 110) - 0.775).abs() < 1e-12);
        assert_eq!(rate(Decay::Linear).factor(110, 110), 0.1);
        assert_eq!(rate(Decay::Cosine).factor(5000, 110), 0.1);
    }
}

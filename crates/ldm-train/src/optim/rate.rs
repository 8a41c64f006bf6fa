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

/// The learning rate at each step, as a factor of the run's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateConfig {
    /// Steps over which the factor rises in a straight line from `f_start` to `f_max`.
    pub warm_up_steps: u64,
    /// The factor at step 0 of a warm-up.
    pub f_start: f64,
    /// The factor after the warm-up.
    #[serde(skip_serializing_if = "is_one")]
    pub f_max: f64,
    /// What follows.
    pub decay: Decay,
    /// The factor at the end of a decay.
    pub f_min: f64,
    /// The step at which a decay ends (default: the run's `max_steps`). Later steps keep `f_min`.
    pub decay_until: Option<u64>,
    /// Cycles one after another instead of all this, as the reference's schedulers with lists have them; `decay` says
    /// how each goes down.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cycles: Vec<RateCycle>,
}

/// One cycle of the reference's `LambdaLinearScheduler` or `LambdaWarmUpCosineScheduler2`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateCycle {
    /// Steps of its warm-up.
    pub warm_up_steps: u64,
    /// Its steps, the warm-up's among them.
    pub length: u64,
    /// The factor at its first step.
    pub f_start: f64,
    /// The factor at its warm-up's end.
    pub f_max: f64,
    /// The factor at its end.
    pub f_min: f64,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            warm_up_steps: 0,
            f_start: 1e-6,
            f_max: 1.0,
            decay: Decay::Constant,
            f_min: 0.0,
            decay_until: None,
            cycles: Vec::new(),
        }
    }
}

fn is_one(x: &f64) -> bool {
    *x == 1.0
}

impl RateConfig {
    /// Says what is out of range.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let Self { warm_up_steps, f_start, f_max, f_min, decay_until, .. } = *self;
        let of_cycles = self.cycles.iter().flat_map(|cycle| [cycle.f_start, cycle.f_max, cycle.f_min]);
        if [f_start, f_max, f_min].into_iter().chain(of_cycles).any(|f| !(f.is_finite() && f >= 0.0)) {
            return Err("factors must be numbers from 0 on".into());
        }
        match decay_until {
            Some(until) if until <= warm_up_steps && self.decay != Decay::Constant => {
                Err(format!("decay_until is {until}, expected more than the {warm_up_steps} warm_up_steps"))
            }
            _ => Ok(()),
        }
    }

    /// The factor at `step`, counted from 0, of a run of `max_steps`.
    ///
    /// Sources: `LambdaLinearScheduler`, `LambdaWarmUpCosineScheduler` and `LambdaWarmUpCosineScheduler2` in the
    /// reference's `lr_scheduler.py`. Past the last of its cycles, where the reference stops with an error, the last
    /// factor stays.
    pub fn factor(&self, step: u64, max_steps: u64) -> f64 {
        if let Some(last) = self.cycles.last() {
            return self.of_cycles(step, last);
        }
        let Self { f_start, f_max, f_min, .. } = *self;
        if step < self.warm_up_steps {
            return f_start + (f_max - f_start) * step as f64 / self.warm_up_steps as f64;
        }
        let end = self.end(max_steps).unwrap_or(max_steps);
        let length = end.saturating_sub(self.warm_up_steps).max(1);
        let t = ((step - self.warm_up_steps) as f64 / length as f64).min(1.0);
        let between = |x: f64| f_min + (f_max - f_min) * x;
        match self.decay {
            Decay::Constant => f_max,
            Decay::Cosine => between(half_cosine(t)),
            Decay::Linear => between(1.0 - t),
        }
    }

    /// The step at which the factor stops changing; `None` where it doesn't decay.
    pub fn end(&self, max_steps: u64) -> Option<u64> {
        if !self.cycles.is_empty() {
            return Some(self.cycles.iter().fold(0, |sum: u64, cycle| sum.saturating_add(cycle.length)));
        }
        (self.decay != Decay::Constant).then(|| self.decay_until.unwrap_or(max_steps))
    }

    /// As the reference counts: a cycle's last step is the next one's start, and a linear decay is a line from the
    /// cycle's first step, of which the warm-up covers the beginning.
    fn of_cycles(&self, step: u64, last: &RateCycle) -> f64 {
        let (mut n, mut cycle) = (step, last);
        for candidate in &self.cycles {
            if n <= candidate.length {
                cycle = candidate;
                break;
            }
            n -= candidate.length;
        }
        let RateCycle { warm_up_steps, length, f_start, f_max, f_min } = *cycle;
        if n < warm_up_steps {
            return f_start + (f_max - f_start) * n as f64 / warm_up_steps as f64;
        }
        let part = |n: u64, of: u64| (n as f64 / of.max(1) as f64).min(1.0);
        // Past the last cycle `n` counts on from its end.
        let done = step > self.end(step).unwrap_or(step);
        let x = match self.decay {
            _ if done => 0.0,
            Decay::Constant => 1.0,
            Decay::Cosine => half_cosine(part(n - warm_up_steps, length.saturating_sub(warm_up_steps))),
            Decay::Linear => 1.0 - part(n, length),
        };
        f_min + (f_max - f_min) * x
    }
}

fn half_cosine(t: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * t).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn courses_without_sense_are_refused() {
        let rate = RateConfig { warm_up_steps: 10, decay: Decay::Cosine, ..RateConfig::default() };
        let until = |decay_until| RateConfig { decay_until: Some(decay_until), ..rate.clone() };
        assert!(rate.validate().is_ok() && until(11).validate().is_ok());
        assert!(until(10).validate().unwrap_err().contains("more than the 10"));
        // Without a decay nothing ends.
        assert!(RateConfig { decay: Decay::Constant, ..until(10) }.validate().is_ok());
        for f_max in [f64::NAN, -1.0, f64::INFINITY] {
            assert!(RateConfig { f_max, ..rate.clone() }.validate().is_err());
        }
    }

    #[test]
    fn rates_rise_and_fall_as_asked() {
        let rate = |decay| RateConfig {
            warm_up_steps: 10,
            f_start: 0.0,
            decay,
            f_min: 0.1,
            ..RateConfig::default()
        };
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
        assert_eq!(rate(Decay::Cosine).end(110), Some(110));
        assert_eq!(rate(Decay::Constant).end(110), None);
    }

    /// Numbers that the reference's classes gave (`lr_scheduler.py`).
    #[test]
    fn cycles_are_the_references() {
        let cycle = |warm_up_steps, length, f_start, f_max, f_min| RateCycle {
            warm_up_steps,
            length,
            f_start,
            f_max,
            f_min,
        };
        let cycles = vec![cycle(10, 50, 0.1, 2.0, 0.5), cycle(0, 100, 0.0, 1.0, 0.25)];
        for (decay, expected) in [
            (
                Decay::Linear,
                [(0, 0.1), (5, 1.05), (10, 1.7), (30, 1.1), (50, 0.5), (51, 0.9925), (150, 0.25)],
            ),
            (
                Decay::Cosine,
                [
                    (0, 0.1),
                    (5, 1.05),
                    (10, 2.0),
                    (30, 1.25),
                    (50, 0.5),
                    (51, 0.999_814_960_137_149_3),
                    (150, 0.25),
                ],
            ),
        ] {
            let rate = RateConfig { decay, cycles: cycles.clone(), ..RateConfig::default() };
            for (step, expected) in expected {
                let factor = rate.factor(step, 1000);
                assert!((factor - expected).abs() < 1e-12, "{decay:?}, step {step}: {factor}");
            }
            assert_eq!(rate.factor(5000, 10_000), 0.25);
            assert_eq!(rate.end(1000), Some(150));
        }
    }
}

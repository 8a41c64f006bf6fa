use crate::{Error, SamplerKind, SchedulerConfig};

/// How a run's timesteps lie in the training timesteps (Lin et al. 2024, table 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spacing {
    Leading,
    Linspace,
    Trailing,
    /// `range(0, T, T // S) + 1`: CompVis' own, in its DDIM and PLMS.
    Compvis,
}

const SPACINGS: [(&str, Spacing); 4] = [
    ("leading", Spacing::Leading),
    ("linspace", Spacing::Linspace),
    ("trailing", Spacing::Trailing),
    ("compvis", Spacing::Compvis),
];

/// The choice of timesteps for a run of `steps` out of `train`.
#[derive(Clone, Copy)]
pub(crate) struct Timesteps {
    pub kind: SamplerKind,
    pub spacing: Spacing,
    pub offset: usize,
    pub train: usize,
    pub steps: usize,
}

impl Timesteps {
    pub fn from_config(
        kind: SamplerKind,
        config: &SchedulerConfig,
        default: Spacing,
        train: usize,
        steps: usize,
    ) -> Result<Self, Error> {
        let spacing = match config.choice("timestep_spacing", &SPACINGS, default)? {
            // CompVis has it for its two samplers; the others take their own default, as from its files.
            Spacing::Compvis if !matches!(kind, SamplerKind::Ddim | SamplerKind::Pndm) => default,
            spacing => spacing,
        };
        let offset = config.count("steps_offset", 0)?;
        if steps == 0 {
            return Err(Error::ZeroSteps);
        }
        Ok(Self { kind, spacing, offset, train, steps })
    }

    /// Whole timesteps, falling: DDPM, DDIM, PNDM.
    pub fn whole(&self) -> Result<Vec<i64>, Error> {
        self.at_most(self.train)?;
        Ok(match self.spacing {
            Spacing::Linspace => self.linspace(self.train, self.steps).map(|t| t as i64).collect(),
            Spacing::Leading => self.leading(self.train, self.steps).map(|t| t as i64).collect(),
            Spacing::Trailing => self.trailing(self.train).map(|t| t as i64).collect(),
            Spacing::Compvis => {
                let stride = self.train / self.steps;
                let mut rising: Vec<_> = (0..self.train as i64).step_by(stride).map(|t| t + 1).collect();
                rising.reverse();
                rising
            }
        })
    }

    /// Timesteps between the training timesteps, falling: Euler, Heun, LMS.
    pub fn fractional(&self) -> Result<Vec<f32>, Error> {
        Ok(match self.spacing {
            Spacing::Linspace => {
                self.at_most(1_000_000)?; // any number works, memory ends somewhere
                let mut rising = numpy_linspace(0.0, self.train as f64 - 1.0, self.steps);
                rising.reverse();
                rising.into_iter().map(|t| t as f32).collect()
            }
            Spacing::Trailing => {
                self.at_most(self.train)?;
                self.trailing(self.train).map(|t| t as f32).collect()
            }
            Spacing::Leading | Spacing::Compvis => {
                self.at_most(self.train)?;
                self.leading(self.train, self.steps).map(|t| t as f32).collect()
            }
        })
    }

    /// Whole timesteps, falling, the last of `steps + 1` left out: DPM-Solver and UniPC, whose last step
    /// goes to the end of the schedule. `last` bounds them where the schedule is clipped.
    pub fn open_ended(&self, last: usize) -> Result<Vec<i64>, Error> {
        let whole =
            |timesteps: &mut dyn Iterator<Item = f64>| timesteps.take(self.steps).map(|t| t as i64).collect();
        Ok(match self.spacing {
            Spacing::Linspace => {
                self.at_most(last.saturating_sub(1))?;
                whole(&mut self.linspace(last, self.steps + 1))
            }
            Spacing::Trailing => {
                self.at_most(self.train)?;
                self.trailing(last).map(|t| t as i64).collect()
            }
            Spacing::Leading | Spacing::Compvis => {
                self.at_most(last.saturating_sub(1))?;
                whole(&mut self.leading(last, self.steps + 1))
            }
        })
    }

    fn at_most(&self, limit: usize) -> Result<(), Error> {
        if self.steps <= limit {
            return Ok(());
        }
        Err(Error::TooManySteps { sampler: self.kind, steps: self.steps, limit })
    }

    fn linspace(&self, train: usize, count: usize) -> impl Iterator<Item = f64> {
        let rising = numpy_linspace(0.0, train as f64 - 1.0, count);
        rising.into_iter().rev().map(f64::round_ties_even)
    }

    fn leading(&self, train: usize, count: usize) -> impl Iterator<Item = f64> {
        let (stride, offset) = (train / count, self.offset);
        (0..count).rev().map(move |i| (i * stride + offset) as f64)
    }

    fn trailing(&self, last: usize) -> impl Iterator<Item = f64> {
        let start = last as f64;
        // numpy.arange: the stride is rounded once at the start.
        let stride = (start - self.train as f64 / self.steps as f64) - start;
        let ratio = self.train as f64 / self.steps as f64;
        let count = (start / ratio).ceil() as usize;
        (0..count).map(move |i| (start + i as f64 * stride).round_ties_even() - 1.0)
    }
}

/// numpy.linspace, which sets the last value instead of computing it.
pub(crate) fn numpy_linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / (count as f64 - 1.0);
    let mut values: Vec<_> = (0..count).map(|i| i as f64 * step + start).collect();
    match values.as_mut_slice() {
        [only] => *only = start,
        [.., last] => *last = end,
        [] => {}
    }
    values
}

use burn::tensor::Tensor;

use super::{final_alpha_bar, is_compvis, timesteps};
use crate::{
    Error, NoiseSchedule, Prediction, Scheduler,
    sampler::{Draw, Path, Solver},
    timesteps::Spacing,
};

/// Pseudo numerical methods (Liu et al. 2022): four linear multistep orders (PLMS), started by pseudo
/// Runge-Kutta steps (PRK) or, with `skip_prk_steps`, by one pseudo improved Euler step.
pub(super) struct Pndm<const D: usize> {
    timesteps: Vec<i64>,
    /// The first of these calls are PRK's, four to a step.
    prk_calls: usize,
    stride: i64,
    schedule: NoiseSchedule,
    final_alpha_bar: f32,
    prediction: Prediction,
    calls: usize,
    /// The last outputs, the newest last.
    e: Vec<Tensor<D>>,
    /// PRK: the weighted sum of the outputs of a step.
    sum: Option<Tensor<D>>,
    /// Where the step in progress started.
    start: Option<Tensor<D>>,
    /// CompVis draws noise for each prediction, and adds none of it: what is drawn after it goes by that.
    draws: bool,
}

impl<const D: usize> Pndm<D> {
    pub fn new(scheduler: &Scheduler, steps: usize) -> Result<(Self, Path), Error> {
        let (config, schedule) = (scheduler.config(), scheduler.schedule().clone());
        let prediction = Prediction::epsilon_or_v(config)?;
        let falling = timesteps(scheduler, Spacing::Leading, steps)?.whole()?;
        let stride = (schedule.len() / steps) as i64;
        let (prk, plms) = if config.flag("skip_prk_steps", false)? {
            // The second timestep twice: the start of improved Euler.
            let repeated = [&falling[..falling.len().min(2)], &falling[falling.len().min(1)..]].concat();
            (vec![], repeated)
        } else if falling.len() < 4 {
            return Err(Error::TooFewSteps { sampler: scheduler.kind(), steps, limit: 4 });
        } else {
            (runge_kutta(&falling[..4], stride / 2), falling[3..].to_vec())
        };
        let timesteps = [prk.as_slice(), plms.as_slice()].concat();
        let path = Path::preserving(&timesteps, |t| schedule.alpha_bar(t))?;
        let solver = Self {
            timesteps,
            prk_calls: prk.len(),
            stride,
            final_alpha_bar: final_alpha_bar(scheduler, config, false)?,
            schedule,
            prediction,
            calls: 0,
            e: vec![],
            sum: None,
            start: None,
            draws: is_compvis(config),
        };
        Ok((solver, path))
    }

    /// Algorithm 2's PRK: the outputs at the start, twice in the middle, and at the end of a step, weighted
    /// 1, 2, 2, 1.
    fn runge_kutta(
        &mut self,
        t: i64,
        x: Tensor<D>,
        e: Tensor<D>,
        z: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let call = self.calls % 4;
        let prev = if call.is_multiple_of(2) { t - self.stride / 2 } else { t };
        let t = self.timesteps[self.calls / 4 * 4];
        let weighted = e.clone() * [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0][call];
        let sum = match self.sum.take() {
            Some(sum) => sum + weighted,
            None => weighted,
        };
        if call == 0 {
            self.e.push(e.clone());
            self.start = Some(x.clone());
        }
        let e = if call == 3 {
            sum
        } else {
            self.sum = Some(sum);
            e
        };
        let start = self.start.clone().unwrap_or(x);
        self.transfer(start, e, [t, prev], z)
    }

    /// Algorithm 2's PLMS: Adams and Bashforth's weights, of the highest order that the outputs so far
    /// allow.
    fn multistep(
        &mut self,
        t: i64,
        x: Tensor<D>,
        e_t: Tensor<D>,
        z: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        if self.calls == 1 {
            // The second call of improved Euler: back to the start, with the mean of both outputs.
            let e = (e_t + self.e[0].clone()) / 2.0;
            let start = self.start.take().unwrap_or(x);
            return self.transfer(start, e, [t + self.stride, t], z);
        }
        if self.calls == 0 {
            self.start = Some(x.clone());
        }
        self.e.push(e_t);
        let from = self.e.len().saturating_sub(4);
        self.e.drain(..from);
        let e = |k: usize| self.e[self.e.len() - k].clone();
        let e = match self.e.len() {
            1 => e(1),
            2 => (e(1) * 3.0 - e(2)) / 2.0,
            3 => (e(1) * 23.0 - e(2) * 16.0 + e(3) * 5.0) / 12.0,
            _ => (e(1) * 55.0 - e(2) * 59.0 + e(3) * 37.0 - e(4) * 9.0) * (1.0 / 24.0),
        };
        self.transfer(x, e, [t, t - self.stride], z)
    }

    /// Eq. 11: x at `prev` from x and the noise at `t`, divided so that nothing cancels.
    /// Where x0 is changed on the way (`quantize_denoised`), by way of x0 as CompVis does.
    fn transfer(
        &self,
        x: Tensor<D>,
        output: Tensor<D>,
        [t, prev]: [i64; 2],
        z: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let a_t = self.schedule.alpha_bar(t)?;
        let a_prev = if prev >= 0 { self.schedule.alpha_bar(prev)? } else { self.final_alpha_bar };
        let (b_t, b_prev) = (1.0 - a_t, 1.0 - a_prev);
        if self.draws {
            z.normal()?;
        }
        if z.changes_denoised() {
            let x0 = self.prediction.x0(&x, output.clone(), a_t.sqrt(), b_t.sqrt());
            let epsilon = self.prediction.epsilon(&x, output, a_t.sqrt(), b_t.sqrt());
            return Ok(z.denoised(x0) * a_prev.sqrt() + epsilon * b_prev.sqrt());
        }
        let epsilon = self.prediction.epsilon(&x, output, a_t.sqrt(), b_t.sqrt());
        let divisor = a_t * b_prev.sqrt() + (a_t * b_t * a_prev).sqrt();
        Ok(x * (a_prev / a_t).sqrt() - epsilon * (a_prev - a_t) / divisor)
    }
}

/// For each step but the last of these: its start, its middle twice, its end.
fn runge_kutta(falling: &[i64], half: i64) -> Vec<i64> {
    falling.windows(2).flat_map(|t| [t[0], t[1] + half, t[1] + half, t[1]]).collect()
}

impl<const D: usize> Solver<D> for Pndm<D> {
    fn step(
        &mut self,
        i: usize,
        x: Tensor<D>,
        output: Tensor<D>,
        z: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let t = self.timesteps[i];
        let prev = if self.calls < self.prk_calls {
            self.runge_kutta(t, x, output, z)
        } else {
            self.multistep(t, x, output, z)
        };
        self.calls += 1;
        prev
    }
}

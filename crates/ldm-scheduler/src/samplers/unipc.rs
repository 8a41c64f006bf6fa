use burn::tensor::Tensor;
use serde_json::Value;

use super::timesteps;
use crate::{
    Error, Prediction, Scheduler,
    config::wrong,
    limit::Limit,
    sampler::{Draw, Path, Solver, alpha_sigma},
    sigmas::{FinalSigma, Ramp, SigmaCurve},
    timesteps::Spacing,
};

/// UniPC (Zhao et al. 2023): the predictor UniP-p (algorithm 2) and, with the next output, the corrector
/// UniC-p (algorithm 1) on the x that it was computed at.
pub(super) struct UniPc<const D: usize> {
    sigmas: Vec<f32>,
    prediction: Prediction,
    limit: Limit,
    order: usize,
    bh2: bool,
    predict_x0: bool,
    lower_order_final: bool,
    disable_corrector: Vec<usize>,
    /// The last outputs as x0 (or noise), the newest first.
    m: Vec<Tensor<D>>,
    /// The x that the last step started from, and its order.
    last: Option<(Tensor<D>, usize)>,
}

impl<const D: usize> UniPc<D> {
    pub fn new(scheduler: &Scheduler, steps: usize) -> Result<(Self, Path), Error> {
        let config = scheduler.config();
        for key in ["use_flow_sigmas", "use_dynamic_shifting", "shift_terminal", "solver_p"] {
            config.must_be_off(key)?;
        }
        let order = config.count("solver_order", 2)?;
        if !(1..=9).contains(&order) {
            return Err(wrong("solver_order", &Value::from(order), "a number from 1 to 9"));
        }
        let final_sigma = FinalSigma::from_config(config)?;
        let predict_x0 = config.flag("predict_x0", true)?;
        if !predict_x0 && final_sigma == FinalSigma::Zero {
            // The noise form divides by the last sigma.
            let expected = "true where `final_sigmas_type` is \"zero\"";
            return Err(wrong("predict_x0", &Value::Bool(false), expected));
        }
        // As diffusers, which takes DPM-Solver's words for its own default.
        let types = [("bh2", true), ("bh1", false), ("midpoint", true), ("heun", true), ("logrho", true)];
        let disabled = config.numbers("disable_corrector")?.unwrap_or_default();
        let path = path(scheduler, steps, final_sigma)?;
        let solver = Self {
            sigmas: path.sigmas.clone(),
            prediction: scheduler.prediction(),
            limit: Limit::thresholding(config)?,
            order,
            bh2: config.choice("solver_type", &types, true)?,
            predict_x0,
            lower_order_final: config.flag("lower_order_final", true)?,
            disable_corrector: disabled.into_iter().map(|i| i as usize).collect(),
            m: vec![],
            last: None,
        };
        Ok((solver, path))
    }

    /// From `x` at step `s` to step `s + 1`, with the outputs of the `p` steps up to `s`; with `m_t`, the
    /// output at `s + 1`, the corrector. In the paper: x_t = a x - c h phi_1(h) m0 - c B(h) sum_k rho_k D_k / r_k.
    fn update(&self, s: usize, p: usize, x: Tensor<D>, m_t: Option<Tensor<D>>) -> Tensor<D> {
        let lambda = |i: usize| {
            let (alpha, sigma) = alpha_sigma(self.sigmas[i]);
            alpha.ln() - sigma.ln()
        };
        let (alpha_s, sigma_s) = alpha_sigma(self.sigmas[s]);
        let (alpha_t, sigma_t) = alpha_sigma(self.sigmas[s + 1]);
        let step = lambda(s + 1) - lambda(s);
        let (h, a, c) = if self.predict_x0 {
            (-step, sigma_t / sigma_s, alpha_t)
        } else {
            (step, alpha_t / alpha_s, sigma_t)
        };
        let h_phi_1 = h.exp_m1();
        let b_h = if self.bh2 { h_phi_1 } else { h };

        let m0 = &self.m[0];
        let mut r: Vec<f32> = (1..p).map(|k| (lambda(s - k) - lambda(s)) / step).collect();
        let mut d: Vec<_> = r.iter().zip(&self.m[1..]).map(|(r, m)| (m.clone() - m0.clone()) / *r).collect();
        let rho = match &m_t {
            None if p == 2 => vec![0.5],
            Some(_) if p == 1 => vec![0.5],
            corrector => {
                r.extend(corrector.as_ref().map(|_| 1.0));
                solve(&r, h, h_phi_1, b_h)
            }
        };
        d.extend(m_t.map(|m_t| m_t - m0.clone()));
        let x_t = x * a - m0.clone() * (c * h_phi_1);
        rho.iter().zip(d).fold(x_t, |x_t, (rho, d)| x_t - d * (c * b_h * rho))
    }

    /// The order of the step from `i`: what the outputs so far allow, and falling to 1 at the end.
    fn order_at(&self, i: usize) -> usize {
        let left = self.sigmas.len() - 1 - i;
        // At sigma 0 the log signal-to-noise ratio is infinite, and only the first order has a limit.
        let lower = self.lower_order_final || self.sigmas[i + 1] == 0.0;
        let order = if lower { self.order.min(left) } else { self.order };
        order.min(self.m.len())
    }
}

/// rho with `R rho = b`: R's rows are the powers of `r`, b's entries `phi_k(h) k! / B(h)` (eq. 9 and 10).
fn solve(r: &[f32], h: f32, h_phi_1: f32, b_h: f32) -> Vec<f32> {
    let n = r.len();
    let mut phi = h_phi_1 / h - 1.0;
    let mut factorial = 1.0;
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|k| {
            let b = phi * factorial / b_h;
            factorial *= k as f32 + 2.0;
            phi = phi / h - 1.0 / factorial;
            let powers = r.iter().map(|r| f64::from(r.powi(k as i32)));
            powers.chain([f64::from(b)]).collect()
        })
        .collect();
    // Gauss and Jordan, pivoting by rows.
    for column in 0..n {
        let pivot = (column..n).max_by(|i, j| rows[*i][column].abs().total_cmp(&rows[*j][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let pivot = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != column) {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(&pivot).for_each(|(v, p)| *v -= factor * p);
        }
    }
    (0..n).map(|i| (rows[i][n] / rows[i][i]) as f32).collect()
}

fn path(scheduler: &Scheduler, steps: usize, final_sigma: FinalSigma) -> Result<Path, Error> {
    let schedule = scheduler.schedule();
    let curve = SigmaCurve::new(schedule);
    let mut timesteps = timesteps(scheduler, Spacing::Linspace, steps)?.open_ended(schedule.len())?;
    let ramp = Ramp::from_config(scheduler.config())?;
    let mut sigmas: Vec<f64> = timesteps.iter().map(|t| curve.at(*t as f64)).collect();
    let mut min = curve.min();
    if let Some(ramped) = ramp.sigmas(curve.max(), curve.min(), steps) {
        let round = matches!(ramp, Ramp::Karras(..));
        let whole = |t: f64| if round { t.round_ties_even() as i64 } else { t as i64 };
        timesteps = ramped.iter().map(|s| whole(curve.timestep(*s))).collect();
        min = ramped[ramped.len() - 1];
        sigmas = ramped;
    }
    sigmas.push(if final_sigma == FinalSigma::Zero { 0.0 } else { min });
    Ok(Path::preserving_sigmas(&timesteps, sigmas.into_iter().map(|s| s as f32).collect()))
}

impl<const D: usize> Solver<D> for UniPc<D> {
    fn step(
        &mut self,
        i: usize,
        mut x: Tensor<D>,
        output: Tensor<D>,
        _: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let (alpha, sigma) = alpha_sigma(self.sigmas[i]);
        let m = if self.predict_x0 {
            self.limit.apply(self.prediction.x0(&x, output, alpha, sigma))
        } else {
            self.prediction.epsilon(&x, output, alpha, sigma)
        };
        if let Some((last, p)) = self.last.take().filter(|_| !self.disable_corrector.contains(&(i - 1))) {
            x = self.update(i - 1, p, last, Some(m.clone()));
        }
        self.m.insert(0, m);
        self.m.truncate(self.order);
        let p = self.order_at(i);
        self.last = Some((x.clone(), p));
        Ok(self.update(i, p, x, None))
    }
}

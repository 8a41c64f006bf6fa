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

/// DPM-Solver++ and SDE-DPM-Solver++, multistep, of order 1 to 3 (Lu et al. 2022b, algorithm 2 and
/// appendix B).
pub(super) struct DpmSolver<const D: usize> {
    sigmas: Vec<f32>,
    prediction: Prediction,
    limit: Limit,
    order: usize,
    stochastic: bool,
    heun: bool,
    lower_order_final: bool,
    euler_at_final: bool,
    /// The last predictions of x0, the newest first.
    m: Vec<Tensor<D>>,
}

impl<const D: usize> DpmSolver<D> {
    pub fn new(scheduler: &Scheduler, steps: usize) -> Result<(Self, Path), Error> {
        let config = scheduler.config();
        for key in ["use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting", "variance_type"] {
            config.must_be_off(key)?;
        }
        let order = config.count("solver_order", 2)?;
        if !(1..=3).contains(&order) {
            return Err(wrong("solver_order", &Value::from(order), "1, 2 or 3"));
        }
        // As diffusers, which takes other solvers' words for its own defaults.
        let algorithms = [("dpmsolver++", false), ("deis", false), ("sde-dpmsolver++", true)];
        let types = [("midpoint", false), ("heun", true), ("logrho", false), ("bh1", false), ("bh2", false)];
        let final_sigma = FinalSigma::from_config(config)?;
        let path = path(scheduler, steps, final_sigma)?;
        let solver = Self {
            sigmas: path.sigmas.clone(),
            prediction: scheduler.prediction(),
            limit: Limit::thresholding(config)?,
            order,
            stochastic: config.choice("algorithm_type", &algorithms, false)?,
            heun: config.choice("solver_type", &types, false)?,
            lower_order_final: config.flag("lower_order_final", true)?,
            euler_at_final: config.flag("euler_at_final", false)? || final_sigma == FinalSigma::Zero,
            m: vec![],
        };
        Ok((solver, path))
    }

    /// The order of step `i`: what the predictions so far allow, and less at the end.
    fn order_at(&self, i: usize) -> usize {
        let steps = self.sigmas.len() - 1;
        let lower_final = self.lower_order_final && steps < 15;
        match steps - i {
            1 if self.euler_at_final || lower_final => 1,
            2 if lower_final => self.order.min(2).min(self.m.len()),
            _ => self.order.min(self.m.len()),
        }
    }
}

fn path(scheduler: &Scheduler, steps: usize, final_sigma: FinalSigma) -> Result<Path, Error> {
    let (config, schedule) = (scheduler.config(), scheduler.schedule());
    let curve = SigmaCurve::new(schedule);
    // Below this log signal-to-noise ratio the schedule is not used.
    let lambda_min = config.number("lambda_min_clipped", f64::NEG_INFINITY)? as f32;
    let lambda = |a: &&f32| a.sqrt().ln() - (1.0 - **a).sqrt().ln();
    let clipped = schedule.alphas_bar().iter().rev().take_while(|a| lambda(a) < lambda_min).count();
    let last = schedule.len() - clipped;

    let choice = timesteps(scheduler, Spacing::Linspace, steps)?;
    let mut timesteps = choice.open_ended(last)?;
    let ramp = Ramp::from_config(config)?;
    let mut sigmas: Vec<f64> = timesteps.iter().map(|t| curve.at(*t as f64)).collect();
    if let Some(ramped) = ramp.sigmas(curve.max(), curve.min(), steps) {
        let cosine = config.get("beta_schedule").is_some_and(|s| s == "squaredcos_cap_v2");
        let round = matches!(ramp, Ramp::Karras(..)) && !cosine;
        let whole = |t: f64| if round { t.round_ties_even() as i64 } else { t as i64 };
        timesteps = ramped.iter().map(|s| whole(curve.timestep(*s))).collect();
        sigmas = ramped;
    }
    let mut sigmas: Vec<f32> = sigmas.into_iter().map(|s| s as f32).collect();
    sigmas.push(if final_sigma == FinalSigma::Zero { 0.0 } else { schedule.sigmas()[0] });
    Ok(Path::preserving_sigmas(&timesteps, sigmas))
}

impl<const D: usize> Solver<D> for DpmSolver<D> {
    fn step(
        &mut self,
        i: usize,
        x: Tensor<D>,
        output: Tensor<D>,
        z: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let (alpha_s, sigma_s) = alpha_sigma(self.sigmas[i]);
        let m0 = self.limit.apply(self.prediction.x0(&x, output, alpha_s, sigma_s));
        self.m.insert(0, m0.clone());
        self.m.truncate(self.order);

        // From s = t_i to t = t_(i+1); lambda is the log of alpha / sigma.
        let (alpha_t, sigma_t) = alpha_sigma(self.sigmas[i + 1]);
        let lambda = |i: usize| {
            let (alpha, sigma) = alpha_sigma(self.sigmas[i]);
            alpha.ln() - sigma.ln()
        };
        let h = lambda(i + 1) - lambda(i);
        // The integrals of e^lambda, lambda e^lambda and lambda^2 e^lambda / 2 over the step; the SDE's
        // decay twice as fast.
        let k = if self.stochastic { 2.0 * h } else { h };
        let decay = (-k).exp();
        let phi_1 = alpha_t * (1.0 - decay);
        let phi_2 = alpha_t * ((decay - 1.0) / k + 1.0);
        let mut x_t = if self.stochastic {
            let noise = z.normal_f32()? * (sigma_t * (1.0 - decay).sqrt());
            x * (sigma_t / sigma_s * (-h).exp()) + noise
        } else {
            x * (sigma_t / sigma_s)
        };
        x_t = x_t + m0.clone() * phi_1;

        let order = self.order_at(i);
        if order == 1 {
            return Ok(x_t);
        }
        let r0 = (lambda(i) - lambda(i - 1)) / h;
        let d1_0 = (m0 - self.m[1].clone()) * (1.0 / r0);
        if order == 2 {
            return Ok(x_t + d1_0 * if self.heun { phi_2 } else { 0.5 * phi_1 });
        }
        let r1 = (lambda(i - 1) - lambda(i - 2)) / h;
        let d1_1 = (self.m[1].clone() - self.m[2].clone()) * (1.0 / r1);
        let difference = d1_0.clone() - d1_1;
        let d1 = d1_0 + difference.clone() * (r0 / (r0 + r1));
        let d2 = difference * (1.0 / (r0 + r1));
        // For the SDE diffusers adds the half; its pictures are the measure here.
        let half = if self.stochastic { 0.5 } else { -0.5 };
        let phi_3 = alpha_t * ((decay - 1.0 + k) / (k * k) + half);
        Ok(x_t + d1 * phi_2 - d2 * phi_3)
    }
}

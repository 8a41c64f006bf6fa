//! One file a sampler, each in the letters of its paper.

mod ddim;
mod ddpm;
mod dpm_solver;
mod euler;
mod euler_ancestral;
mod heun;
mod lcm;
mod lms;
mod pndm;
mod unipc;

use crate::{
    Error, SamplerKind, Scheduler, SchedulerConfig,
    sampler::{Path, Solver},
    schedule::ScheduleDefaults,
    sigmas::{Ramp, SigmaCurve},
    timesteps::{Spacing, Timesteps},
};

/// The solver of a kind, boxed, and the path of its run.
pub(crate) fn new<const D: usize>(
    scheduler: &Scheduler,
    steps: usize,
    eta: f64,
) -> Result<(Box<dyn Solver<D>>, Path), Error> {
    fn boxed<const D: usize>((solver, path): (impl Solver<D> + 'static, Path)) -> (Box<dyn Solver<D>>, Path) {
        (Box::new(solver), path)
    }
    Ok(match scheduler.kind() {
        SamplerKind::Ddpm => boxed(ddpm::Ddpm::new(scheduler, steps)?),
        SamplerKind::Ddim => boxed(ddim::Ddim::new(scheduler, steps, eta)?),
        SamplerKind::Pndm => boxed(pndm::Pndm::new(scheduler, steps)?),
        SamplerKind::Euler => boxed(euler::Euler::new(scheduler, steps)?),
        SamplerKind::EulerAncestral => boxed(euler_ancestral::EulerAncestral::new(scheduler, steps)?),
        SamplerKind::Heun => boxed(heun::Heun::new(scheduler, steps)?),
        SamplerKind::Lms => boxed(lms::Lms::new(scheduler, steps)?),
        SamplerKind::DpmSolver
        | SamplerKind::Dpmpp2m
        | SamplerKind::Dpmpp2mSde
        | SamplerKind::Dpmpp2mKarras
        | SamplerKind::Dpmpp2mSdeKarras => boxed(dpm_solver::DpmSolver::new(scheduler, steps)?),
        SamplerKind::UniPc => boxed(unipc::UniPc::new(scheduler, steps)?),
        SamplerKind::Lcm => boxed(lcm::Lcm::new(scheduler, steps)?),
    })
}

/// Which training schedule a kind reads from a config that says nothing.
pub(crate) trait ScheduleOf {
    fn schedule_defaults(self) -> ScheduleDefaults;
}

impl ScheduleOf for SamplerKind {
    fn schedule_defaults(self) -> ScheduleDefaults {
        match self {
            Self::Ddpm | Self::Ddim => ScheduleDefaults::ddpm(),
            Self::Pndm | Self::Lms => ScheduleDefaults::ddpm().never_rescaled(),
            Self::Heun => ScheduleDefaults::heun(),
            Self::Lcm => ScheduleDefaults::lcm(),
            _ => ScheduleDefaults::ddpm().above_zero(),
        }
    }
}

/// Falling timesteps and their sigmas for Euler, Heun and LMS, in f64 as numpy has them; and the
/// standard deviation that their noise starts with.
struct Fall {
    timesteps: Vec<f64>,
    sigmas: Vec<f64>,
    init_noise_sigma: f32,
}

impl Fall {
    fn new(scheduler: &Scheduler, steps: usize, ramp: Ramp) -> Result<Self, Error> {
        let curve = SigmaCurve::new(scheduler.schedule());
        let choice = timesteps(scheduler, Spacing::Linspace, steps)?;
        let mut timesteps: Vec<f64> = choice.fractional()?.into_iter().map(f64::from).collect();
        let mut sigmas: Vec<f64> = timesteps.iter().map(|t| curve.at(*t)).collect();
        if let Some(ramp) = ramp.sigmas(sigmas[0], sigmas[sigmas.len() - 1], steps) {
            timesteps = ramp.iter().map(|s| curve.timestep(*s)).collect();
            sigmas = ramp;
        }
        Ok(Self { init_noise_sigma: init_noise_sigma(&sigmas, choice.spacing), timesteps, sigmas })
    }

    /// The path with `end` for the last sigma, each entry `calls` times after the first.
    fn path(self, end: f32, calls: usize) -> Path {
        let repeat = |i: usize| if i == 0 { 1 } else { calls };
        let twice = |values: &[f64]| -> Vec<f32> {
            let f32s = values.iter().map(|v| *v as f32).enumerate();
            f32s.flat_map(|(i, v)| std::iter::repeat_n(v, repeat(i))).collect()
        };
        let mut sigmas = twice(&self.sigmas);
        sigmas.push(end);
        Path::exploding(twice(&self.timesteps), sigmas, self.init_noise_sigma)
    }
}

/// The largest sigma; with leading spacing, that of x at unit variance below it.
fn init_noise_sigma(sigmas: &[f64], spacing: Spacing) -> f32 {
    let max = sigmas.iter().fold(0f32, |max, s| max.max(*s as f32));
    if spacing == Spacing::Leading { (max * max + 1.0).sqrt() } else { max }
}

fn timesteps(scheduler: &Scheduler, default: Spacing, steps: usize) -> Result<Timesteps, Error> {
    Timesteps::from_config(scheduler.kind(), scheduler.config(), default, scheduler.schedule().len(), steps)
}

/// alpha-bar at the end of the run: 1, or the schedule's first (`set_alpha_to_one`).
fn final_alpha_bar(scheduler: &Scheduler, config: &SchedulerConfig, to_one: bool) -> Result<f32, Error> {
    let to_one = config.flag("set_alpha_to_one", to_one)?;
    Ok(if to_one { 1.0 } else { scheduler.schedule().alphas_bar()[0] })
}

/// Whether timesteps go as in CompVis' own samplers, and the draws of noise with them.
fn is_compvis(config: &SchedulerConfig) -> bool {
    config.get("timestep_spacing").is_some_and(|spacing| spacing == "compvis")
}

use burn::tensor::Tensor;

use super::Fall;
use crate::{
    Error, Prediction, Scheduler,
    sampler::{Draw, Path, Solver},
    sigmas::Ramp,
};

const ORDER: usize = 4;

/// A linear multistep method: the slope is the polynomial through the last four, integrated from one noise
/// level to the next (k-diffusion, `sample_lms`).
pub(super) struct Lms<const D: usize> {
    sigmas: Vec<f32>,
    prediction: Prediction,
    /// The last slopes, the newest first.
    d: Vec<Tensor<D>>,
}

impl<const D: usize> Lms<D> {
    pub fn new(scheduler: &Scheduler, steps: usize) -> Result<(Self, Path), Error> {
        // diffusers' class takes the bounds of Karras sigmas from the schedule only.
        let ramp = match Ramp::from_config(scheduler.config())? {
            Ramp::Karras(..) => Ramp::Karras(None, None),
            ramp => ramp,
        };
        let path = Fall::new(scheduler, steps, ramp)?.path(0.0, 1);
        let solver = Self { sigmas: path.sigmas.clone(), prediction: scheduler.prediction(), d: vec![] };
        Ok((solver, path))
    }

    /// The integral from sigma_i to sigma_(i+1) of the polynomial that is 1 at sigma_(i-j) and 0 at the
    /// other last `order` sigmas. Gauss's two points are exact for a cubic.
    fn coefficient(&self, order: usize, i: usize, j: usize) -> f32 {
        let sigma = |k: usize| f64::from(self.sigmas[k]);
        let polynomial = |tau: f64| -> f64 {
            let others = (0..order).filter(|k| *k != j);
            others.map(|k| (tau - sigma(i - k)) / (sigma(i - j) - sigma(i - k))).product()
        };
        let (middle, half) = ((sigma(i + 1) + sigma(i)) / 2.0, (sigma(i + 1) - sigma(i)) / 2.0);
        let root = half / 3f64.sqrt();
        (half * (polynomial(middle - root) + polynomial(middle + root))) as f32
    }
}

impl<const D: usize> Solver<D> for Lms<D> {
    fn step(
        &mut self,
        i: usize,
        x: Tensor<D>,
        output: Tensor<D>,
        _: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let sigma = self.sigmas[i];
        let denoised = self.prediction.denoised(&x, output, sigma);
        self.d.insert(0, (x.clone() - denoised) / sigma);
        self.d.truncate(ORDER);
        // A run that starts late has fewer slopes than the order says; diffusers counts so too.
        let order = ORDER.min(i + 1);
        let terms = self.d.iter().take(order).enumerate();
        Ok(terms.fold(x, |x, (j, d)| x + d.clone() * self.coefficient(order, i, j)))
    }
}

//! Guidance by a classifier of noisy latents.

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Int, Tensor, TensorData};

use super::{Score, ScoreCorrector};
use crate::Error;

/// Leads samples towards classes by the gradient of a classifier that sees noisy latents.
///
/// `e_t - sqrt(1 - alpha_bar_t) scale grad_x log p(y | x_t, t)`. Source: Dhariwal and Nichol 2021, algorithm 2; the
/// paper's table 10 (classifier_scale 10).
#[derive(Debug, Clone)]
pub struct ClassifierGuidance<F> {
    classifier: F,
    classes: Vec<i64>,
    scale: f64,
}

impl<F> ClassifierGuidance<F>
where
    F: Fn(Tensor<4>, Tensor<1>) -> Result<Tensor<2>, Error>,
{
    /// Towards `classes`, one for each item; `classifier` gives logits `[b, n]` of a latent `[b, z, h, w]` at
    /// timesteps `[b]`, and is called with autodiff on.
    pub fn new(classifier: F, classes: impl Into<Vec<i64>>, scale: f64) -> Self {
        Self { classifier, classes: classes.into(), scale }
    }
}

impl<F> ScoreCorrector for ClassifierGuidance<F>
where
    F: Fn(Tensor<4>, Tensor<1>) -> Result<Tensor<2>, Error>,
{
    fn modify_score(&self, e_t: Tensor<4>, score: Score<'_>) -> Result<Tensor<4>, Error> {
        let x = score.x.clone().inner().autodiff().require_grad();
        let b = x.dims()[0];
        let t = Tensor::<1>::full([b], score.t, (&score.x.device(), DType::F32));
        let logits = (self.classifier)(x.clone(), t)?.cast(DType::F32);
        let [items, n] = logits.dims();
        if items != b || self.classes.len() != b {
            let reason = format!("{} classes and {items} logits for {b} items", self.classes.len());
            return Err(Error::argument("classes", reason));
        }
        if let Some(class) = self.classes.iter().find(|c| !(0..n as i64).contains(*c)) {
            return Err(Error::argument("classes", format!("class {class} is outside 0..{n}")));
        }
        let ids = TensorData::new(self.classes.clone(), [b, 1]);
        let ids = Tensor::<2, Int>::from_data(ids, &logits.device());
        let log_p = log_softmax(logits, 1).gather(1, ids).sum();
        let gradient = x.grad(&log_p.backward());
        let gradient =
            gradient.ok_or_else(|| Error::argument("classifier", "its logits don't depend on the latent"))?;
        Ok(e_t - gradient * (f64::from(score.sigma) * self.scale))
    }
}

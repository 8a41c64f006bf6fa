//! What changes a predicted score on its way to the sampler.

use burn::tensor::Tensor;
use ldm_nn::Conditioning;

use crate::Error;

/// What a corrector is shown beside the score.
#[derive(Debug)]
pub struct Score<'a> {
    /// The latent, `[b, z, h, w]`.
    pub x: &'a Tensor<4>,
    /// The timestep.
    pub t: f32,
    /// The noise in `x`: `sqrt(1 - alpha_bar_t)`.
    pub sigma: f32,
    /// The conditioning of the run.
    pub conditioning: &'a Conditioning,
}

/// Changes the noise that a model predicts before the sampler goes by it (`score_corrector` of the reference's
/// samplers).
pub trait ScoreCorrector {
    /// The new prediction, in the shape of `e_t` `[b, z, h, w]`.
    ///
    /// # Errors
    /// Whatever keeps it from being computed; it ends the run.
    fn modify_score(&self, e_t: Tensor<4>, score: Score<'_>) -> Result<Tensor<4>, Error>;
}

impl<F> ScoreCorrector for F
where
    F: Fn(Tensor<4>, Score<'_>) -> Result<Tensor<4>, Error>,
{
    fn modify_score(&self, e_t: Tensor<4>, score: Score<'_>) -> Result<Tensor<4>, Error> {
        self(e_t, score)
    }
}

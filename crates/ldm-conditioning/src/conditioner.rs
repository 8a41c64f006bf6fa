//! tau_theta: what stands between a condition `y` and the denoiser.

use burn::tensor::Tensor;

use crate::ConditioningError;

/// What a denoiser is told about the condition.
///
/// A model uses those parts that its architecture has an input for.
#[derive(Debug, Clone, Default)]
pub struct Conditioning {
    /// `[b, m, d]`: keys and values of every cross-attention come from it (paper, equation 2).
    pub context: Option<Tensor<3>>,
    /// `[b, d]`: one vector per item, added to the time embedding (SDXL's `text_embeds`).
    pub pooled: Option<Tensor<2>>,
    /// `[b, c, h, w]`: joined to the latent's channels (the paper's "concat": maps, low-resolution images).
    pub concat: Option<Tensor<4>>,
}

impl Conditioning {
    /// Only a context, `[b, m, d]`.
    pub fn from_context(context: Tensor<3>) -> Self {
        Self { context: Some(context), ..Self::default() }
    }

    /// The same parts, all zero: an unconditional input of models that were trained with zeros
    /// (SDXL's `force_zeros_for_empty_prompt`).
    pub fn zeros_like(&self) -> Self {
        Self {
            context: self.context.as_ref().map(Tensor::zeros_like),
            pooled: self.pooled.as_ref().map(Tensor::zeros_like),
            concat: self.concat.as_ref().map(Tensor::zeros_like),
        }
    }
}

/// The encoder tau_theta of the paper's section 3.3, for conditions of type `Y`.
///
/// One encoder may take several types. Whatever comes from outside and does not fit is an error, never a
/// panic.
pub trait Conditioner<Y: ?Sized> {
    /// Encodes a batch of conditions.
    fn encode(&self, y: &Y) -> Result<Conditioning, ConditioningError>;
}

//! tau_theta: what stands between a condition `y` and the denoiser.

use ldm_nn::Conditioning;

use crate::ConditioningError;

/// The encoder tau_theta of the paper's section 3.3, for conditions of type `Y`.
///
/// One encoder may take several types. Whatever comes from outside and does not fit is an error, never a
/// panic.
pub trait Conditioner<Y: ?Sized> {
    /// Encodes a batch of conditions.
    fn encode(&self, y: &Y) -> Result<Conditioning, ConditioningError>;
}

//! Activations that the models of the paper name.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

/// `x * sigmoid(x)`, the paper's "swish". Any shape.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

/// `x * sigmoid(1.702 x)`: the approximation of GELU that OpenAI's CLIP was trained with. Any shape.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let gate = activation::sigmoid(x.clone().mul_scalar(1.702));
    x.mul(gate)
}

/// An activation chosen by a config's string (`hidden_act`, `act_fn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(x)`.
    #[serde(alias = "swish")]
    Silu,
    /// Exact GELU, `x * Phi(x)`.
    Gelu,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
}

impl Activation {
    /// Applies the activation; any shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu => silu(x),
            Self::Gelu => activation::gelu(x),
            Self::QuickGelu => quick_gelu(x),
        }
    }
}

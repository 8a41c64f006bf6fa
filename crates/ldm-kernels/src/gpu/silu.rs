//! SiLU after a norm.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::elementary::{exp, reciprocal};
use super::ptx;

/// Whether `u * sigmoid(u)` follows a norm, and how. Known when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Silu {
    /// It does not.
    No,
    /// By CubeCL's exponential and division.
    Plain,
    /// By PTX.
    Ptx,
}

impl Silu {
    /// As the device has it.
    pub fn new(client: &Client, follows: bool) -> Self {
        match follows {
            false => Self::No,
            true if ptx::takes(client) => Self::Ptx,
            true => Self::Plain,
        }
    }
}

/// SiLU, where it follows.
#[cube]
pub fn activate<N: Size>(u: Vector<f32, N>, #[comptime] silu: Silu) -> Vector<f32, N> {
    if comptime![silu != Silu::No] { u * sigmoid::<N>(u, silu) } else { u }
}

/// `1 / (1 + exp(-u))`.
#[cube]
pub fn sigmoid<N: Size>(u: Vector<f32, N>, #[comptime] silu: Silu) -> Vector<f32, N> {
    let ptx = comptime![silu == Silu::Ptx];
    let one = Vector::<f32, N>::new(1.0f32);
    // Shaders need not keep infinity, hence the limit: e^80 is far beyond f32's digits.
    let limited = (-u).min(Vector::<f32, N>::new(80.0f32));
    reciprocal::<N>(one + exp::<N>(limited, ptx), ptx)
}

//! SiLU after a norm.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::ptx::{exp2, reciprocal, takes};

/// Whether `u * sigmoid(u)` follows a norm, and how. Known when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Silu {
    /// It does not.
    No,
    /// By CubeCL's exponential and division.
    Plain,
    /// By PTX, which has an instruction for each where CubeCL's are 8 and 15.
    Ptx,
}

impl Silu {
    /// As the device has it.
    pub fn new(client: &Client, follows: bool) -> Self {
        match follows {
            false => Self::No,
            true if takes(client) => Self::Ptx,
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
    if comptime![silu == Silu::Ptx] {
        let power = u * Vector::new(-core::f32::consts::LOG2_E);
        let mut all = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for k in 0..N::value() {
            all.insert(k, reciprocal(1.0f32 + exp2(power.extract(k), true)));
        }
        all
    } else {
        let one = Vector::<f32, N>::new(1.0f32);
        // Shaders need not keep infinity, hence the limit: e^80 is far beyond f32's digits.
        let limited = (-u).min(Vector::<f32, N>::new(80.0f32));
        one / (one + limited.exp())
    }
}

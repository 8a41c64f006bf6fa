//! Elementary functions of vectors. By PTX each is an instruction or two a lane, right to 2^-22 of the result; CubeCL's exponential
//! is eight of them on CUDA and its division fifteen.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::ptx;

/// `e^x`.
#[cube]
pub fn exp<N: Size>(x: Vector<f32, N>, #[comptime] by_ptx: bool) -> Vector<f32, N> {
    if comptime![by_ptx] {
        let power = x * Vector::new(core::f32::consts::LOG2_E);
        let mut all = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for k in 0..N::value() {
            all.insert(k, ptx::exp2(power.extract(k), true));
        }
        all
    } else {
        x.exp()
    }
}

/// `1 / x`.
#[cube]
pub fn reciprocal<N: Size>(x: Vector<f32, N>, #[comptime] by_ptx: bool) -> Vector<f32, N> {
    if comptime![by_ptx] {
        let mut all = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for k in 0..N::value() {
            all.insert(k, ptx::reciprocal(x.extract(k)));
        }
        all
    } else {
        Vector::<f32, N>::new(1.0f32) / x
    }
}

//! Elementary functions of vectors. By PTX each is an instruction or two a lane; CubeCL's exponential is eight of them on
//! CUDA and its division fifteen, with a branch.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::ptx;

/// `e^x`. By PTX right to 2^-22 of it, and to what rounding `x / ln 2` makes: 2^-24 of `x` as an exponent.
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

/// `1 / x`. By PTX right to the last digit.
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

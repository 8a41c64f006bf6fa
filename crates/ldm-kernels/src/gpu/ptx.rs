//! Instructions of CUDA that CubeCL has no name for, as PTX in the kernel's code.
//!
//! CubeCL's LLVM compiler takes operations from outside: [`Ptx`] is one, and becomes LLVM's inline assembly.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

#[cfg(feature = "cuda")]
mod operation;

/// Whether kernels on the device may use PTX: those on CUDA do, where LLVM compiles them (CubeCL's other compiler, by way
/// of C++, copies asynchronously, which LLVM's doesn't).
pub fn takes(client: &Client) -> bool {
    let properties = client.properties();
    cfg!(feature = "cuda")
        && properties.identity.fingerprint.starts_with("ptx_sm")
        && !properties.features.copy_async
}

/// `2^x`. By PTX one instruction that is right to 2^-22 of it and gives 0 for results below f32's smallest normal number;
/// CubeCL's are eight.
#[cube]
pub fn exp2(x: f32, #[comptime] ptx: bool) -> f32 {
    if comptime![ptx] { exp2_ptx(x) } else { (x * core::f32::consts::LN_2).exp() }
}

#[cube]
#[allow(unused_variables, reason = "the other features' build")]
fn exp2_ptx(x: f32) -> f32 {
    intrinsic!(|scope| {
        #[cfg(feature = "cuda")]
        {
            operation::Ptx::unary(scope, "ex2.approx.ftz.f32 $0, $1;", "=f,f", x)
        }
        #[cfg(not(feature = "cuda"))]
        {
            // `takes` is false.
            x
        }
    })
}

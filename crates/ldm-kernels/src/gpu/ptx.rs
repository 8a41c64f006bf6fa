//! Instructions of CUDA that CubeCL has no name for, as PTX in the kernel's code.
//!
//! CubeCL's LLVM compiler takes operations from outside: ours become LLVM's inline assembly.

use burn_cubecl::cubecl;
#[cfg(feature = "cuda")]
use burn_cubecl::cubecl::ir::interfaces::TypedExt;
use burn_cubecl::cubecl::prelude::*;

use crate::gpu_kernels::{GpuKernels, runs};

#[cfg(feature = "cuda")]
mod group;
#[cfg(feature = "cuda")]
mod operation;

/// The first architecture that copies asynchronously.
const OLDEST: u32 = 80;
/// That which multiplies by groups of planes.
const HOPPER: u32 = 90;

/// Whether kernels on the device may use PTX: those on CUDA do, where LLVM compiles them (CubeCL's other compiler, by way
/// of C++, copies asynchronously, which LLVM's doesn't), from Ampere on.
pub fn takes(client: &Client) -> bool {
    let copies = client.properties().features.copy_async;
    cfg!(feature = "cuda")
        && runs(GpuKernels::All)
        && !copies
        && architecture(client).is_some_and(|number| number >= OLDEST)
}

/// Whether the device multiplies by groups of four planes that read shared memory themselves (`wgmma`).
pub fn groups(client: &Client) -> bool {
    takes(client) && architecture(client) == Some(HOPPER)
}

/// The number of an NVIDIA device's architecture.
fn architecture(client: &Client) -> Option<u32> {
    client.properties().identity.fingerprint.strip_prefix("ptx_sm")?.parse().ok()
}

/// `2^x`. By PTX one instruction that is right to 2^-22 of it and gives 0 for results below f32's smallest normal number;
/// CubeCL's are eight.
#[cube]
pub fn exp2(x: f32, #[comptime] ptx: bool) -> f32 {
    if comptime![ptx] { exp2_ptx(x) } else { (x * core::f32::consts::LN_2).exp() }
}

/// Copies a vector of so many bytes, 4, 8 or 16, from global to shared memory, or zeros where it isn't `there`, which is
/// then not read. It is in its place after [`wait`] for its group, for other units after the next barrier.
#[cube]
#[allow(unused_variables, reason = "the other features' build")]
pub fn copy_async<E: Numeric, N: Size>(
    to: &[Vector<E, N>],
    from: &[Vector<E, N>],
    there: bool,
    #[comptime] bytes: usize,
) {
    let read = select(there, comptime![bytes as u32], 0u32);
    intrinsic!(|scope| {
        #[cfg(feature = "cuda")]
        {
            // SAFETY: pointers are made here and not read.
            let [to, from] =
                unsafe { [*to.__expand_as_ptr_method(scope), *from.__expand_as_ptr_method(scope)] };
            operation::copy_async(scope, to.value(scope), from.value(scope), read.read_value(scope), bytes);
        }
    })
}

/// Makes a group of the unit's copies since the last.
#[cube]
pub fn commit() {
    intrinsic!(|scope| {
        #[cfg(feature = "cuda")]
        operation::order(scope, "cp.async.commit_group;".to_owned());
    })
}

/// Waits for all of the unit's groups but so many of the latest.
#[cube]
#[allow(unused_variables, reason = "the other features' build")]
pub fn wait(#[comptime] but: usize) {
    intrinsic!(|scope| {
        #[cfg(feature = "cuda")]
        operation::order(scope, format!("cp.async.wait_group {but};"));
    })
}

/// Shows what this unit's finished copies wrote to [`group_product`]s, after the next barrier.
#[cube]
pub fn show() {
    intrinsic!(|scope| {
        #[cfg(feature = "cuda")]
        operation::order(scope, "fence.proxy.async.shared::cta;".to_owned());
    })
}

/// Depth of a [`group_product`].
pub const DEPTH: usize = 32;
/// Rows of it a group of planes.
pub const BLOCK: usize = 64;

/// Begins to add `left right^T`, [`BLOCK`] rows by `2 S` columns, [`DEPTH`] deep, to the sums of a group of four planes.
///
/// Operands lie in shared memory from multiples of 1024 bytes on, in rows of 64 bytes, which are the depth, or `across`: in
/// blocks of 64 rows or columns, 128 bytes, by the depth. Of each row's pieces of 16 bytes, piece `i` of row `r` is at
/// `i ^ (r / 2 % 4)`; across at `i ^ (r % 8)`. A unit's sums are, for every eight columns, two neighbouring ones of
/// two rows, as of [`fragments`](super::fragments), its plane's rows being 16 of the block's. Operands are the product's
/// until [`group_pass`] or [`group_wait`] has waited for it, sums until the latter.
#[cube]
#[allow(unused_variables, reason = "the other features' build")]
pub fn group_product<E: Float, S: Size, A: Size, B: Size>(
    sums: Vector<f32, S>,
    left: &[Vector<E, A>],
    right: &[Vector<E, B>],
    #[comptime] across: [bool; 2],
) -> Vector<f32, S> {
    let registers = S::value();
    intrinsic!(|scope| {
        #[cfg(feature = "cuda")]
        {
            // SAFETY: pointers are made here and not read.
            let (left, right) =
                unsafe { (*left.__expand_as_ptr_method(scope), *right.__expand_as_ptr_method(scope)) };
            let brain = E::__expand_as_type(scope).is_bfloat16(scope.ctx());
            let text = group::product(registers, if brain { "bf16" } else { "f16" }, across);
            operation::group(scope, sums, vec![left.value(scope), right.value(scope)], text, registers)
        }
        #[cfg(not(feature = "cuda"))]
        {
            sums
        }
    })
}

/// Waits for all of the group's products but so many of the latest. Its sums are not its own then.
#[cube]
#[allow(unused_variables, reason = "the other features' build")]
pub fn group_pass(#[comptime] but: usize) {
    intrinsic!(|scope| {
        #[cfg(feature = "cuda")]
        operation::order(scope, format!("wgmma.wait_group.sync.aligned {but};"));
    })
}

/// Waits until the group's sums are its own again.
#[cube]
#[allow(unused_variables, reason = "the other features' build")]
pub fn group_wait<S: Size>(sums: Vector<f32, S>) -> Vector<f32, S> {
    let registers = S::value();
    intrinsic!(|scope| {
        #[cfg(feature = "cuda")]
        {
            let text = "wgmma.wait_group.sync.aligned 0;".to_owned();
            operation::group(scope, sums, vec![], text, registers)
        }
        #[cfg(not(feature = "cuda"))]
        {
            sums
        }
    })
}

#[cube]
#[allow(unused_variables, reason = "the other features' build")]
fn exp2_ptx(x: f32) -> f32 {
    intrinsic!(|scope| {
        #[cfg(feature = "cuda")]
        {
            operation::function(scope, "ex2.approx.ftz.f32 $0, $1;", "=f,f", x)
        }
        #[cfg(not(feature = "cuda"))]
        {
            // `takes` is false.
            x
        }
    })
}

/// `1 / x`, right to the last digit, where kernels may use PTX. 0 for results below f32's smallest normal number.
#[cube]
#[allow(unused_variables, reason = "the other features' build")]
pub fn reciprocal(x: f32) -> f32 {
    intrinsic!(|scope| {
        #[cfg(feature = "cuda")]
        {
            operation::function(scope, "rcp.approx.ftz.f32 $0, $1;", "=f,f", x)
        }
        #[cfg(not(feature = "cuda"))]
        {
            // `takes` is false.
            x
        }
    })
}

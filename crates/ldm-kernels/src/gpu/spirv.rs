//! What SPIR-V can say and CubeCL has no name for.
//!
//! CubeCL's SPIR-V compiler takes operations from outside, as its LLVM compiler does ([`ptx`](super::ptx)). Other compilers know nothing of
//! them, so kernels ask for them where operands are packed: of wgpu's ways SPIR-V alone has such matrices.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

#[cfg(feature = "vulkan")]
mod operation;

/// Tells the driver to keep the kernel's loops up to here as they are, where they are compiled to SPIR-V.
///
/// NVIDIA's unrolls a loop of products eight times: 40 to 60 KB of instructions, of which two or three kernels drive each other out of a
/// multiprocessor's cache, and every launch that doesn't find its own there takes some 7 us longer.
#[cube]
pub fn keep_loops() {
    intrinsic!(|scope| {
        #[cfg(feature = "vulkan")]
        operation::keep_loops(scope);
    })
}

//! Numbers that a kernel may know when it is compiled.
//!
//! A kernel that is told its sizes reads them from memory before it knows where its operands are, in rounds that wait for each other, and
//! divides by them. Those that know theirs begin at once, but there are more of them to compile.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::ir::FloatKind;
use burn_cubecl::cubecl::prelude::*;

use super::plane_tile::{SIDE, native};

/// Whether kernels that would be told little else are compiled for what they are launched with: on Vulkan, where others read it from
/// memory that the host wrote. Its devices with matrix units are meant, whose kernels are many anyway; software would compile for longer.
pub fn is_known(client: &Client) -> bool {
    let vulkan = client.properties().identity.fingerprint.starts_with("spirv_");
    vulkan && native(client, ElemType::Float(FloatKind::F16)) == Some(SIDE)
}

/// The number that is known when the kernel is compiled, else `n`.
#[cube]
pub fn or_known(n: usize, #[comptime] known: Option<usize>) -> usize {
    if comptime![known.is_some()] { comptime![known.unwrap_or_default()].runtime() } else { n }
}

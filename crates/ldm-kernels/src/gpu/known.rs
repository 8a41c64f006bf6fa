//! Numbers that a kernel may know when it is compiled.
//!
//! A kernel that is told its sizes reads them from memory before it knows where its operands are, in rounds that wait for each other, and
//! divides by them. Those that know theirs begin at once, but there are more of them to compile.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// The number that is known when the kernel is compiled, else `n`.
#[cube]
pub fn or_known(n: usize, #[comptime] known: Option<usize>) -> usize {
    if comptime![known.is_some()] { comptime![known.unwrap_or_default()].runtime() } else { n }
}

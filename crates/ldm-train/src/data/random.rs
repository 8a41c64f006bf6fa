//! Random choices as a function of (seed, purpose, epoch, index): no generator outlives one choice, so neither
//! threads nor a restart can change them.

use ldm_scheduler::NativeRng;

/// What is drawn. The values are part of what a seed means: never renumber.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub(crate) enum Purpose {
    /// The order of items, or of shards.
    Order = 1,
    /// The slots of a shuffle buffer.
    Buffer = 2,
    /// Crop and flip of one item.
    View = 3,
    /// What an evaluation asks.
    Questions = 5,
}

/// The generator for `purpose` at `(a, b)`.
pub(crate) fn rng(seed: u64, purpose: Purpose, a: u64, b: u64) -> NativeRng {
    NativeRng::new([purpose as u64, a, b].into_iter().fold(mix(seed), |state, v| mix(state ^ v)))
}

/// A whole number below `n`, each as likely.
pub(crate) fn below(rng: &mut NativeRng, n: usize) -> usize {
    // The high half of a 128-bit product: no bias that 2^64 numbers could show.
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// In [0, 1).
pub(crate) fn uniform(rng: &mut NativeRng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Fisher and Yates.
pub(crate) fn shuffle<T>(rng: &mut NativeRng, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(rng, i + 1));
    }
}

/// SplitMix64's finaliser, with its increment: neighbours become unrelated.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

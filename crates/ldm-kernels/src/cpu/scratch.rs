//! Working memory that is kept from one call to the next: fresh pages from the system cost more than the work.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

/// A thread keeps one buffer of at most this many values (32 MiB) for its next call.
const KEEP: usize = 8 << 20;

thread_local! {
    static KEPT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A buffer with unspecified contents, given back when dropped.
pub struct Scratch {
    values: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// `len` values.
    pub fn take(len: usize) -> Self {
        let mut values = KEPT.take();
        if values.len() < len {
            // Zeroed pages come from the system as they are; growing would copy.
            values = vec![0.0; len];
        }
        Self { values, len }
    }
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let kept = KEPT.take();
        let values = std::mem::take(&mut self.values);
        let better = values.len() > kept.len() && values.len() <= KEEP;
        KEPT.set(if better { values } else { kept });
    }
}

//! Working memory that is kept from one call to the next: fresh pages from the system cost more than the work.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use super::pages::zeros;

/// A thread keeps buffers of at most this many values in all (40 MiB) for its next calls.
const KEEP: usize = 10 << 20;
/// Values in a line of the cache: buffers begin with a line, or every vector would lie across two.
const LINE: usize = 16;

thread_local! {
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer with unspecified contents, given back when dropped.
pub struct Scratch {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Scratch {
    /// `len` values.
    pub fn take(len: usize) -> Self {
        let need = len + LINE;
        let values = KEPT.with_borrow_mut(|kept| {
            let fitting = kept.iter().enumerate().filter(|(_, values)| values.len() >= need);
            let tightest = fitting.min_by_key(|(_, values)| values.len()).map(|(i, _)| i);
            tightest.map(|i| kept.swap_remove(i))
        });
        let values = values.unwrap_or_else(|| zeros(need));
        let line = LINE * size_of::<f32>();
        let start = (values.as_ptr() as usize).next_multiple_of(line) - values.as_ptr() as usize;
        Self { values, start: start / size_of::<f32>(), len }
    }
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        KEPT.with_borrow_mut(|kept| {
            kept.push(values);
            // The largest are dearest to make anew.
            kept.sort_by_key(|values| std::cmp::Reverse(values.len()));
            let mut total = 0;
            kept.retain(|values| {
                let keep = total + values.len() <= KEEP;
                total += if keep { values.len() } else { 0 };
                keep
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_with_a_line_and_keeps_no_more_than_it_may() {
        let line = LINE * size_of::<f32>();
        for len in [1, 1000, KEEP / 2, KEEP] {
            let both = [Scratch::take(len), Scratch::take(len / 2)];
            assert!(both.iter().all(|s| (s.as_ptr() as usize).is_multiple_of(line)));
            assert_eq!(both.each_ref().map(|s| s.len()), [len, len / 2]);
        }
        let kept: usize = KEPT.with_borrow(|kept| kept.iter().map(Vec::len).sum());
        assert!(kept > KEEP / 2 && kept <= KEEP, "{kept}");
    }

    #[test]
    fn a_buffer_comes_back() {
        let (first, second) = (Scratch::take(5000), Scratch::take(6000));
        let pointers = [first.as_ptr(), second.as_ptr()];
        drop((first, second));
        let again = [Scratch::take(5500), Scratch::take(4990)];
        assert_eq!([again[1].as_ptr(), again[0].as_ptr()], pointers, "the tightest that fits");
    }
}

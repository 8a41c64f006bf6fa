use ldm_scheduler::NativeRng;

use super::random::below;
use super::{DataError, Item};

/// Mixes a stream: holds up to `capacity` items and gives one of them at random, each exactly once.
pub(super) struct Shuffle<I> {
    stream: I,
    held: Vec<Item>,
    capacity: usize,
    draws: NativeRng,
}

impl<I> Shuffle<I> {
    pub fn new(stream: I, capacity: usize, draws: NativeRng) -> Self {
        Self { stream, held: Vec::new(), capacity: capacity.max(1), draws }
    }
}

impl<I: Iterator<Item = Result<Item, DataError>>> Iterator for Shuffle<I> {
    type Item = Result<Item, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.held.len() < self.capacity {
            match self.stream.next() {
                Some(Ok(item)) => self.held.push(item),
                Some(Err(e)) => return Some(Err(e)),
                None => break,
            }
        }
        if self.held.is_empty() {
            return None;
        }
        let at = below(&mut self.draws, self.held.len());
        Some(Ok(self.held.swap_remove(at)))
    }
}

//! Memory of large results, which is used again as soon as burn lets go of it.
//!
//! A map of 128 channels at 512 px has 134 MB. From the system that is fresh memory each time, which is cleared page
//! by page: a tenth to a sixth of a decode's time.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Shape, TensorData};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

use super::pages::zeros;

/// Values of the smallest buffer that is kept (1 MiB): the allocator serves smaller ones as well.
const LEAST: usize = 256 << 10;
/// Values that may wait for their next use (512 MiB).
const MOST: usize = 128 << 20;

static POOL: Mutex<Pool> = Mutex::new(Pool { idle: Vec::new(), live: 0, peak: 0 });

struct Pool {
    /// What nobody uses at the moment, the longest idle first.
    idle: Vec<Vec<f32>>,
    /// Values in use.
    live: usize,
    /// The most that ever were. No more than that is held in all, so that the pool costs no memory at the peak.
    peak: usize,
}

impl Pool {
    fn lock() -> MutexGuard<'static, Self> {
        POOL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer for `len` values: the smallest idle one that has them and not twice as many, if there is one.
    /// What has to go for a new one comes too.
    fn take(&mut self, len: usize) -> (Option<Vec<f32>>, Vec<Vec<f32>>) {
        let fitting =
            self.idle.iter().enumerate().filter(|(_, values)| (len..2 * len).contains(&values.len()));
        let tightest = fitting.min_by_key(|(_, values)| values.len()).map(|(i, _)| i);
        let found = tightest.map(|i| self.idle.remove(i));
        self.live += found.as_ref().map_or(len, Vec::len);
        self.peak = self.peak.max(self.live);
        (found, self.shrink())
    }

    /// Takes a buffer back; what has to go instead comes.
    fn give(&mut self, values: Vec<f32>) -> Vec<Vec<f32>> {
        self.live = self.live.saturating_sub(values.len());
        self.idle.push(values);
        self.shrink()
    }

    /// Lets go of what has been idle longest until no more is held than may be.
    fn shrink(&mut self) -> Vec<Vec<f32>> {
        let most = MOST.min(self.peak.saturating_sub(self.live));
        let mut total: usize = self.idle.iter().map(Vec::len).sum();
        let excess = self.idle.iter().take_while(|values| {
            let excess = total > most;
            total -= values.len();
            excess
        });
        let count = excess.count();
        self.idle.drain(..count).collect()
    }
}

/// Values of a result to be, with unspecified contents at first.
pub enum Buffer {
    /// As the allocator gave them.
    Plain(Vec<f32>),
    /// The first so many of a buffer of the pool.
    Pooled(Pooled, usize),
}

impl Buffer {
    /// Room for `len` values.
    pub fn take(len: usize) -> Self {
        if len < LEAST {
            return Self::Plain(vec![0.0; len]);
        }
        // What goes is freed after the lock is.
        let (found, gone) = Pool::lock().take(len);
        drop(gone);
        Self::Pooled(Pooled { values: found.unwrap_or_else(|| zeros(len)) }, len)
    }

    /// The values with their shape; nothing is copied.
    pub fn into_data(self, shape: impl Into<Shape>) -> TensorData {
        match self {
            Self::Plain(values) => TensorData::new(values, shape),
            Self::Pooled(pooled, len) => {
                // SAFETY: all `len` values and more are initialised.
                let bytes = unsafe { Bytes::from_controller(Box::new(pooled), len * size_of::<f32>()) };
                TensorData::from_bytes(bytes, shape, DType::F32)
            }
        }
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(values: Vec<f32>) -> Self {
        Self::Plain(values)
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match self {
            Self::Plain(values) => values,
            Self::Pooled(pooled, len) => &pooled.values[..*len],
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Plain(values) => values,
            Self::Pooled(pooled, len) => &mut pooled.values[..*len],
        }
    }
}

/// What a tensor holds: goes back to the pool with it.
pub struct Pooled {
    values: Vec<f32>,
}

impl AllocationController for Pooled {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes = size_of_val(&self.values[..]);
        // SAFETY: these bytes, which the caller leaves initialised; any are an f32.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.values.as_mut_ptr().cast(), bytes) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        // SAFETY: these bytes, initialised.
        Ok(unsafe { std::slice::from_raw_parts(self.values.as_ptr().cast(), size_of_val(&self.values[..])) })
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        // What goes is freed after the lock is.
        let gone = Pool::lock().give(values);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::flex::FlexTensor;

    use super::*;

    #[test]
    fn the_pool_gives_the_tightest_and_forgets_the_oldest() {
        let mut pool = Pool { idle: Vec::new(), live: 0, peak: 0 };
        let taken = [5, 9, 3, 6].map(|n| {
            assert_eq!(pool.take(n), (None, Vec::new()));
            vec![0.0; n]
        });
        for values in taken {
            assert!(pool.give(values).is_empty());
        }
        assert_eq!((pool.live, pool.peak), (0, 23));
        assert_eq!(pool.take(4).0.map(|v| v.len()), Some(5));
        assert_eq!(pool.take(2).0.map(|v| v.len()), Some(3));
        // Six is twice as many as three, and nine makes room: 5 + 3 + 3 in use, 12 left for the idle.
        let (found, gone) = pool.take(3);
        assert_eq!((found, gone.iter().map(Vec::len).collect::<Vec<_>>()), (None, vec![9]));
        assert_eq!((pool.live, pool.idle.len(), pool.idle[0].len()), (11, 1, 6));
        // More than ever: nothing may stay idle.
        assert_eq!(pool.take(20).1.len(), 1);
        assert_eq!((pool.live, pool.peak), (31, 31));
    }

    #[test]
    fn tensors_hold_it_and_may_be_written() {
        for len in [7, LEAST, LEAST + 9] {
            let mut buffer = Buffer::take(len);
            buffer.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
            let tensor = FlexTensor::from_data(buffer.into_data([len]));
            assert_eq!(
                tensor.as_slice::<f32>().map(|v| (v.len(), v[len - 1])),
                Some((len, (len - 1) as f32))
            );
            let mut data = tensor.into_data();
            if let Ok(values) = data.as_mut_slice::<f32>() {
                values[0] = 5.0;
            }
            assert_eq!(data.try_to_vec::<f32>().map(|v| (v.len(), v[0], v[1])), Ok((len, 5.0, 1.0)));
        }
    }
}

//! Which kernels of our own run on GPUs.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use burn::tensor::Tensor;

use crate::conv2d::Conv2dOptions;

/// Which kernels of our own run on GPUs, where the feature `gpu-kernels` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum GpuKernels {
    /// None: burn's operations.
    Off,
    /// Those that are the same on every device.
    Portable,
    /// Those too that use instructions of one vendor's devices.
    All,
}

static KERNELS: AtomicU8 = AtomicU8::new(GpuKernels::All as u8);

/// Chooses them for the whole process, from the next operation on: to compare them, or to do without one that is
/// suspected. [`GpuKernels::All`] are on from the start.
pub fn set_gpu_kernels(kernels: GpuKernels) {
    KERNELS.store(kernels as u8, Ordering::Relaxed);
}

/// Whether these run.
#[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
pub(crate) fn runs(kernels: GpuKernels) -> bool {
    KERNELS.load(Ordering::Relaxed) >= kernels as u8
}

/// One way of dividing a convolution among a GPU's multiprocessors: for benches, which fit the estimate to a device.
pub struct Way {
    /// Rows by columns of a tile, and who multiplies.
    pub tile: String,
    /// Of the depth.
    pub splits: usize,
    /// What it is thought to take, in a multiprocessor's clocks.
    pub estimate: usize,
    /// Whether it is the one that is taken.
    pub taken: bool,
    pub(crate) run: Box<Run>,
}

/// Convolves in one way.
type Run = dyn Fn(&Tensor<4>, &Tensor<4>) -> Option<Tensor<4>>;

impl Way {
    /// The convolution of these, or of others of their shapes and layouts.
    pub fn run(&self, x: &Tensor<4>, weight: &Tensor<4>) -> Option<Tensor<4>> {
        (self.run)(x, weight)
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tile, splits, estimate, taken, .. } = self;
        write!(f, "{tile}, {splits} splits: {estimate} clocks{}", if *taken { ", taken" } else { "" })
    }
}

/// One way of dividing an attention among a GPU's multiprocessors: likewise.
pub struct AttentionWay {
    /// Planes, rows of each and keys that are walked at a time.
    pub cube: String,
    /// Whether it is the one that is taken.
    pub taken: bool,
    pub(crate) run: Box<RunAttention>,
}

/// Attends in one way.
type RunAttention = dyn Fn(&Tensor<4>, &Tensor<4>, &Tensor<4>) -> Option<Tensor<4>>;

impl AttentionWay {
    /// The attention of these, or of others of their shapes.
    pub fn run(&self, q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> Option<Tensor<4>> {
        (self.run)(q, k, v)
    }
}

impl fmt::Debug for AttentionWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.cube, if self.taken { ", taken" } else { "" })
    }
}

/// The ways of our kernel to make an attention of `q` `[b, heads, n, d]`, `k` and `v` `[b, heads, m, d]`; none where it does
/// not take them.
pub fn attention_ways(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> Vec<AttentionWay> {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    return crate::gpu::attention_ways(q, k, v).unwrap_or_default();
    #[cfg(not(all(feature = "gpu-kernels", feature = "gpu")))]
    {
        let _ = (q, k, v);
        vec![]
    }
}

/// The ways of our kernel to make [`upsample_conv2d`](crate::upsample_conv2d) of `x` `[b, c_in, h, w]` and merged taps
/// `[4 c_out, c_in, 2, 2]`; none where it does not take them.
pub fn upsample_ways(x: &Tensor<4>, taps: &Tensor<4>) -> Vec<Way> {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    return crate::gpu::ways(x, taps, crate::gpu::PIXELS, crate::gpu::Columns::Pixels).unwrap_or_default();
    #[cfg(not(all(feature = "gpu-kernels", feature = "gpu")))]
    {
        let _ = (x, taps);
        vec![]
    }
}

/// The ways of our kernel to make a convolution, without bias, of `x` `[b, c_in, h, w]` and `weight` `[c_out, c_in, kh, kw]`;
/// none where it does not take them.
pub fn ways(x: &Tensor<4>, weight: &Tensor<4>, options: Conv2dOptions) -> Vec<Way> {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    return crate::gpu::ways(x, weight, options, crate::gpu::Columns::One).unwrap_or_default();
    #[cfg(not(all(feature = "gpu-kernels", feature = "gpu")))]
    {
        let _ = (x, weight, options);
        vec![]
    }
}

//! Maps as tokens, tokens as maps, and maps joined, however the device keeps maps in memory.
//!
//! On GPUs with kernels of our own maps have their channels together ("channels-last"), as those leave them; on CPUs
//! their pixels. Here each is walked as it lies.

use burn::tensor::Tensor;

/// `[b, c, h, w] -> [b, h * w, c]`.
pub fn to_tokens(x: Tensor<4>) -> Tensor<3> {
    let [b, c, h, w] = x.dims();
    if channels_last(&x) {
        return x.permute([0, 2, 3, 1]).reshape([b, h * w, c]);
    }
    x.reshape([b, c, h * w]).swap_dims(1, 2)
}

/// `[b, h * w, c] -> [b, c, h, w]`, which is `shape`.
pub fn to_map(x: Tensor<3>, shape: [usize; 4]) -> Tensor<4> {
    let [b, c, h, w] = shape;
    if channels_last(&x) {
        return x.reshape([b, h, w, c]).permute([0, 3, 1, 2]);
    }
    x.swap_dims(1, 2).reshape(shape)
}

/// `[b, c, h, w]` and `[b, c', h, w] -> [b, c + c', h, w]`.
pub fn join_channels(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(y) = crate::gpu::join_channels(&a, &b) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu", feature = "autodiff"))]
    if let Some(y) = crate::gpu::autodiff::join_channels(&a, &b) {
        return y;
    }
    plain_join(a, b)
}

/// [`join_channels`] as burn has it.
pub fn plain_join(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    Tensor::cat(vec![a, b], 1)
}

/// Whether maps have their channels together there.
#[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
pub(crate) fn channels_last<const D: usize>(x: &Tensor<D>) -> bool {
    crate::gpu::holds(&x.clone().without_autodiff())
}

/// Whether maps have their channels together there.
#[cfg(not(all(feature = "gpu-kernels", feature = "gpu")))]
pub(crate) fn channels_last<const D: usize>(_: &Tensor<D>) -> bool {
    false
}

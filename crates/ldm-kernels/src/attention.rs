//! Scaled dot-product attention, as in the paper's section 3.3.

use burn::tensor::activation::softmax;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Tensor, module};

/// The widest heads that burn's attention gets. Its kernel for GPUs writes out every product of a row's elements: for heads
/// of 512 in f32, a first stage's, it takes minutes to compile.
const WIDEST: usize = 256;

/// `softmax(Q K^T / sqrt(d)) V`, hidden where `mask` `[b, heads, n, m]` is true.
///
/// `q` `[b, heads, n, d]`, `k` and `v` `[b, heads, m, d]` -> `[b, heads, n, d]`. Where `upcast`, scores are f32 whatever the
/// type, in which they may be too large: kernels have them so, burn gets all in f32.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<Tensor<4, Bool>>,
    upcast: bool,
) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if mask.is_none()
        && let Some(y) = crate::cpu::attention(&q, &k, &v)
    {
        return y;
    }
    #[cfg(all(feature = "flex", feature = "autodiff"))]
    if mask.is_none()
        && let Some(y) = crate::cpu::autodiff::attention(&q, &k, &v)
    {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if mask.is_none()
        && let Some(y) = crate::gpu::attention(&q, &k, &v, None)
    {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu", feature = "autodiff"))]
    if mask.is_none()
        && let Some(y) = crate::gpu::autodiff::attention(&q, &k, &v, None)
    {
        return y;
    }
    if upcast {
        let dtype = q.dtype();
        let [q, k, v] = [q, k, v].map(|x| x.cast(DType::F32));
        return plain(q, k, v, mask).cast(dtype);
    }
    plain(q, k, v, mask)
}

/// [`attention`] as burn has it; of wide heads by products, with all scores at once.
pub fn plain(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: Option<Tensor<4, Bool>>) -> Tensor<4> {
    let width = q.dims()[3];
    if width > WIDEST && mask.is_none() {
        let scores = q.matmul(k.transpose()).div_scalar((width as f64).sqrt());
        return softmax(scores, 3).matmul(v);
    }
    module::attention(q, k, v, mask, None, AttentionModuleOptions::default())
}

//! Scaled dot-product attention, as in the paper's section 3.3.

use burn::tensor::{Bool, Tensor};

/// What [`attention`] may do beyond the plain product.
#[derive(Debug, Clone, Default)]
pub struct AttentionOptions {
    /// Hides `[b, heads, q, k]` pairs where true (broadcast axes may be 1).
    pub mask: Option<Tensor<4, Bool>>,
    /// Computes scores in f32 whatever the input's type (`upcast_attention` of Stable Diffusion 2's config).
    pub upcast: bool,
}

/// `softmax(Q K^T / sqrt(d)) V`.
///
/// Shapes: `q` `[b, heads, n, d]`, `k` and `v` `[b, heads, m, d]`; gives `[b, heads, n, d]`.
/// Source: paper, section 3.3.
pub fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, options: AttentionOptions) -> Tensor<4> {
    let [b, heads, n, _] = q.dims();
    let m = k.dims()[2];
    let mask = options.mask.map(|mask| mask.expand([b, heads, n, m]));
    ldm_kernels::attention(q, k, v, mask, options.upcast)
}

/// `[b, n, heads * d] -> [b, heads, n, d]`.
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [b, n, width] = x.dims();
    x.reshape([b, n, heads, width / heads]).swap_dims(1, 2)
}

/// `[b, heads, n, d] -> [b, n, heads * d]`.
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [b, heads, n, d] = x.dims();
    x.swap_dims(1, 2).reshape([b, n, heads * d])
}

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use ldm_nn::{AttentionOptions, GroupNorm, GroupNormConfig, Linear, LinearConfig, attention, to_tokens};

/// Scores computed at a time: 64 MiB in f32. A 512 px picture's 64x64 latent still goes in one piece, a
/// 128x128 one, whose scores would fill 1 GiB, in sixteen.
const MAX_SCORES: usize = 1 << 24;

/// Self-attention of a first stage: one head as wide as the map, over all pixels.
///
/// Source: `AttnBlock` in the reference's `model.py` (whose projections are 1x1 convolutions), `Attention`
/// with `_from_deprecated_attn_block` in diffusers (linear).
#[derive(Module, Debug)]
pub struct AttentionBlock {
    /// Before the projections.
    pub norm: GroupNorm,
    /// Query.
    pub q: Linear,
    /// Key.
    pub k: Linear,
    /// Value.
    pub v: Linear,
    /// Back to the map.
    pub out: Linear,
}

impl AttentionBlock {
    pub(crate) fn new(channels: usize, groups: usize, device: &Device) -> Self {
        let linear = || LinearConfig::new(channels, channels).init(device);
        Self {
            norm: GroupNormConfig::new(groups, channels, crate::encoder::EPS).init(device),
            q: linear(),
            k: linear(),
            v: linear(),
            out: linear(),
        }
    }

    /// `x + out(attention(norm(x)))`; `[b, c, h, w] -> [b, c, h, w]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let n = h * w;
        let pixels = to_tokens(self.norm.forward(x.clone()));
        let head = |linear: &Linear| linear.forward(pixels.clone()).reshape([b, 1, n, c]);
        let y = attend_in_slices(head(&self.q), head(&self.k), head(&self.v), MAX_SCORES);
        self.out.forward_to_map(y.reshape([b, n, c]), x)
    }
}

/// Attention that never asks for more than about `max_scores` scores at once, by slices of the queries.
///
/// Each query's softmax is its own, so the slices join to exactly the whole.
fn attend_in_slices(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, max_scores: usize) -> Tensor<4> {
    // A head 512 wide overflows f16 before the scores are scaled.
    let options = || AttentionOptions { mask: None, upcast: q.dtype() != DType::F32 };
    let [b, _, n, _] = q.dims();
    let rows = (max_scores / (b * n)).max(1);
    if rows >= n {
        let options = options();
        return attention(q, k, v, options);
    }
    let slices = (0..n).step_by(rows).map(|start| {
        let slice = q.clone().narrow(2, start, rows.min(n - start));
        attention(slice, k.clone(), v.clone(), options())
    });
    Tensor::cat(slices.collect(), 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ldm_test_support::{assert_close, seeded_input};

    #[test]
    fn slices_join_to_the_whole() {
        let device = Device::default();
        let [q, k, v] = ["q", "k", "v"].map(|name| seeded_input::<4>(name, [2, 1, 37, 8], &device));
        let whole = attend_in_slices(q.clone(), k.clone(), v.clone(), usize::MAX);
        for max_scores in [1, 5 * 2 * 37, 36 * 2 * 37] {
            let sliced = attend_in_slices(q.clone(), k.clone(), v.clone(), max_scores);
            assert_close(&format!("at most {max_scores} scores"), &sliced, &whole, 1e-5);
        }
    }
}

//! From feature maps to one vector.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor, activation};
use ldm_nn::{
    AttentionOptions, GroupNorm, GroupNormConfig, Linear, LinearConfig, attention, merge_heads, silu,
    split_heads,
};

use super::Pool;

/// Width between the two layers of the spatial pools.
const HIDDEN: usize = 2048;

/// The end of an [`EncoderUNet`](super::EncoderUNet).
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // One a model.
pub enum EncoderHead {
    /// [`Pool::Adaptive`].
    Adaptive(AdaptiveHead),
    /// [`Pool::Attention`].
    Attention(AttentionHead),
    /// [`Pool::Spatial`] and [`Pool::SpatialV2`].
    Spatial(SpatialHead),
}

/// `proj(mean(silu(norm x)))`.
#[derive(Module, Debug)]
pub struct AdaptiveHead {
    /// Over the coarsest map.
    pub norm: GroupNorm,
    /// `[c -> out]`, zero at first.
    pub proj: Linear,
}

/// Attention from the mean of `silu(norm x)` to its pixels.
#[derive(Module, Debug)]
pub struct AttentionHead {
    /// Over the coarsest map.
    pub norm: GroupNorm,
    /// `[c, 1 + pixels]`: the mean, then the pixels.
    pub positional_embedding: Param<Tensor<2>>,
    /// `[c -> c]`.
    pub to_q: Linear,
    /// `[c -> c]`.
    pub to_k: Linear,
    /// `[c -> c]`.
    pub to_v: Linear,
    /// `[c -> out]`.
    pub c_proj: Linear,
    #[module(skip)]
    heads: usize,
}

/// Two layers over the means of all maps.
#[derive(Module, Debug)]
pub struct SpatialHead {
    /// `[features -> 2048]`.
    pub linear_1: Linear,
    /// With the second kind; it goes with SiLU, otherwise ReLU.
    pub norm: Option<GroupNorm>,
    /// `[2048 -> out]`.
    pub linear_2: Linear,
}

/// What the heads are made from.
pub(super) struct Sizes {
    /// Channels of the coarsest map.
    pub channels: usize,
    /// Channels of all maps together.
    pub features: usize,
    /// Side of the coarsest map.
    pub side: usize,
    /// Of the attention.
    pub heads: usize,
    pub out: usize,
    pub groups: usize,
    pub eps: f64,
}

impl EncoderHead {
    pub(super) fn new(pool: Pool, sizes: &Sizes, device: &Device) -> Self {
        let &Sizes { channels: c, features, side, heads, out, groups, eps } = sizes;
        let norm = |c| GroupNormConfig::new(groups, c, eps).init(device);
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        match pool {
            Pool::Adaptive => {
                let proj = LinearConfig::new(c, out).with_zero_init(true).init(device);
                Self::Adaptive(AdaptiveHead { norm: norm(c), proj })
            }
            Pool::Attention => {
                let positions = Initializer::Normal { mean: 0.0, std: (c as f64).powf(-0.5) };
                Self::Attention(AttentionHead {
                    norm: norm(c),
                    positional_embedding: positions.init([c, side * side + 1], device),
                    to_q: linear(c, c),
                    to_k: linear(c, c),
                    to_v: linear(c, c),
                    c_proj: linear(c, out),
                    heads,
                })
            }
            Pool::Spatial | Pool::SpatialV2 => Self::Spatial(SpatialHead {
                linear_1: linear(features, HIDDEN),
                norm: (pool == Pool::SpatialV2).then(|| norm(HIDDEN)),
                linear_2: linear(HIDDEN, out),
            }),
        }
    }

    /// `maps`: what the way down left; `x` `[b, c, h, w]`: the coarsest -> `[b, out]`.
    pub(super) fn forward(&self, maps: Vec<Tensor<4>>, x: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Adaptive(head) => head.proj.forward(mean(head.norm.forward_silu(x))),
            Self::Attention(head) => head.forward(x),
            Self::Spatial(head) => {
                let means = maps.into_iter().chain(std::iter::once(x)).map(mean).collect();
                let h = head.linear_1.forward(Tensor::cat(means, 1));
                head.linear_2.forward(match &head.norm {
                    Some(norm) => silu(norm.forward(h)),
                    None => activation::relu(h),
                })
            }
        }
    }
}

impl AttentionHead {
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let [b, c, h, w] = x.dims();
        let x = self.norm.forward_silu(x).reshape([b, c, h * w]);
        let x = Tensor::cat(vec![x.clone().mean_dim(2), x], 2) + self.positional_embedding.val().unsqueeze();
        let tokens = x.swap_dims(1, 2);
        // What comes of the pixels is not asked for: only the mean's query.
        let q = split_heads(self.to_q.forward(tokens.clone().narrow(1, 0, 1)), self.heads);
        let k = split_heads(self.to_k.forward(tokens.clone()), self.heads);
        let v = split_heads(self.to_v.forward(tokens), self.heads);
        let pooled = merge_heads(attention(q, k, v, AttentionOptions::default()));
        self.c_proj.forward(pooled.reshape([b, c]))
    }
}

/// `[b, c, h, w] -> [b, c]`.
fn mean(x: Tensor<4>) -> Tensor<2> {
    let [b, c, h, w] = x.dims();
    x.reshape([b, c, h * w]).mean_dim(2).reshape([b, c])
}

//! Attention to a context at one level of the U-Net: the paper's section 3.3.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ldm_nn::{
    AttentionOptions, GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig,
    attention, merge_heads, split_heads, to_tokens,
};

use crate::Context;
use crate::prepared::KeysValues;

/// Describes a [`SpatialTransformer`].
#[derive(Debug, Clone)]
pub struct SpatialTransformerConfig {
    /// Channels of the feature map, and width of the transformer.
    pub channels: usize,
    /// Attention heads; they divide `channels`.
    pub heads: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Width `d` of the context `[b, m, d]`.
    pub context_dim: usize,
    /// Groups of the norm at the entry.
    pub groups: usize,
    /// The first attention of each block reads the context too (`disable_self_attentions`).
    pub only_cross_attention: bool,
    /// Attention in f32 whatever the model's type.
    pub upcast_attention: bool,
}

/// Transformer blocks over the pixels of a feature map, with a residual connection around them.
///
/// The projections at both ends are linear layers over the channels; where a checkpoint keeps them as 1x1
/// convolutions (`use_linear_in_transformer` false) the key maps reshape them, the product is the same.
/// Source: `SpatialTransformer` in the reference's `attention.py`, `Transformer2DModel` in diffusers.
#[derive(Module, Debug)]
pub struct SpatialTransformer {
    /// Group norm with eps 1e-6.
    pub norm: GroupNorm,
    /// `[c -> c]`.
    pub proj_in: Linear,
    /// The blocks, in order.
    pub transformer_blocks: Vec<BasicTransformerBlock>,
    /// `[c -> c]`, zero at first.
    pub proj_out: Linear,
}

impl SpatialTransformerConfig {
    /// Creates the transformer.
    pub fn init(&self, device: &Device) -> SpatialTransformer {
        let c = self.channels;
        SpatialTransformer {
            norm: GroupNormConfig::new(self.groups, c, 1e-6).init(device),
            proj_in: LinearConfig::new(c, c).init(device),
            transformer_blocks: (0..self.depth).map(|_| BasicTransformerBlock::new(self, device)).collect(),
            proj_out: LinearConfig::new(c, c).with_zero_init(true).init(device),
        }
    }
}

impl SpatialTransformer {
    /// `x` `[b, c, h, w]`, `context` `[b, m, d]` -> `[b, c, h, w]`.
    ///
    /// Without a context all attention is self-attention, as in the reference (`d` has to be `c` then).
    pub fn forward(&self, x: Tensor<4>, context: Option<Context<'_>>) -> Tensor<4> {
        let tokens = self.proj_in.forward(to_tokens(self.norm.forward(x.clone())));
        let tokens = self.transformer_blocks.iter().fold(tokens, |t, block| block.forward(t, context));
        self.proj_out.forward_to_map(tokens, x)
    }
}

/// Self-attention, cross-attention and feed-forward, each behind a layer norm and a residual connection.
///
/// Source: paper, section 3.3 (table 16 has the feed-forward before the cross-attention); `BasicTransformerBlock` in the
/// reference's `attention.py`.
#[derive(Module, Debug)]
pub struct BasicTransformerBlock {
    /// Before the first attention.
    pub norm1: LayerNorm,
    /// Self-attention (attention to the context, where the config says so).
    pub attn1: CrossAttention,
    /// Before the cross-attention.
    pub norm2: LayerNorm,
    /// Cross-attention: Q from the feature map, K and V from the context.
    pub attn2: CrossAttention,
    /// Before the feed-forward layer.
    pub norm3: LayerNorm,
    /// Gated feed-forward layer.
    pub ff: FeedForward,
    #[module(skip)]
    only_cross_attention: bool,
}

impl BasicTransformerBlock {
    fn new(config: &SpatialTransformerConfig, device: &Device) -> Self {
        let c = config.channels;
        let norm = || LayerNormConfig::new(c).init(device);
        let attn = |d| CrossAttention::new(c, d, config.heads, config.upcast_attention, device);
        Self {
            norm1: norm(),
            attn1: attn(if config.only_cross_attention { config.context_dim } else { c }),
            norm2: norm(),
            attn2: attn(config.context_dim),
            norm3: norm(),
            ff: FeedForward::new(c, device),
            only_cross_attention: config.only_cross_attention,
        }
    }

    /// `x` `[b, n, c]`, `context` `[b, m, d]` -> `[b, n, c]`.
    pub fn forward(&self, x: Tensor<3>, context: Option<Context<'_>>) -> Tensor<3> {
        let first = context.filter(|_| self.only_cross_attention);
        let x = self.attn1.forward_add(self.norm1.forward(x.clone()), first, x);
        let x = self.attn2.forward_add(self.norm2.forward(x.clone()), context, x);
        self.ff.forward_add(self.norm3.forward(x.clone()), x)
    }

    /// The layers whose keys and values are the context's.
    pub(crate) fn reading_context(&self) -> impl Iterator<Item = &CrossAttention> {
        self.only_cross_attention.then_some(&self.attn1).into_iter().chain([&self.attn2])
    }
}

/// `softmax(Q K^T / sqrt(d)) V` with `Q = W_Q x`, `K = W_K source`, `V = W_V source`.
///
/// Source: paper, section 3.3; `CrossAttention` in the reference's `attention.py`.
#[derive(Module, Debug)]
pub struct CrossAttention {
    /// `W_Q`, without bias.
    pub to_q: Linear,
    /// `W_K`, without bias.
    pub to_k: Linear,
    /// `W_V`, without bias.
    pub to_v: Linear,
    /// Mixes the heads; with bias.
    pub to_out: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    upcast: bool,
}

impl CrossAttention {
    fn new(c: usize, d_source: usize, heads: usize, upcast: bool, device: &Device) -> Self {
        let project = |d| LinearConfig::new(d, c).with_bias(false).init(device);
        Self {
            to_q: project(c),
            to_k: project(d_source),
            to_v: project(d_source),
            to_out: LinearConfig::new(c, c).init(device),
            heads,
            upcast,
        }
    }

    /// `x` `[b, n, c]`, `source` `[b, m, d]` (`None`: `x` itself, self-attention) -> `[b, n, c]`.
    pub fn forward(&self, x: Tensor<3>, source: Option<Context<'_>>) -> Tensor<3> {
        self.to_out.forward(self.heads(x, source))
    }

    /// `addend + forward(x, source)`, the addend `[b, n, c]`.
    pub fn forward_add(&self, x: Tensor<3>, source: Option<Context<'_>>, addend: Tensor<3>) -> Tensor<3> {
        self.to_out.forward_add(self.heads(x, source), addend)
    }

    /// What the heads read, side by side: `[b, n, c]`.
    fn heads(&self, x: Tensor<3>, source: Option<Context<'_>>) -> Tensor<3> {
        let split = |x: Tensor<3>| split_heads(x, self.heads);
        let (q, KeysValues { k, v }) = match source {
            Some(context) => (split(self.to_q.forward(x)), context.keys_values(self)),
            None => {
                let [q, k, v] = Linear::forward_together([&self.to_q, &self.to_k, &self.to_v], x).map(split);
                (q, KeysValues { k, v })
            }
        };
        let options = AttentionOptions { upcast: self.upcast, ..Default::default() };
        merge_heads(attention(q, k, v, options))
    }

    /// Keys and values of `source` `[b, m, d]`.
    pub(crate) fn project(&self, source: Tensor<3>) -> KeysValues {
        let k = split_heads(self.to_k.forward(source.clone()), self.heads);
        let v = split_heads(self.to_v.forward(source), self.heads);
        KeysValues { k, v }
    }
}

/// A feed-forward layer gated by GELU: `proj_out(a * gelu(b))` with `[a, b] = proj_in x`.
///
/// Source: `FeedForward` and `GEGLU` in the reference's `attention.py`.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[c -> 8c]`: value and gate.
    pub proj_in: Linear,
    /// `[4c -> c]`.
    pub proj_out: Linear,
}

impl FeedForward {
    fn new(c: usize, device: &Device) -> Self {
        Self {
            proj_in: LinearConfig::new(c, 8 * c).init(device),
            proj_out: LinearConfig::new(4 * c, c).init(device),
        }
    }

    /// `[b, n, c] -> [b, n, c]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.proj_out.forward(self.proj_in.forward_geglu(x))
    }

    /// `addend + forward(x)`, the addend `[b, n, c]`.
    pub fn forward_add(&self, x: Tensor<3>, addend: Tensor<3>) -> Tensor<3> {
        self.proj_out.forward_add(self.proj_in.forward_geglu(x), addend)
    }
}

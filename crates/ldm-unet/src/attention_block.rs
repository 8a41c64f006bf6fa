//! Self-attention over the pixels of a feature map, without a context.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ldm_nn::{
    AttentionOptions, GroupNorm, GroupNormConfig, Linear, LinearConfig, attention, merge_heads, split_heads,
    to_tokens,
};

/// Describes an [`AttentionBlock`].
#[derive(Debug, Clone)]
pub struct AttentionBlockConfig {
    /// Channels of the feature map.
    pub channels: usize,
    /// Attention heads; they divide `channels`.
    pub heads: usize,
    /// Groups and eps of the norm; `None` for no norm.
    pub norm: Option<(usize, f64)>,
    /// Attention in f32 whatever the model's type.
    pub upcast_attention: bool,
    /// Divides the block's output.
    pub output_scale: f64,
}

/// `x + to_out(attention(norm x))` over the `h * w` pixels.
///
/// A CompVis checkpoint keeps query, key and value in one convolution `qkv` `[3c, c, 1]`; the key map takes
/// it apart. Source: `AttentionBlock` in the reference's `openaimodel.py`, `Attention` in diffusers.
#[derive(Module, Debug)]
pub struct AttentionBlock {
    /// Group norm.
    pub norm: Option<GroupNorm>,
    /// `[c -> c]`.
    pub to_q: Linear,
    /// `[c -> c]`.
    pub to_k: Linear,
    /// `[c -> c]`.
    pub to_v: Linear,
    /// `[c -> c]`, zero at first.
    pub to_out: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    upcast: bool,
    #[module(skip)]
    output_scale: f64,
}

impl AttentionBlockConfig {
    /// Creates the block.
    pub fn init(&self, device: &Device) -> AttentionBlock {
        let c = self.channels;
        let project = || LinearConfig::new(c, c).init(device);
        AttentionBlock {
            norm: self.norm.map(|(groups, eps)| GroupNormConfig::new(groups, c, eps).init(device)),
            to_q: project(),
            to_k: project(),
            to_v: project(),
            to_out: LinearConfig::new(c, c).with_zero_init(true).init(device),
            heads: self.heads,
            upcast: self.upcast_attention,
            output_scale: self.output_scale,
        }
    }
}

impl AttentionBlock {
    /// `[b, c, h, w] -> [b, c, h, w]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let normed = match &self.norm {
            Some(norm) => norm.forward(x.clone()),
            None => x.clone(),
        };
        let tokens = to_tokens(normed);
        let project = |linear: &Linear| split_heads(linear.forward(tokens.clone()), self.heads);
        let (q, k, v) = (project(&self.to_q), project(&self.to_k), project(&self.to_v));
        let options = AttentionOptions { upcast: self.upcast, ..Default::default() };
        let x = self.to_out.forward_to_map(merge_heads(attention(q, k, v, options)), x);
        if self.output_scale == 1.0 { x } else { x / self.output_scale }
    }
}

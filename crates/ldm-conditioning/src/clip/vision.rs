//! CLIP's image transformer (ViT), after `modeling_clip.py` of transformers.

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use ldm_nn::{
    Activation, Conv2d, Conv2dConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear,
    LinearConfig, Padding,
};
use serde::{Deserialize, Serialize};

use super::config::{ConfigError, read};
use super::encoder::ClipLayer;
use crate::depth::MOST_LAYERS;

/// An image encoder's `config.json`: the fields of transformers' `CLIPVisionConfig`, with its defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of the transformer.
    pub hidden_size: usize,
    /// Width inside each feed-forward block.
    pub intermediate_size: usize,
    /// Width of `image_embeds`.
    pub projection_dim: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads; they divide `hidden_size`.
    pub num_attention_heads: usize,
    /// Channels of the picture.
    pub num_channels: usize,
    /// Height and width of the picture.
    pub image_size: usize,
    /// Height and width of a patch.
    pub patch_size: usize,
    /// `quick_gelu` (OpenAI's models), `gelu` (OpenCLIP's) or `silu`.
    pub hidden_act: Activation,
    /// Added to the variance by every layer norm.
    pub layer_norm_eps: f64,
}

/// A picture that the encoder doesn't take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pixel_values: {got:?} channels, height and width; the image encoder takes {expected:?}")]
pub struct ClipVisionError {
    /// What the encoder takes.
    pub expected: [usize; 3],
    /// What was given.
    pub got: [usize; 3],
}

/// CLIP's image encoder with its projection: patches and a class token, pre-norm transformer, the class token
/// normed and projected.
#[derive(Module, Debug)]
pub struct ClipVisionEncoder {
    /// `[hidden_size]`: the token before the patches.
    pub class_embedding: Param<Tensor<1>>,
    /// `[num_channels -> hidden_size]`, a patch at a time, without bias.
    pub patch_embedding: Conv2d,
    /// `[1 + patches, hidden_size]`.
    pub position_embedding: Embedding,
    /// Before the transformer.
    pub pre_layernorm: LayerNorm,
    /// The transformer.
    pub layers: Vec<ClipLayer>,
    /// Over the class token.
    pub post_layernorm: LayerNorm,
    /// `[hidden_size -> projection_dim]`, without bias.
    pub visual_projection: Linear,
    #[module(skip)]
    config: ClipVisionConfig,
}

/// What [`ClipVisionEncoder::forward`] gives.
#[derive(Debug, Clone)]
pub struct VisionOutput {
    /// `[b, 1 + patches, hidden_size]`, without the last norm.
    pub last_hidden_state: Tensor<3>,
    /// `[b, hidden_size]`: the class token, normed.
    pub pooler_output: Tensor<2>,
    /// `[b, projection_dim]`: `pooler_output` projected.
    pub image_embeds: Tensor<2>,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl ClipVisionConfig {
    /// CLIP ViT-L/14, as the retrieval-augmented models use it.
    pub fn vit_l_14() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            projection_dim: 768,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            patch_size: 14,
            ..Self::default()
        }
    }

    /// Reads the text of a `config.json`; unknown fields are left alone.
    ///
    /// # Errors
    /// The text is no such JSON object, or [`validate`](Self::validate) finds a wrong field.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let config: Self = read(text)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks what the types can't say.
    ///
    /// # Errors
    /// The first wrong field, by name.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |field: &str, reason| Err(ConfigError::Field { field: field.into(), reason });
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("projection_dim", self.projection_dim),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_channels", self.num_channels),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
        ];
        // The bound keeps products of sizes far from overflow.
        if let Some((field, size)) = sizes.into_iter().find(|(_, size)| *size == 0 || *size > 1 << 20) {
            return wrong(field, format!("{size} is not between 1 and {}", 1 << 20));
        }
        if self.num_hidden_layers > MOST_LAYERS {
            let reason = format!("{} is not between 1 and {MOST_LAYERS}", self.num_hidden_layers);
            return wrong("num_hidden_layers", reason);
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let heads = self.num_attention_heads;
            return wrong(
                "num_attention_heads",
                format!("{heads} does not divide hidden_size {}", self.hidden_size),
            );
        }
        if self.patch_size > self.image_size {
            let reason = format!("{} is more than image_size {}", self.patch_size, self.image_size);
            return wrong("patch_size", reason);
        }
        if !(self.layer_norm_eps >= 0.0 && self.layer_norm_eps.is_finite()) {
            return wrong("layer_norm_eps", format!("{} is no small number", self.layer_norm_eps));
        }
        Ok(())
    }

    /// Creates the encoder; parameters are made lazily.
    ///
    /// # Errors
    /// The config's first wrong field, see [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<ClipVisionEncoder, ConfigError> {
        self.validate()?;
        let d = self.hidden_size;
        let patches = (self.image_size / self.patch_size).pow(2);
        let norm = || LayerNormConfig::new(d).with_eps(self.layer_norm_eps).init(device);
        let patch = Conv2dConfig::new([self.num_channels, d], self.patch_size)
            .with_stride(self.patch_size)
            .with_padding(Padding::all(0))
            .with_bias(false);
        let sizes = (d, self.intermediate_size, self.num_attention_heads);
        let layer = |_| ClipLayer::new(sizes, self.layer_norm_eps, self.hidden_act, device);
        Ok(ClipVisionEncoder {
            class_embedding: Initializer::Normal { mean: 0.0, std: (d as f64).powf(-0.5) }.init([d], device),
            patch_embedding: patch.init(device),
            position_embedding: EmbeddingConfig::new(patches + 1, d).with_std(0.02).init(device),
            pre_layernorm: norm(),
            layers: (0..self.num_hidden_layers).map(layer).collect(),
            post_layernorm: norm(),
            visual_projection: LinearConfig::new(d, self.projection_dim).with_bias(false).init(device),
            config: self.clone(),
        })
    }
}

impl ClipVisionEncoder {
    /// Normalised pictures `[b, num_channels, image_size, image_size]`.
    ///
    /// # Errors
    /// [`ClipVisionError`] for pictures of another size.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Result<VisionOutput, ClipVisionError> {
        let [b, c, h, w] = pixel_values.dims();
        let side = self.config.image_size;
        let (expected, got) = ([self.config.num_channels, side, side], [c, h, w]);
        if expected != got {
            return Err(ClipVisionError { expected, got });
        }
        let dtype = self.patch_embedding.weight.val().dtype();
        let patches = self.patch_embedding.forward(pixel_values.cast(dtype));
        let [_, d, rows, columns] = patches.dims();
        let patches = patches.reshape([b, d, rows * columns]).swap_dims(1, 2);
        let class = self.class_embedding.val().reshape([1, 1, d]).expand([b, 1, d]);
        let positions = self.position_embedding.weight.val().unsqueeze();
        let x = self.pre_layernorm.forward(Tensor::cat(vec![class, patches], 1) + positions);
        let last_hidden_state = self.layers.iter().fold(x, |x, layer| layer.forward(x, None));
        let class = last_hidden_state.clone().narrow(1, 0, 1).reshape([b, d]);
        let pooler_output = self.post_layernorm.forward(class);
        let image_embeds = self.visual_projection.forward(pooler_output.clone());
        Ok(VisionOutput { last_hidden_state, pooler_output, image_embeds })
    }

    /// What the encoder was made from.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }
}

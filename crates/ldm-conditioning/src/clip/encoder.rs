//! CLIP's text transformer, and the layers that its image transformer shares, after `modeling_clip.py` of transformers.

use burn::module::Module;
use burn::tensor::{Bool, DType, Device, Int, Tensor};
use ldm_nn::{
    Activation, AttentionOptions, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear,
    LinearConfig, attention, merge_heads, split_heads,
};

use super::config::{ClipTextConfig, ConfigError};

/// The id that published configs give as `eos_token_id` although no tokenizer emits it.
const LEGACY_EOS: u32 = 2;

/// CLIP's text encoder: token and position embedding, causal pre-norm transformer, final norm, and a
/// projection where the config's architecture is `CLIPTextModelWithProjection`.
#[derive(Module, Debug)]
pub struct ClipTextEncoder {
    /// `[vocab_size, hidden_size]`.
    pub token_embedding: Embedding,
    /// `[max_position_embeddings, hidden_size]`.
    pub position_embedding: Embedding,
    /// The transformer.
    pub layers: Vec<ClipLayer>,
    /// Over the last layer's output.
    pub final_layer_norm: LayerNorm,
    /// From the pooled state to `text_embeds`, without bias.
    pub text_projection: Option<Linear>,
    #[module(skip)]
    config: ClipTextConfig,
}

/// One transformer layer: `x + attn(norm1 x)`, then `x + mlp(norm2 x)`.
#[derive(Module, Debug)]
pub struct ClipLayer {
    /// Before attention.
    pub layer_norm1: LayerNorm,
    /// Self-attention, causal for texts.
    pub self_attn: ClipAttention,
    /// Before the feed-forward block.
    pub layer_norm2: LayerNorm,
    /// The feed-forward block.
    pub mlp: ClipMlp,
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
pub struct ClipAttention {
    /// Queries.
    pub q_proj: Linear,
    /// Keys.
    pub k_proj: Linear,
    /// Values.
    pub v_proj: Linear,
    /// Output.
    pub out_proj: Linear,
    #[module(skip)]
    heads: usize,
}

/// `fc2(act(fc1 x))`.
#[derive(Module, Debug)]
pub struct ClipMlp {
    /// To `intermediate_size`.
    pub fc1: Linear,
    /// Back to `hidden_size`.
    pub fc2: Linear,
    #[module(skip)]
    act: Activation,
}

/// Which hidden state becomes the denoiser's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiddenState {
    /// How many layers at the end are left out ("clip skip"); 0 is the last layer's output.
    pub skip: usize,
    /// Whether the final norm is applied.
    pub final_norm: bool,
}

impl HiddenState {
    /// The last layer through the final norm: Stable Diffusion 1, and 2 as diffusers keeps it (23 layers).
    pub const LAST: Self = Self { skip: 0, final_norm: true };
    /// The last layer but one, without the final norm: SDXL, both encoders.
    pub const PENULTIMATE: Self = Self { skip: 1, final_norm: false };
    /// The last layer but one through the final norm: `layer: penultimate` of Stable Diffusion 2's YAML,
    /// where all 24 layers are loaded.
    pub const PENULTIMATE_NORMED: Self = Self { skip: 1, final_norm: true };
}

/// What [`ClipTextEncoder::forward`] gives.
#[derive(Debug, Clone)]
pub struct TextOutput {
    /// The embedding's output, then every layer's, each `[b, n, hidden_size]`, without the final norm.
    pub hidden_states: Vec<Tensor<3>>,
    /// `[b, n, hidden_size]`, after the final norm.
    pub last_hidden_state: Tensor<3>,
    /// `[b, hidden_size]`: `last_hidden_state` at the end-of-text token.
    pub pooler_output: Tensor<2>,
    /// `[b, projection_dim]`: `pooler_output` projected, where the encoder has a projection.
    pub text_embeds: Option<Tensor<2>>,
}

impl TextOutput {
    /// The output of the last layer but one, without the final norm (`hidden_states[-2]`).
    pub fn penultimate(&self) -> Tensor<3> {
        // There is always the embedding's output and that of at least one layer.
        self.hidden_states[self.hidden_states.len() - 2].clone()
    }
}

/// Why an encoder refuses its input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClipTextError {
    /// An id outside the vocabulary.
    #[error("input_ids: {id} in row {row} is outside the vocabulary of {vocab_size}")]
    IdOutOfVocabulary {
        /// The id.
        id: i64,
        /// Its row.
        row: usize,
        /// Ids lie below this.
        vocab_size: usize,
    },
    /// A sequence that is empty or longer than there are position embeddings.
    #[error("input_ids: sequences of {length} tokens, the encoder takes 1 to {max}")]
    Length {
        /// The sequence's length.
        length: usize,
        /// `max_position_embeddings`.
        max: usize,
    },
    /// A batch without rows.
    #[error("input_ids: an empty batch")]
    EmptyBatch,
    /// More layers to leave out than there are.
    #[error("clip skip {skip}, the text encoder has {layers} layers")]
    Skip {
        /// Layers to leave out.
        skip: usize,
        /// Layers there are.
        layers: usize,
    },
}

impl ClipTextConfig {
    /// Creates the encoder; parameters are made lazily.
    ///
    /// # Errors
    /// The config's first wrong field, see [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<ClipTextEncoder, ConfigError> {
        self.validate()?;
        let d = self.hidden_size;
        let norm = || LayerNormConfig::new(d).with_eps(self.layer_norm_eps).init(device);
        let sizes = (d, self.intermediate_size, self.num_attention_heads);
        let layer = |_| ClipLayer::new(sizes, self.layer_norm_eps, self.hidden_act, device);
        let projection = || LinearConfig::new(d, self.projection_dim).with_bias(false).init(device);
        Ok(ClipTextEncoder {
            token_embedding: EmbeddingConfig::new(self.vocab_size, d).init(device),
            position_embedding: EmbeddingConfig::new(self.max_position_embeddings, d).init(device),
            layers: (0..self.num_hidden_layers).map(layer).collect(),
            final_layer_norm: norm(),
            text_projection: self.has_projection().then(projection),
            config: self.clone(),
        })
    }
}

impl ClipTextEncoder {
    /// Runs all layers; `input_ids` is `[b, n]`.
    ///
    /// # Errors
    /// An empty batch, a sequence that is empty or too long, or an id outside the vocabulary.
    pub fn forward(&self, input_ids: Tensor<2, Int>) -> Result<TextOutput, ClipTextError> {
        let rows = self.rows(&input_ids)?;
        let (b, n) = (rows.len(), input_ids.dims()[1]);
        let mask = causal_mask(n, &input_ids.device());
        let mut hidden_states = vec![self.embed(input_ids)];
        for layer in &self.layers {
            let x = hidden_states[hidden_states.len() - 1].clone();
            hidden_states.push(layer.forward(x, Some(&mask)));
        }
        let x = hidden_states[hidden_states.len() - 1].clone();
        let last_hidden_state = self.final_layer_norm.forward(x);
        let ends: Vec<i32> =
            rows.iter().enumerate().map(|(i, row)| (i * n + self.end_of_text(row)) as i32).collect();
        let ends = Tensor::from_data(ends.as_slice(), &last_hidden_state.device());
        let d = last_hidden_state.dims()[2];
        let pooler_output = last_hidden_state.clone().reshape([b * n, d]).select(0, ends);
        let text_embeds = self.text_projection.as_ref().map(|proj| proj.forward(pooler_output.clone()));
        Ok(TextOutput { hidden_states, last_hidden_state, pooler_output, text_embeds })
    }

    /// Runs only the layers up to one hidden state: `[b, n] -> [b, n, hidden_size]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and more layers to skip than there are.
    pub fn hidden_state(
        &self,
        input_ids: Tensor<2, Int>,
        state: HiddenState,
    ) -> Result<Tensor<3>, ClipTextError> {
        self.rows(&input_ids)?;
        let run = self.layers_up_to(state)?;
        let mask = causal_mask(input_ids.dims()[1], &input_ids.device());
        let x = self.embed(input_ids);
        let x = self.layers[..run].iter().fold(x, |x, layer| layer.forward(x, Some(&mask)));
        Ok(if state.final_norm { self.final_layer_norm.forward(x) } else { x })
    }

    /// One hidden state of a whole run, `[b, n, hidden_size]`.
    ///
    /// # Errors
    /// More layers to skip than there are.
    pub fn select(&self, output: &TextOutput, state: HiddenState) -> Result<Tensor<3>, ClipTextError> {
        let index = self.layers_up_to(state)?;
        let x = output.hidden_states[index].clone();
        Ok(if state.final_norm { self.final_layer_norm.forward(x) } else { x })
    }

    /// What the encoder was made from.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// The device that holds the encoder.
    pub fn device(&self) -> Device {
        self.token_embedding.weight.lazy_device()
    }

    /// The longest sequence that the encoder takes.
    pub fn max_length(&self) -> usize {
        self.position_embedding.len()
    }

    fn layers_up_to(&self, state: HiddenState) -> Result<usize, ClipTextError> {
        let (skip, layers) = (state.skip, self.layers.len());
        layers.checked_sub(skip).ok_or(ClipTextError::Skip { skip, layers })
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        let n = input_ids.dims()[1];
        let positions = self.position_embedding.weight.val().narrow(0, 0, n).unsqueeze();
        self.token_embedding.forward(input_ids) + positions
    }

    /// The checked ids on the host, where the end-of-text token is looked for too.
    fn rows(&self, input_ids: &Tensor<2, Int>) -> Result<Vec<Vec<i64>>, ClipTextError> {
        let [b, n] = input_ids.dims();
        let (vocab_size, max) = (self.token_embedding.len(), self.max_length());
        if b == 0 {
            return Err(ClipTextError::EmptyBatch);
        }
        if n == 0 || n > max {
            return Err(ClipTextError::Length { length: n, max });
        }
        let ids: Vec<i64> = input_ids.to_data().iter::<i64>().collect();
        let wrong = ids.iter().position(|id| usize::try_from(*id).map_or(true, |id| id >= vocab_size));
        match wrong {
            Some(i) => Err(ClipTextError::IdOutOfVocabulary { id: ids[i], row: i / n, vocab_size }),
            None => Ok(ids.chunks(n).map(<[i64]>::to_vec).collect()),
        }
    }

    /// The position at which a row is pooled; 0 where it has no end of text, as the reference's argmax.
    fn end_of_text(&self, row: &[i64]) -> usize {
        let end = match self.config.eos_token_id {
            LEGACY_EOS => row.iter().copied().max(),
            eos => Some(eos.into()),
        };
        row.iter().position(|id| Some(*id) == end).unwrap_or(0)
    }
}

impl ClipLayer {
    /// `sizes`: width, width inside the feed-forward block, heads.
    pub(super) fn new(sizes: (usize, usize, usize), eps: f64, act: Activation, device: &Device) -> Self {
        let (d, inner, heads) = sizes;
        let norm = || LayerNormConfig::new(d).with_eps(eps).init(device);
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        Self {
            layer_norm1: norm(),
            self_attn: ClipAttention {
                q_proj: linear(d, d),
                k_proj: linear(d, d),
                v_proj: linear(d, d),
                out_proj: linear(d, d),
                heads,
            },
            layer_norm2: norm(),
            mlp: ClipMlp { fc1: linear(d, inner), fc2: linear(inner, d), act },
        }
    }

    /// `[b, n, d] -> [b, n, d]`; `mask` `[1, 1, n, n]` hides where true.
    pub(super) fn forward(&self, x: Tensor<3>, mask: Option<&Tensor<4, Bool>>) -> Tensor<3> {
        let h = self.self_attn.forward(self.layer_norm1.forward(x.clone()), mask);
        let x = x + h;
        let h = self.mlp.forward(self.layer_norm2.forward(x.clone()));
        x + h
    }
}

impl ClipAttention {
    fn forward(&self, x: Tensor<3>, mask: Option<&Tensor<4, Bool>>) -> Tensor<3> {
        let heads = |proj: &Linear| split_heads(proj.forward(x.clone()), self.heads);
        let (q, k, v) = (heads(&self.q_proj), heads(&self.k_proj), heads(&self.v_proj));
        // Scores of half-precision queries and keys overflow before they are scaled.
        let upcast = matches!(x.dtype(), DType::F16 | DType::BF16);
        let options = AttentionOptions { mask: mask.cloned(), upcast };
        self.out_proj.forward(merge_heads(attention(q, k, v, options)))
    }
}

impl ClipMlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(self.act.forward(self.fc1.forward(x)))
    }
}

/// `[1, 1, n, n]`, true where a query would see a later key.
fn causal_mask(n: usize, device: &Device) -> Tensor<4, Bool> {
    Tensor::<2, Bool>::tril_mask([n, n], 0, device).unsqueeze()
}

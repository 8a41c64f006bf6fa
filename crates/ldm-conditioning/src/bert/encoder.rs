//! The transformer encoder of the paper's text and layout models, after the reference's `x_transformer.py`.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData};
use ldm_nn::{
    Activation, AttentionOptions, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear,
    LinearConfig, attention, merge_heads, split_heads,
};

use super::{BertConfigError, BertEmbedderConfig, BertTokenizer};
use crate::ConditioningError;

/// Deviation of fresh embeddings.
const INIT_STD: f64 = 0.02;

/// Tokens to context: embeddings, pre-norm self-attention over all tokens, pads included, and a final norm.
///
/// Source: paper, appendix E.2.1 and table 17; `BERTEmbedder` in the reference's `encoders/modules.py`,
/// `LDMBertModel` in diffusers.
#[derive(Module, Debug)]
pub struct BertEmbedder {
    /// `[vocab_size, n_embed]`.
    pub token_emb: Embedding,
    /// `[max_seq_len, n_embed]`.
    pub pos_emb: Embedding,
    /// The transformer.
    pub layers: Vec<BertLayer>,
    /// Over the last layer's output.
    pub norm: LayerNorm,
    #[module(skip)]
    tokenizer: Option<Arc<BertTokenizer>>,
    #[module(skip)]
    config: BertEmbedderConfig,
}

/// One transformer layer: `x + attn(attn_norm x)`, then `x + ff(ff_norm x)`.
#[derive(Module, Debug)]
pub struct BertLayer {
    /// Before attention.
    pub attn_norm: LayerNorm,
    /// Self-attention without a mask.
    pub attn: BertAttention,
    /// Before the feed-forward block.
    pub ff_norm: LayerNorm,
    /// The feed-forward block.
    pub ff: BertFeedForward,
}

/// Multi-head self-attention whose heads have a width of their own.
#[derive(Module, Debug)]
pub struct BertAttention {
    /// `[n_embed -> heads * dim_head]`, without bias.
    pub to_q: Linear,
    /// `[n_embed -> heads * dim_head]`, without bias.
    pub to_k: Linear,
    /// `[n_embed -> heads * dim_head]`, without bias.
    pub to_v: Linear,
    /// `[heads * dim_head -> n_embed]`.
    pub to_out: Linear,
    #[module(skip)]
    heads: usize,
}

/// `fc2(gelu(fc1 x))`, four times as wide inside.
#[derive(Module, Debug)]
pub struct BertFeedForward {
    /// `[n_embed -> 4 n_embed]`.
    pub fc1: Linear,
    /// `[4 n_embed -> n_embed]`.
    pub fc2: Linear,
}

/// Why the transformer refuses its tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BertError {
    /// An id outside the vocabulary.
    #[error("tokens: {id} of item {item} is outside the vocabulary of {vocab_size}")]
    IdOutOfVocabulary {
        /// The id.
        id: i64,
        /// Its item of the batch.
        item: usize,
        /// Ids lie below this.
        vocab_size: usize,
    },
    /// A sequence that is empty or longer than there are positions.
    #[error("tokens: sequences of {length}, the transformer takes 1 to {max}")]
    Length {
        /// The sequence's length.
        length: usize,
        /// `max_seq_len`.
        max: usize,
    },
    /// A batch without items.
    #[error("tokens: an empty batch")]
    EmptyBatch,
    /// A tokenizer whose ids or lengths the transformer has no rows for.
    #[error("the tokenizer has {what} {got}, the transformer {max}")]
    Tokenizer {
        /// What doesn't fit.
        what: &'static str,
        /// The tokenizer's.
        got: usize,
        /// The transformer's rows.
        max: usize,
    },
    /// Texts for a transformer that has no tokenizer.
    #[error("texts need a tokenizer, and this transformer has none (`use_tokenizer`, or another vocabulary)")]
    NoTokenizer,
}

impl BertEmbedderConfig {
    /// Creates the encoder; parameters are made lazily, drawn as the reference draws them.
    ///
    /// # Errors
    /// The config's first wrong key, see [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<BertEmbedder, BertConfigError> {
        self.validate()?;
        let (d, inner) = (self.n_embed, self.heads * self.dim_head);
        let norm = || LayerNormConfig::new(d).init(device);
        let project = || LinearConfig::new(d, inner).with_bias(false).init(device);
        let embedding = |rows| EmbeddingConfig::new(rows, d).with_std(INIT_STD).init(device);
        let layer = |_| BertLayer {
            attn_norm: norm(),
            attn: BertAttention {
                to_q: project(),
                to_k: project(),
                to_v: project(),
                to_out: LinearConfig::new(inner, d).init(device),
                heads: self.heads,
            },
            ff_norm: norm(),
            ff: BertFeedForward {
                fc1: LinearConfig::new(d, 4 * d).init(device),
                fc2: LinearConfig::new(4 * d, d).init(device),
            },
        };
        Ok(BertEmbedder {
            token_emb: embedding(self.vocab_size),
            pos_emb: embedding(self.max_seq_len),
            layers: (0..self.n_layer).map(layer).collect(),
            norm: norm(),
            tokenizer: None,
            config: self.clone(),
        })
    }
}

impl BertEmbedder {
    /// `tokens` `[b, m]` -> context `[b, m, n_embed]`.
    ///
    /// # Errors
    /// [`BertError`]: an empty batch, a sequence that is empty or too long, an id outside the vocabulary.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Result<Tensor<3>, BertError> {
        self.check(&tokens)?;
        let m = tokens.dims()[1];
        let positions = self.pos_emb.weight.val().narrow(0, 0, m).unsqueeze();
        let x = self.dropped(self.token_emb.forward(tokens) + positions);
        Ok(self.norm.forward(self.layers.iter().fold(x, |x, layer| layer.forward(x))))
    }

    /// Adds what turns texts into ids.
    ///
    /// # Errors
    /// [`BertError::Tokenizer`] where the vocabulary or the length of the tokenizer is beyond the embeddings.
    pub fn with_tokenizer(mut self, tokenizer: Arc<BertTokenizer>) -> Result<Self, BertError> {
        let sizes = [
            ("a vocabulary of", tokenizer.vocab_size(), self.token_emb.len()),
            ("a length of", tokenizer.max_length(), self.pos_emb.len()),
        ];
        if let Some((what, got, max)) = sizes.into_iter().find(|(_, got, max)| got > max) {
            return Err(BertError::Tokenizer { what, got, max });
        }
        self.tokenizer = Some(tokenizer);
        Ok(self)
    }

    /// What turns texts into ids, where there is one.
    pub fn tokenizer(&self) -> Option<&BertTokenizer> {
        self.tokenizer.as_deref()
    }

    /// The texts' ids `[b, m]`, padded to the tokenizer's length.
    ///
    /// # Errors
    /// [`BertError::NoTokenizer`] and [`BertError::EmptyBatch`]; those of the tokenizer.
    pub fn tokens<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tensor<2, Int>, ConditioningError> {
        let tokenizer = self.tokenizer.as_ref().ok_or(BertError::NoTokenizer)?;
        if texts.is_empty() {
            return Err(BertError::EmptyBatch.into());
        }
        let mut ids = Vec::with_capacity(texts.len() * tokenizer.max_length());
        for text in texts {
            ids.extend(tokenizer.encode(text.as_ref())?.into_iter().map(i64::from));
        }
        let shape = [texts.len(), tokenizer.max_length()];
        Ok(Tensor::from_data(TensorData::new(ids, shape), &self.token_emb.weight.val().device()))
    }

    /// What the encoder was made from.
    pub fn config(&self) -> &BertEmbedderConfig {
        &self.config
    }

    /// The device that holds the encoder.
    pub fn device(&self) -> Device {
        self.token_emb.weight.lazy_device()
    }

    fn dropped(&self, x: Tensor<3>) -> Tensor<3> {
        let keep = 1.0 - self.config.embedding_dropout;
        if keep == 1.0 || !x.device().is_autodiff() {
            return x;
        }
        let mask = x.random_like(Distribution::Bernoulli(keep));
        x * mask / keep
    }

    fn check(&self, tokens: &Tensor<2, Int>) -> Result<(), BertError> {
        let [b, length] = tokens.dims();
        let (vocab_size, max) = (self.token_emb.len(), self.pos_emb.len());
        if b == 0 {
            return Err(BertError::EmptyBatch);
        }
        if length == 0 || length > max {
            return Err(BertError::Length { length, max });
        }
        let outside = |id: &i64| usize::try_from(*id).map_or(true, |id| id >= vocab_size);
        match tokens.to_data().iter::<i64>().enumerate().find(|(_, id)| outside(id)) {
            Some((i, id)) => Err(BertError::IdOutOfVocabulary { id, item: i / length, vocab_size }),
            None => Ok(()),
        }
    }
}

impl BertLayer {
    /// `[b, m, n_embed] -> [b, m, n_embed]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.attn_norm.forward(x));
        x.clone() + self.ff.forward(self.ff_norm.forward(x))
    }
}

impl BertAttention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let heads = |proj: &Linear| split_heads(proj.forward(x.clone()), self.heads);
        let (q, k, v) = (heads(&self.to_q), heads(&self.to_k), heads(&self.to_v));
        // Scores of half-precision queries and keys overflow before they are scaled.
        let upcast = matches!(x.dtype(), DType::F16 | DType::BF16);
        self.to_out.forward(merge_heads(attention(q, k, v, AttentionOptions { mask: None, upcast })))
    }
}

impl BertFeedForward {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(Activation::Gelu.forward(self.fc1.forward(x)))
    }
}

//! tau_theta as one module, whatever the condition: what a trainer holds beside the U-Net.

mod config;
mod keys;

use burn::module::Module;
use ldm_nn::Conditioning;

use crate::bert::BertEmbedder;
use crate::clip::{ClipImageEmbedder, ClipText, ClipTextEmbedder};
use crate::{ClassEmbedder, Condition, Conditioner, ConditioningError, SpatialRescaler};

pub use config::{CondStageConfig, CondStageConfigError};
pub use keys::CondStageKeys;

/// The encoder tau_theta: one of the paper's, trained with the U-Net or frozen.
///
/// What has a sequence becomes the context, what has a height and width the channels beside the latent's.
/// Source: paper, section 3.3; `cond_stage_model` in the reference's `ddpm.py`.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // One a model.
pub enum CondStage {
    /// Conditions that need no encoder: latents and pictures as channels, vectors as a context, classes for
    /// the U-Net's own table.
    Identity(Identity),
    /// Classes as a context of one token.
    ClassEmbedder(ClassEmbedder),
    /// Texts, or tokens of layouts.
    BertEmbedder(BertEmbedder),
    /// Maps.
    SpatialRescaler(SpatialRescaler),
    /// Texts through CLIP's text transformer, token by token.
    ClipText(ClipText),
    /// Texts as one projected CLIP embedding.
    ClipTextEmbedder(ClipTextEmbedder),
    /// Pictures as one projected CLIP embedding.
    ClipImageEmbedder(ClipImageEmbedder),
    /// Two encoders, one for each of two conditions.
    Hybrid(Hybrid),
}

/// Does nothing to a condition: `torch.nn.Identity` in the YAML files.
#[derive(Module, Debug, Default)]
pub struct Identity;

/// Two encoders side by side (the reference's `hybrid`: channels and context).
#[derive(Module, Debug)]
pub struct Hybrid {
    /// In the order of the two conditions.
    pub stages: Vec<CondStage>,
}

impl CondStage {
    /// No encoder.
    pub fn identity() -> Self {
        Self::Identity(Identity)
    }

    /// Two encoders, for the first and the second of [`Condition::Both`].
    pub fn hybrid(first: Self, second: Self) -> Self {
        Self::Hybrid(Hybrid { stages: vec![first, second] })
    }

    /// The encoder's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Identity(_) => "Identity",
            Self::ClassEmbedder(_) => "ClassEmbedder",
            Self::BertEmbedder(_) => "BERTEmbedder",
            Self::SpatialRescaler(_) => "SpatialRescaler",
            Self::ClipText(_) => "CLIP's text transformer",
            Self::ClipTextEmbedder(_) => "FrozenCLIPTextEmbedder",
            Self::ClipImageEmbedder(_) => "FrozenClipImageEmbedder",
            Self::Hybrid(_) => "two encoders",
        }
    }

    /// Encodes a batch.
    ///
    /// # Errors
    /// [`ConditioningError::Kind`] for a condition of another kind than the encoder's, and the encoder's own:
    /// a class or token out of range, a map of the wrong size or number of channels.
    pub fn encode(&self, condition: &Condition) -> Result<Conditioning, ConditioningError> {
        Ok(match (self, condition) {
            (Self::Identity(_), condition) => unencoded(condition)?,
            (Self::ClassEmbedder(stage), Condition::Classes(classes)) => {
                Conditioning::context(stage.forward(not_empty(classes)?)?)
            }
            (Self::BertEmbedder(stage), Condition::Text(texts)) => {
                Conditioning::context(stage.forward(stage.tokens(texts)?)?)
            }
            (Self::BertEmbedder(stage), Condition::Tokens(tokens)) => {
                let device = stage.token_emb.weight.val().device();
                Conditioning::context(stage.forward(tokens.clone().to_device(&device))?)
            }
            (Self::SpatialRescaler(stage), Condition::Image(map)) => {
                Conditioning::concat(stage.forward(map.clone())?)
            }
            (Self::ClipText(stage), Condition::Text(texts)) => stage.encode(&texts[..])?,
            (Self::ClipTextEmbedder(stage), Condition::Text(texts)) => {
                Conditioning::context(stage.context(texts)?)
            }
            (Self::ClipImageEmbedder(stage), Condition::Image(images)) => {
                Conditioning::context(stage.embed(images.clone())?.unsqueeze_dim::<3>(1))
            }
            (Self::Hybrid(Hybrid { stages }), Condition::Both(first, second)) => match &stages[..] {
                [a, b] => a.encode(first)?.merge(b.encode(second)?)?,
                _ => return Err(self.refuses(condition)),
            },
            _ => return Err(self.refuses(condition)),
        })
    }

    fn refuses(&self, condition: &Condition) -> ConditioningError {
        ConditioningError::Kind { stage: self.name(), condition: condition.kind() }
    }
}

impl Conditioner<Condition> for CondStage {
    fn encode(&self, y: &Condition) -> Result<Conditioning, ConditioningError> {
        self.encode(y)
    }
}

/// Each kind of condition in the place where the U-Net takes it.
fn unencoded(condition: &Condition) -> Result<Conditioning, ConditioningError> {
    Ok(match condition {
        Condition::None => Conditioning::none(),
        Condition::Classes(classes) => Conditioning::class_labels(not_empty(classes)?),
        Condition::Image(x) | Condition::Latent(x) => Conditioning::concat(x.clone()),
        Condition::Context(x) => Conditioning::context(x.clone()),
        Condition::Vector(x) => Conditioning::none().with_y(x.clone()),
        Condition::Both(first, second) => unencoded(first)?.merge(unencoded(second)?)?,
        Condition::Text(_) | Condition::Tokens(_) => {
            return Err(ConditioningError::Kind { stage: "Identity", condition: condition.kind() });
        }
    })
}

fn not_empty<T>(items: &[T]) -> Result<&[T], ConditioningError> {
    if items.is_empty() { Err(ConditioningError::EmptyBatch) } else { Ok(items) }
}

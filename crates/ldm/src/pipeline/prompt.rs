//! Prompts in, conditioning out: pieces that work without the rest of a pipeline.

use burn::tensor::Tensor;
use ldm_conditioning::bert::BertEmbedder;
use ldm_conditioning::clip::ClipText;
use ldm_conditioning::{Conditioner, Conditioning, ConditioningError, ConditioningMismatch};

use crate::Error;

/// An encoder of prompts.
#[derive(Debug, Clone)]
pub enum TextEncoder {
    /// CLIP ViT-L/14 (SD 1 and XL) or OpenCLIP ViT-H/14 (SD 2).
    Clip(Box<ClipText>),
    /// The paper's transformer over WordPiece tokens.
    Bert(Box<BertEmbedder>),
}

impl TextEncoder {
    /// The encoder if it is CLIP's.
    pub fn clip(&self) -> Option<&ClipText> {
        match self {
            Self::Clip(clip) => Some(clip),
            Self::Bert(_) => None,
        }
    }

    /// The prompts' context `[b, m, d]`, and what else the encoder gives.
    ///
    /// # Errors
    /// Those of the tokenizer and the encoder.
    pub fn encode(&self, prompts: &[String]) -> Result<Conditioning, ConditioningError> {
        match self {
            Self::Clip(clip) => clip.encode(prompts),
            Self::Bert(bert) => Ok(Conditioning::context(bert.forward(bert.tokens(prompts)?)?)),
        }
    }
}

/// The text side of a text-to-image model: one encoder, or SDXL's two.
#[derive(Debug, Clone)]
pub struct TextStage {
    /// The encoder; SDXL's first.
    pub first: TextEncoder,
    /// OpenCLIP ViT-bigG/14 (XL); its pooled vector goes with the context.
    pub second: Option<ClipText>,
    /// A negative prompt that was not given is all zeros instead of the encoded empty prompt
    /// (`force_zeros_for_empty_prompt`).
    pub zeros_for_no_negative: bool,
}

/// The conditioning of a guided run, an item a picture.
#[derive(Debug, Clone)]
pub struct PromptConditioning {
    /// Of the prompts.
    pub positive: Conditioning,
    /// Of the negative prompts; `None` where the run is not guided.
    pub negative: Option<Conditioning>,
}

impl TextStage {
    /// The prompts' context `[b, m, d]`; with two encoders their contexts side by side, and the second's
    /// pooled vector.
    ///
    /// # Errors
    /// [`Error::Conditioning`] where a tokenizer or encoder fails, or the two give contexts of different lengths.
    pub fn encode(&self, prompts: &[String]) -> Result<Conditioning, Error> {
        let first = self.first.encode(prompts)?;
        let Some(second) = &self.second else {
            return Ok(Conditioning::context(context(first)?));
        };
        let second = second.encode(prompts)?;
        let text_embeds = second.text_embeds.clone();
        let context = side_by_side(context(first)?, context(second)?)?;
        Ok(Conditioning { text_embeds, ..Conditioning::context(context) })
    }

    /// Both sides of a guided run; `negative: None` means that none was given.
    ///
    /// # Errors
    /// [`Error::Argument`] unless there are as many negative prompts as prompts, or one for all.
    pub fn encode_guided(
        &self,
        prompts: &[String],
        negative: Option<&[String]>,
        guided: bool,
    ) -> Result<PromptConditioning, Error> {
        let positive = self.encode(prompts)?;
        if !guided {
            return Ok(PromptConditioning { positive, negative: None });
        }
        let negative = match negative {
            None if self.zeros_for_no_negative => positive.zeros_like(),
            None => self.encode(&vec![String::new(); prompts.len()])?,
            Some([one]) => self.encode(&vec![one.clone(); prompts.len()])?,
            Some(all) if all.len() == prompts.len() => self.encode(all)?,
            Some(all) => {
                let reason = format!("{} for {} prompts", all.len(), prompts.len());
                return Err(Error::argument("negative_prompt", reason));
            }
        };
        Ok(PromptConditioning { positive, negative: Some(negative) })
    }
}

impl PromptConditioning {
    /// `count` pictures a prompt: every item `count` times, side by side.
    ///
    /// # Errors
    /// [`Error::Conditioning`] where the parts are not of one batch.
    pub fn repeat(self, count: usize) -> Result<Self, Error> {
        let each = |c: Conditioning| c.repeat_items(count).map_err(ConditioningError::from);
        Ok(Self { positive: each(self.positive)?, negative: self.negative.map(each).transpose()? })
    }

    /// Negative before positive along the batch, as one call of the U-Net takes them.
    pub(crate) fn joined(self) -> Result<Conditioning, Error> {
        let Some(negative) = self.negative else { return Ok(self.positive) };
        Ok(Conditioning::cat(&[negative, self.positive]).map_err(ConditioningError::from)?)
    }
}

/// Two contexts of as many tokens (`model_max_length` of their tokenizers) as one.
fn side_by_side(first: Tensor<3>, second: Tensor<3>) -> Result<Tensor<3>, Error> {
    let ([_, m, _], [_, other, _]) = (first.dims(), second.dims());
    if m != other {
        let [expected, got] = [&first, &second].map(|context| context.dims()[1..].to_vec());
        let mismatch = ConditioningMismatch::Shape { part: "context", expected, got };
        return Err(ConditioningError::from(mismatch).into());
    }
    Ok(Tensor::cat(vec![first, second], 2))
}

fn context(conditioning: Conditioning) -> Result<Tensor<3>, Error> {
    conditioning.context.ok_or_else(|| Error::argument("prompt", "the text encoder gives no context"))
}

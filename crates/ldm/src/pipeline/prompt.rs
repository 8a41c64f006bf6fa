//! Prompts in, conditioning out: pieces that work without the rest of a pipeline.

use burn::tensor::Tensor;
use ldm_conditioning::{Conditioner, Conditioning, clip::ClipText};

use crate::Error;

/// The text side of a Stable Diffusion model: one encoder, or SDXL's two.
#[derive(Debug, Clone)]
pub struct TextStage {
    /// CLIP ViT-L/14 (SD 1 and XL) or OpenCLIP ViT-H/14 (SD 2).
    pub first: ClipText,
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
    /// The prompts' context `[b, 77, d]`; with two encoders their contexts side by side, and the second's
    /// pooled vector.
    ///
    /// # Errors
    /// [`Error::Conditioning`] where a tokenizer or encoder fails.
    pub fn encode(&self, prompts: &[String]) -> Result<Conditioning, Error> {
        let first = self.first.encode(prompts)?;
        let Some(second) = &self.second else {
            return Ok(Conditioning::from_context(context(first)?));
        };
        let second = second.encode(prompts)?;
        let pooled = second.pooled.clone();
        let context = Tensor::cat(vec![context(first)?, context(second)?], 2);
        Ok(Conditioning { context: Some(context), pooled, concat: None })
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
    pub fn repeat(self, count: usize) -> Self {
        let each = |c: Conditioning| Conditioning {
            context: c.context.map(|x| repeat_items(x, count)),
            pooled: c.pooled.map(|x| repeat_items(x, count)),
            concat: c.concat.map(|x| repeat_items(x, count)),
        };
        Self { positive: each(self.positive), negative: self.negative.map(each) }
    }

    /// Negative before positive along the batch, as one call of the U-Net takes them.
    pub(crate) fn joined(self) -> Conditioning {
        let Some(negative) = self.negative else { return self.positive };
        Conditioning {
            context: both(negative.context, self.positive.context),
            pooled: both(negative.pooled, self.positive.pooled),
            concat: both(negative.concat, self.positive.concat),
        }
    }
}

fn context(conditioning: Conditioning) -> Result<Tensor<3>, Error> {
    conditioning.context.ok_or_else(|| Error::argument("prompt", "the text encoder gives no context"))
}

fn both<const D: usize>(a: Option<Tensor<D>>, b: Option<Tensor<D>>) -> Option<Tensor<D>> {
    Some(Tensor::cat(vec![a?, b?], 0))
}

/// `[b, ..] -> [b * count, ..]`, each item's copies next to each other.
fn repeat_items<const D: usize>(x: Tensor<D>, count: usize) -> Tensor<D> {
    if count == 1 {
        return x;
    }
    let b = x.dims()[0];
    let copies = (0..b).flat_map(|i| std::iter::repeat_n(x.clone().narrow(0, i, 1), count));
    Tensor::cat(copies.collect(), 0)
}

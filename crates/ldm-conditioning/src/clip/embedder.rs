//! Projected CLIP embeddings as a context: what the retrieval-augmented models are conditioned on.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use ldm_nn::{InterpolateMethod, Interpolation};

use super::vision::ClipVisionError;
use super::{ClipTextEncoder, ClipTokenizer, ClipVisionEncoder};
use crate::ConditioningError;

/// Mean and deviation of the pictures that CLIP was trained on, in [0, 1].
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// A text's projected embedding as a context of `n_repeat` equal tokens.
///
/// Source: `FrozenCLIPTextEmbedder` in the reference's `encoders/modules.py`; Blattmann et al. 2022.
#[derive(Module, Debug)]
pub struct ClipTextEmbedder {
    /// With a projection.
    pub encoder: ClipTextEncoder,
    #[module(skip)]
    tokenizer: ClipTokenizer,
    #[module(skip)]
    n_repeat: usize,
    #[module(skip)]
    normalize: bool,
}

/// A picture's projected embedding.
///
/// Source: `FrozenClipImageEmbedder` in the reference's `encoders/modules.py`.
#[derive(Module, Debug)]
pub struct ClipImageEmbedder {
    /// The image transformer.
    pub encoder: ClipVisionEncoder,
    #[module(skip)]
    normalize: bool,
}

/// An encoder without the projection that an embedding is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the text encoder has no projection: its config's `architectures` lack CLIPTextModelWithProjection")]
pub struct NoProjection;

impl ClipTextEmbedder {
    /// One token, of length 1.
    ///
    /// # Errors
    /// [`NoProjection`].
    pub fn new(tokenizer: ClipTokenizer, encoder: ClipTextEncoder) -> Result<Self, NoProjection> {
        match encoder.text_projection {
            Some(_) => Ok(Self { encoder, tokenizer, n_repeat: 1, normalize: true }),
            None => Err(NoProjection),
        }
    }

    /// How often the token is repeated (`n_repeat`, default 1).
    pub fn with_repeat(mut self, n_repeat: usize) -> Self {
        self.n_repeat = n_repeat;
        self
    }

    /// Whether embeddings get length 1 (`normalize`, default true).
    pub fn with_normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }

    /// `b` texts -> `[b, projection_dim]`.
    ///
    /// # Errors
    /// There are no texts, or the tokenizer fails.
    pub fn embed<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tensor<2>, ConditioningError> {
        let ids = input_ids(&self.tokenizer, texts, &self.encoder)?;
        let embeds = self.encoder.forward(ids)?.text_embeds.ok_or(NoProjection)?;
        Ok(if self.normalize { unit(embeds) } else { embeds })
    }

    /// `b` texts -> context `[b, n_repeat, projection_dim]`.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub fn context<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tensor<3>, ConditioningError> {
        Ok(self.embed(texts)?.unsqueeze_dim::<3>(1).repeat_dim(1, self.n_repeat))
    }
}

impl ClipImageEmbedder {
    /// Embeddings as they come, as in the reference.
    pub fn new(encoder: ClipVisionEncoder) -> Self {
        Self { encoder, normalize: false }
    }

    /// Whether embeddings get length 1, as those of a retrieval database.
    pub fn with_normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }

    /// Pictures `[b, 3, h, w]` in [-1, 1] of any size, as the encoder takes them: resized (bicubic, corners
    /// aligned, no antialiasing) and normalised.
    pub fn preprocess(&self, images: Tensor<4>) -> Tensor<4> {
        let side = self.encoder.config().image_size;
        let resize = Interpolation::new(InterpolateMethod::Bicubic).with_align_corners(true);
        let images = (resize.to_size(images, [side, side]) + 1.0) / 2.0;
        let (device, dtype) = (images.device(), images.dtype());
        let channels = |values: [f32; 3]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 3, 1, 1]), &device).cast(dtype)
        };
        (images - channels(MEAN)) / channels(STD)
    }

    /// `[b, 3, h, w]` in [-1, 1] -> `[b, projection_dim]`.
    ///
    /// # Errors
    /// [`ClipVisionError`] for pictures that haven't three channels.
    pub fn embed(&self, images: Tensor<4>) -> Result<Tensor<2>, ClipVisionError> {
        let [_, c, h, w] = images.dims();
        let (channels, side) = (self.encoder.config().num_channels, self.encoder.config().image_size);
        if c != 3 || channels != 3 || h == 0 || w == 0 {
            return Err(ClipVisionError { expected: [channels, side, side], got: [c, h, w] });
        }
        let embeds = self.encoder.forward(self.preprocess(images))?.image_embeds;
        Ok(if self.normalize { unit(embeds) } else { embeds })
    }
}

/// The texts' ids `[b, max_length]` on the encoder's device.
pub(super) fn input_ids<S: AsRef<str>>(
    tokenizer: &ClipTokenizer,
    texts: &[S],
    encoder: &ClipTextEncoder,
) -> Result<Tensor<2, Int>, ConditioningError> {
    if texts.is_empty() {
        return Err(ConditioningError::EmptyBatch);
    }
    let mut ids: Vec<i32> = Vec::new();
    for text in texts {
        ids.extend(tokenizer.encode(text.as_ref())?.ids.iter().map(|id| *id as i32));
    }
    let shape = [texts.len(), tokenizer.max_length()];
    Ok(Tensor::from_data(TensorData::new(ids, shape), &encoder.device()))
}

/// Every row divided by its length.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().powi_scalar(2).sum_dim(1).sqrt();
    x / length
}

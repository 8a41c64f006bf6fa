//! What a U-Net can be conditioned on besides the timestep.

use burn::tensor::Tensor;

/// How a U-Net embeds a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelEmbedding {
    /// A table of this many classes: give [`Conditioning::class_labels`].
    Classes(usize),
    /// A vector of this width through two layers: give [`Conditioning::y`].
    Projection(usize),
    /// A vector of this width through one layer: give [`Conditioning::y`].
    Linear(usize),
    /// A number through sinusoids and two layers: give [`Conditioning::y`] `[b, 1]`.
    Timestep,
    /// A vector as wide as the time embedding: give [`Conditioning::y`].
    Identity,
}

/// The conditions of one forward pass; each has the batch of the latent.
///
/// What the model conditions on has to be there, what it has no place for must not.
#[derive(Debug, Clone, Default)]
pub struct Conditioning {
    /// `tau_theta(y)`, `[b, m, d]`: K and V of the cross-attention (paper, equation 2).
    pub context: Option<Tensor<3>>,
    /// A class for each item.
    pub class_labels: Option<Vec<i64>>,
    /// A vector for each item, `[b, width]`; with SDXL it stands for `text_embeds` and the sinusoids of
    /// `time_ids`, already joined (`y` of the CompVis code).
    pub y: Option<Tensor<2>>,
    /// SDXL's pooled text embedding, `[b, p]`.
    pub text_embeds: Option<Tensor<2>>,
    /// SDXL's sizes, `[b, 6]`: original height and width, crop top and left, target height and width.
    pub time_ids: Option<Tensor<2>>,
    /// A guidance embedding for each item, `[b, time_cond_proj_dim]` (latent consistency models).
    pub timestep_cond: Option<Tensor<2>>,
}

impl Conditioning {
    /// No conditions.
    pub fn none() -> Self {
        Self::default()
    }

    /// A context `[b, m, d]` for the cross-attention.
    pub fn context(context: Tensor<3>) -> Self {
        Self { context: Some(context), ..Self::default() }
    }

    /// A class for each item.
    pub fn class_labels(labels: impl Into<Vec<i64>>) -> Self {
        Self { class_labels: Some(labels.into()), ..Self::default() }
    }

    /// Adds a class for each item.
    pub fn with_class_labels(mut self, labels: impl Into<Vec<i64>>) -> Self {
        self.class_labels = Some(labels.into());
        self
    }

    /// Adds a vector `[b, width]`.
    pub fn with_y(mut self, y: Tensor<2>) -> Self {
        self.y = Some(y);
        self
    }

    /// Adds SDXL's pooled text embedding `[b, p]` and its sizes `[b, 6]`.
    pub fn with_text_time(mut self, text_embeds: Tensor<2>, time_ids: Tensor<2>) -> Self {
        self.text_embeds = Some(text_embeds);
        self.time_ids = Some(time_ids);
        self
    }

    /// Adds a guidance embedding `[b, time_cond_proj_dim]`.
    pub fn with_timestep_cond(mut self, cond: Tensor<2>) -> Self {
        self.timestep_cond = Some(cond);
        self
    }
}

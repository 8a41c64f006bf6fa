//! What a U-Net can embed as a label, beside the timestep.

/// How a U-Net embeds a label: which part of the [`Conditioning`](crate::Conditioning) it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelEmbedding {
    /// A table of this many classes: give `class_labels`.
    Classes(usize),
    /// A vector of this width through two layers: give `y`.
    Projection(usize),
    /// A vector of this width through one layer: give `y`.
    Linear(usize),
    /// A number through sinusoids and two layers: give `y` `[b, 1]`.
    Timestep,
    /// A vector as wide as the time embedding: give `y`.
    Identity,
}

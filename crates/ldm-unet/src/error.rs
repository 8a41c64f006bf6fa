//! What can be wrong with a config, and with the inputs of a forward pass.

/// A config that describes no U-Net, or one that this crate doesn't have.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Not readable at all, a required key is absent, or a key is unknown.
    #[error("U-Net config: {0}")]
    Malformed(String),
    /// A key that the other keys make necessary is absent.
    #[error("U-Net config: `{key}` is needed, because {because}")]
    Missing {
        /// The absent key.
        key: &'static str,
        /// The setting that asks for it.
        because: String,
    },
    /// A value that no U-Net here can have.
    #[error("U-Net config: `{key}` = {value} is not supported{hint}")]
    Unsupported {
        /// The key, as the config spells it.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What would be possible, with a leading separator; may be empty.
        hint: String,
    },
    /// Two sizes that have to divide do not.
    #[error("U-Net config: {what} {size} is not divisible by {by} {divisor}")]
    Indivisible {
        /// What is split.
        what: String,
        /// Its size.
        size: usize,
        /// What it is split into.
        by: String,
        /// Their number or size.
        divisor: usize,
    },
    /// A list that has one value a level has another length.
    #[error("U-Net config: `{key}` has {got} values for {levels} levels")]
    Levels {
        /// The key.
        key: String,
        /// The number of levels.
        levels: usize,
        /// The length of the list.
        got: usize,
    },
    /// The naming of weights, or the config, of the other family can't express this model.
    #[error("{format} has no form for a U-Net with `{key}` = {value}")]
    Inexpressible {
        /// "CompVis" or a class of diffusers.
        format: &'static str,
        /// The key that it lacks.
        key: &'static str,
        /// The value here.
        value: String,
    },
}

/// Inputs that don't fit the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UNetError {
    /// The model conditions on something that wasn't given.
    #[error("the U-Net has {because}: `{input}` is missing")]
    Missing {
        /// The absent input.
        input: &'static str,
        /// The part of the model that reads it.
        because: &'static str,
    },
    /// Something was given that this model has no place for.
    #[error("`{input}` was given, but the U-Net has no {because}")]
    Unexpected {
        /// The superfluous input.
        input: &'static str,
        /// What the config lacks.
        because: &'static str,
    },
    /// An axis of an input has another size than the model's.
    #[error("`{input}`: {axis} is {got}, the U-Net takes {expected}")]
    Shape {
        /// The input.
        input: &'static str,
        /// The axis.
        axis: &'static str,
        /// The size that the model takes.
        expected: usize,
        /// The size that was given.
        got: usize,
    },
    /// A batch without items.
    #[error("`x`: an empty batch")]
    EmptyBatch,
    /// A latent of which nothing is left at the coarsest level.
    #[error("`x`: {axis} is {side}, too small for {levels} levels")]
    TooSmall {
        /// The height or the width.
        axis: &'static str,
        /// Its size.
        side: usize,
        /// The number of levels.
        levels: usize,
    },
    /// A class label outside the table.
    #[error("class label {label} of item {item} is outside 0..{classes}")]
    ClassOutOfRange {
        /// The label.
        label: i64,
        /// Its place in the batch.
        item: usize,
        /// The number of classes.
        classes: usize,
    },
}

/// What a first stage can refuse.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VaeError {
    /// A config asks for what can't be built.
    #[error("first stage config: {key} = {value}: {reason}")]
    Config {
        /// The key, as the config file spells it.
        key: &'static str,
        /// The value found.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture's sides are no multiple of the downsampling factor.
    #[error(
        "a picture of {width}x{height} can't be encoded: both sides must be multiples of {factor}, at least {factor}"
    )]
    Size {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// The downsampling factor f.
        factor: usize,
    },
    /// A picture or latent has another number of channels than the model.
    #[error("{what} has {actual} channels, the model takes {expected}")]
    Channels {
        /// "picture" or "latent".
        what: &'static str,
        /// What the config says.
        expected: usize,
        /// What came.
        actual: usize,
    },
    /// Two tensors that must match don't, or one has an axis of length zero.
    #[error("{what} has shape {actual:?}, expected {expected}")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// What is needed.
        expected: String,
        /// Its shape.
        actual: Vec<usize>,
    },
    /// An index that no code has.
    #[error("index {index} at position {position} is no code: the indices are 0..{codes}")]
    Index {
        /// The index.
        index: i64,
        /// Where it stands among the indices, counted flat.
        position: usize,
        /// How many codes there are.
        codes: usize,
    },
    /// A codebook is asked of a first stage that has none.
    #[error("a {stage} first stage has no codebook to quantise with")]
    NoCodebook {
        /// Which kind it is.
        stage: &'static str,
    },
    /// Tiles that can't be joined without a gap.
    #[error(
        "tiles of {sample_min_size} px and {latent_min_size} latents, overlap {overlap_factor}: {reason}"
    )]
    Tiling {
        /// Side of a tile in pixels.
        sample_min_size: usize,
        /// Side of a tile in the latent.
        latent_min_size: usize,
        /// Part of a tile that its neighbour repeats.
        overlap_factor: f64,
        /// What is wrong.
        reason: String,
    },
}

impl VaeError {
    pub(crate) fn config(key: &'static str, value: impl std::fmt::Debug, reason: impl Into<String>) -> Self {
        Self::Config { key, value: format!("{value:?}"), reason: reason.into() }
    }
}

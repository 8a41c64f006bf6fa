use std::path::PathBuf;

use ldm_nn::weights::WeightError;

/// Why a figure can't be given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// Two things that are compared have different shapes.
    #[error("{what}: shapes {left:?} and {right:?} don't fit together")]
    Shapes {
        /// What is compared.
        what: &'static str,
        /// The first one's shape.
        left: Vec<usize>,
        /// The second one's shape.
        right: Vec<usize>,
    },
    /// There is too little to compute from.
    #[error("{what}: {got} given, at least {needed} needed")]
    TooFew {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many there must be.
        needed: usize,
    },
    /// NaN or infinity where a number is needed.
    #[error("{0}: not all values are finite")]
    NotFinite(&'static str),
    /// A tensor's values could not be had from its device.
    #[error("reading a tensor from its device: {0}")]
    Backend(String),
    /// A file or folder can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else than it should, or a folder lacks something.
    #[error("{path}: {what}")]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A picture can't be decoded.
    #[error("{path}: {source}")]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// A feature extractor's weights can't be loaded.
    #[error(transparent)]
    Weights(#[from] WeightError),
}

impl MetricError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(super) fn content(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Content { path: path.into(), what: what.into() }
    }
}

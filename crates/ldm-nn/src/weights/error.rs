use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use burn::tensor::DType;

use super::ElementType;

/// What can be wrong with a weight file, or with loading or saving one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightError {
    /// The file can't be opened, read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file holds nothing.
    #[error("{path}: the file is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, or a kind of weight file that is not supported.
    #[error("{path}: not a weight file that can be read: {what}")]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// What it seems to be, and what to do about it.
        what: String,
    },
    /// The file ends too early.
    #[error("{path}: truncated: {what} ends at byte {needed}, the file at {length}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What is cut off.
        what: String,
        /// Where it would end.
        needed: u64,
        /// The file's length.
        length: u64,
    },
    /// The file contradicts itself or fails its own checksum.
    #[error("{path}: damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the tensor's name where it is known.
        what: String,
    },
    /// A sharded model's index names a file that isn't there.
    #[error("{path}: the shard {shard} is missing")]
    MissingShard {
        /// The index file.
        path: PathBuf,
        /// The shard's name, as the index has it.
        shard: String,
    },
    /// The device has no tensors of this float type.
    #[error("{device} does not support {dtype:?} weights")]
    Device {
        /// The type asked for.
        dtype: DType,
        /// The device.
        device: String,
    },
    /// Tensors are missing, of the wrong shape or unusable: all that are, at once.
    #[error("{path}: {}", Listed(problems))]
    Tensors {
        /// The file.
        path: PathBuf,
        /// One for each tensor.
        problems: Vec<TensorProblem>,
    },
    /// The tensors given can't make a weight file.
    #[error("{path}: can't be written: {what}")]
    Save {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
}

/// What is wrong with one tensor of a weight file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorProblem {
    /// The file has no such tensor.
    Missing {
        /// The tensor's name; where the format knows several, the first.
        key: String,
        /// The shape that the model needs, if it is known.
        shape: Option<Vec<usize>>,
    },
    /// The tensor's shape is not the model's.
    Shape {
        /// The tensor's name.
        key: String,
        /// The shape that the model needs.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// The tensor's element type is not usable here.
    Type {
        /// The tensor's name.
        key: String,
        /// The type in the file.
        found: ElementType,
    },
    /// The tensor is made by a pickled call that is not PyTorch's own; nothing is ever called.
    Code {
        /// The tensor's name.
        key: String,
        /// The function that would have to run.
        callable: String,
    },
    /// The tensor holds NaN or infinity.
    NotFinite {
        /// The tensor's name.
        key: String,
        /// How many elements are not finite.
        count: usize,
    },
    /// The tensor holds values that are too large for the type asked for.
    Overflow {
        /// The tensor's name.
        key: String,
        /// The type asked for.
        dtype: DType,
    },
    /// The key map gives the parameter a layout that its shape can't have.
    Layout {
        /// The tensor's name.
        key: String,
        /// The parameter's shape.
        shape: Vec<usize>,
    },
}

impl Display for TensorProblem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { key, shape: Some(shape) } => write!(f, "{key} {shape:?} is missing"),
            Self::Missing { key, shape: None } => write!(f, "{key} is missing"),
            Self::Shape { key, expected, found } => {
                write!(f, "{key} has shape {found:?}, the model needs {expected:?}")
            }
            Self::Type { key, found } => write!(f, "{key} holds {found}, which can't be used here"),
            Self::Code { key, callable } => {
                write!(f, "{key} is made by calling {callable}, and code in a file is never run")
            }
            Self::NotFinite { key, count } => {
                write!(f, "{key} holds {count} values that are NaN or infinite")
            }
            Self::Overflow { key, dtype } => write!(f, "{key} holds values too large for {dtype:?}"),
            Self::Layout { key, shape } => write!(f, "{key}: the key map's layout does not fit {shape:?}"),
        }
    }
}

/// One problem on the same line, several on a line each.
struct Listed<'a>(&'a [TensorProblem]);

impl Display for Listed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let [problem] = self.0 {
            return write!(f, "{problem}");
        }
        write!(f, "{} tensors do not fit:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

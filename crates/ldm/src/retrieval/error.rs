use std::path::PathBuf;

/// What can be wrong with a retrieval database, or with a query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetrievalError {
    /// A file or folder can't be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A folder without a database in it.
    #[error("{path} holds no .npz file")]
    NoParts {
        /// The folder.
        path: PathBuf,
    },
    /// A file that is no zip archive of NumPy's arrays.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Arrays that a database must have.
    #[error("{path} lacks the arrays {missing:?}; it holds {found:?}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What is missing.
        missing: Vec<&'static str>,
        /// What there is.
        found: Vec<String>,
    },
    /// An array of another shape than it must have.
    #[error("{path}: {array} has shape {found:?}, expected {expected}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The array.
        array: &'static str,
        /// Its shape.
        found: Vec<u64>,
        /// What is needed.
        expected: String,
    },
    /// An array of another element type than it may have.
    #[error("{path}: {array} holds {found}, expected {expected}")]
    Type {
        /// The file.
        path: PathBuf,
        /// The array.
        array: &'static str,
        /// NumPy's name of its type.
        found: String,
        /// What is read.
        expected: &'static str,
    },
    /// An embedding with NaN or infinity in it.
    #[error("{path}: row {row} of embedding is not finite")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The row in this file.
        row: usize,
    },
    /// Embeddings of another width than the database's first, or a query's of another than the database's.
    #[error("{what} has embeddings {found} wide, the database's are {expected}")]
    Width {
        /// The file, or "the query".
        what: String,
        /// The database's width.
        expected: usize,
        /// The other width.
        found: usize,
    },
    /// More neighbours than there are rows, or none.
    #[error("{k} neighbours of {rows} rows: ask for 1 to {rows}")]
    Count {
        /// What was asked for.
        k: usize,
        /// The rows of the database.
        rows: usize,
    },
    /// A row that the database doesn't have.
    #[error("row {index}: the database has {rows}")]
    Row {
        /// The row.
        index: usize,
        /// The rows of the database.
        rows: usize,
    },
    /// A parameter of the approximate search that can't be.
    #[error("{name} = {value}: {reason}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: usize,
        /// What it must be.
        reason: &'static str,
    },
}

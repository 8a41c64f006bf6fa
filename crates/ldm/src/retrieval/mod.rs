//! Retrieval: the neighbours that a retrieval-augmented model is conditioned on.
//!
//! A database holds the CLIP embedding of many patches of pictures; the embeddings nearest to a prompt's or a picture's
//! join it in the U-Net's context (Blattmann et al. 2022, "Semi-parametric neural image synthesis").
//! [`Database`] reads the reference's files and searches them exactly; `Hnsw` searches them approximately (Cargo feature
//! `retrieval`).
//!
//! Source: `Searcher` in `scripts/knn2img.py` of CompVis/latent-diffusion.

#[cfg(feature = "retrieval")]
mod approximate;
mod database;
mod error;
mod exact;
mod npz;

#[cfg(feature = "retrieval")]
pub use approximate::{Hnsw, HnswConfig};
pub use database::Database;
pub use error::RetrievalError;

/// What makes two embeddings near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Metric {
    /// The cosine of the angle between them: what the reference searches by.
    #[default]
    Cosine,
    /// Their inner product.
    Dot,
}

/// A row of the database that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The row, from 0.
    pub index: usize,
    /// Cosine or inner product with the query; the larger, the nearer.
    pub score: f32,
}

#[cfg(test)]
mod tests;

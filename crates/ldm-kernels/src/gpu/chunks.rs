//! How work that is too much for one cube is divided.

/// The chunks of a group, a plane or a column.
#[derive(Debug, Clone, Copy)]
pub struct Chunks {
    /// How many there are.
    pub count: usize,
    /// Vectors of each but the last.
    pub length: usize,
}

impl Chunks {
    /// Of so many vectors: at most `most`, and of at least `least` each where there are more than one.
    pub fn new(vectors: usize, least: usize, most: usize) -> Self {
        let length = vectors.div_ceil(most).max(least.min(vectors));
        Self { count: vectors.div_ceil(length), length }
    }
}

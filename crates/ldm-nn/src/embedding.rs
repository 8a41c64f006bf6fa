use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Int, Tensor, module::embedding};

/// Configures an [`Embedding`] table.
#[derive(Debug, Clone)]
pub struct EmbeddingConfig {
    n_embedding: usize,
    d_model: usize,
    std: f64,
}

/// A table of learned vectors, looked up by id.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[n_embedding, d_model]`.
    pub weight: Param<Tensor<2>>,
}

impl EmbeddingConfig {
    /// A table of `n_embedding` vectors of width `d_model`.
    pub fn new(n_embedding: usize, d_model: usize) -> Self {
        Self { n_embedding, d_model, std: 1.0 }
    }

    /// Sets the deviation that the table is drawn with (default: 1, as PyTorch's).
    pub fn with_std(mut self, std: f64) -> Self {
        self.std = std;
        self
    }

    /// Creates the table, drawn from a normal distribution around 0.
    pub fn init(&self, device: &Device) -> Embedding {
        let init = Initializer::Normal { mean: 0.0, std: self.std };
        Embedding { weight: init.init([self.n_embedding, self.d_model], device) }
    }
}

impl Embedding {
    /// `[batch, length] -> [batch, length, d_model]`.
    ///
    /// Ids must lie below `n_embedding`; callers check ids that come from outside.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        embedding(self.weight.val(), ids)
    }

    /// The number of rows of the table.
    pub fn len(&self) -> usize {
        self.weight.lazy_shape()[0]
    }

    /// Whether the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ldm_nn::{Embedding, EmbeddingConfig};
use serde::{Deserialize, Serialize};

/// The params of `ClassEmbedder` in a CompVis YAML file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassEmbedderConfig {
    /// Width of the context.
    pub embed_dim: usize,
    /// The number of classes; a model trained for guidance has one more than its data, for "no class".
    #[serde(default = "n_classes")]
    pub n_classes: usize,
    /// What the data calls the class.
    #[serde(default = "key")]
    pub key: String,
}

/// A class outside the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("class {class} of item {item} is outside 0..{n_classes}")]
pub struct ClassOutOfRange {
    /// The class.
    pub class: i64,
    /// Its place in the batch.
    pub item: usize,
    /// The number of classes.
    pub n_classes: usize,
}

/// A learned vector for each class, as a context of one token.
///
/// Source: paper, appendix E.2.1; `ClassEmbedder` in the reference's `encoders/modules.py`.
#[derive(Module, Debug)]
pub struct ClassEmbedder {
    /// `[n_classes, embed_dim]`.
    pub embedding: Embedding,
    #[module(skip)]
    config: ClassEmbedderConfig,
}

impl ClassEmbedderConfig {
    /// `n_classes` classes as vectors of width `embed_dim`.
    pub fn new(embed_dim: usize, n_classes: usize) -> Self {
        Self { embed_dim, n_classes, key: key() }
    }

    /// Creates the table, drawn from N(0, 1) as the reference's.
    pub fn init(&self, device: &Device) -> ClassEmbedder {
        let embedding = EmbeddingConfig::new(self.n_classes, self.embed_dim).init(device);
        ClassEmbedder { embedding, config: self.clone() }
    }
}

impl ClassEmbedder {
    /// `b` classes -> context `[b, 1, embed_dim]`.
    ///
    /// # Errors
    /// [`ClassOutOfRange`].
    pub fn forward(&self, classes: &[i64]) -> Result<Tensor<3>, ClassOutOfRange> {
        let n_classes = self.embedding.len();
        let outside = |class: &i64| usize::try_from(*class).map_or(true, |class| class >= n_classes);
        if let Some((item, class)) = classes.iter().enumerate().find(|(_, class)| outside(class)) {
            return Err(ClassOutOfRange { class: *class, item, n_classes });
        }
        let ids = TensorData::new(classes.to_vec(), [classes.len(), 1]);
        let device = self.embedding.weight.val().device();
        Ok(self.embedding.forward(Tensor::<2, Int>::from_data(ids, &device)))
    }

    /// What the table was made from.
    pub fn config(&self) -> &ClassEmbedderConfig {
        &self.config
    }
}

fn n_classes() -> usize {
    1000
}

fn key() -> String {
    "class".into()
}

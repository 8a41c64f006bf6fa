//! The paper's own text side: WordPiece tokenizer and the transformer encoder over its tokens, which reads
//! layouts too.

mod config;
mod encoder;
mod keys;
mod tokenizer;
mod vocabulary;

pub use config::{BertConfigError, BertEmbedderConfig};
pub use encoder::{BertAttention, BertEmbedder, BertError, BertFeedForward, BertLayer};
pub use keys::BertKeys;
pub use tokenizer::BertTokenizer;

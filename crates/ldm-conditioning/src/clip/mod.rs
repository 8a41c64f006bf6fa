//! CLIP: byte-pair tokenizer, text and image transformers, of OpenAI's and OpenCLIP's models.

mod config;
mod embedder;
mod encoder;
mod keys;
mod save;
mod special;
mod text;
mod tokenizer;
mod vision;
mod vocabulary;

pub use config::{ClipTextConfig, ConfigError};
pub use embedder::{ClipImageEmbedder, ClipTextEmbedder, NoProjection};
pub use encoder::{ClipTextEncoder, ClipTextError, HiddenState, TextOutput};
pub use keys::{ClipKeys, ClipVisionKeys};
pub use text::ClipText;
pub use tokenizer::{ClipTokenizer, Encoding, TokenizerError};
pub use vision::{ClipVisionConfig, ClipVisionEncoder, ClipVisionError, VisionOutput};

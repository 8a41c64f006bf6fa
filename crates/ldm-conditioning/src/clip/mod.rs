//! CLIP's text side: byte-pair tokenizer and text transformer, of OpenAI's and OpenCLIP's models.

mod config;
mod encoder;
mod keys;
mod save;
mod special;
mod text;
mod tokenizer;
mod vocabulary;

pub use config::{ClipTextConfig, ConfigError};
pub use encoder::{ClipTextEncoder, ClipTextError, HiddenState, TextOutput};
pub use keys::ClipKeys;
pub use text::ClipText;
pub use tokenizer::{ClipTokenizer, Encoding, TokenizerError};

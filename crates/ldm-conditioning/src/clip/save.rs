//! Tokenizer directories, written as transformers reads them.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::Model;

use super::tokenizer::{ClipTokenizer, TokenizerError};

impl ClipTokenizer {
    /// Writes `vocab.json`, `merges.txt`, `tokenizer_config.json` and `special_tokens_map.json` into `dir`, which must
    /// exist.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), TokenizerError> {
        let dir = dir.as_ref();
        let failed = |e: tokenizers::Error| TokenizerError::Tokenizers(format!("{}: {e}", dir.display()));
        self.tokenizer.get_model().save(dir, None).map_err(failed)?;
        let token = |id: u32| self.tokenizer.id_to_token(id).unwrap_or_default();
        let tokens = json!({
            "bos_token": special(&token(self.bos)),
            "eos_token": special(&token(self.eos)),
            "unk_token": special(&token(self.eos)),
            "pad_token": token(self.pad),
        });
        let config = json!({
            "tokenizer_class": "CLIPTokenizer",
            "add_prefix_space": false,
            "do_lower_case": true,
            "errors": "replace",
            "model_max_length": self.max_length(),
            "bos_token": special(&token(self.bos)),
            "eos_token": special(&token(self.eos)),
            "unk_token": special(&token(self.eos)),
            "pad_token": token(self.pad),
        });
        write(&dir.join("special_tokens_map.json"), &tokens)?;
        write(&dir.join("tokenizer_config.json"), &config)
    }
}

/// A token as the published directories of CLIP describe it.
fn special(content: &str) -> Value {
    json!({"content": content, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false})
}

fn write(path: &Path, value: &Value) -> Result<(), TokenizerError> {
    let io = |source| TokenizerError::Io { path: path.into(), source };
    std::fs::write(path, format!("{value:#}\n")).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_tokenizer_gives_the_same_ids() {
        for tokenizer in [ClipTokenizer::open_ai().unwrap(), ClipTokenizer::open_clip().unwrap()] {
            let dir = tempfile::tempdir().unwrap();
            tokenizer.save(dir.path()).unwrap();
            let read = ClipTokenizer::from_dir(dir.path()).unwrap();
            for prompt in ["a red fox, 4k!", "", "na\u{ef}ve \u{1f98a} <|endoftext|> it's"] {
                assert_eq!(read.encode(prompt).unwrap(), tokenizer.encode(prompt).unwrap(), "{prompt}");
            }
        }
    }
}

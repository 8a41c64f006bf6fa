//! Tokenizer directories, written as transformers reads them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::Model;

use super::tokenizer::{ClipTokenizer, TokenizerError};

impl ClipTokenizer {
    /// Writes `vocab.json`, `merges.txt`, `tokenizer_config.json` and `special_tokens_map.json`, which
    /// transformers reads as its `CLIPTokenizer`.
    ///
    /// # Errors
    /// The directory can't be made or a file can't be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), TokenizerError> {
        let dir = dir.as_ref();
        let io = |source| TokenizerError::Io { path: dir.into(), source };
        std::fs::create_dir_all(dir).map_err(io)?;
        let model = self.tokenizer.get_model().save(dir, None);
        model.map_err(|e| TokenizerError::Tokenizers(format!("{}: {e}", dir.display())))?;
        let text = |id: u32| self.tokenizer.id_to_token(id);
        let named = json!({
            "bos_token": text(self.bos),
            "eos_token": text(self.eos),
            "unk_token": text(self.unk),
            "pad_token": text(self.pad),
        });
        let added = self.tokenizer.get_added_tokens_decoder();
        let added: BTreeMap<u32, Value> = added.iter().map(|(id, token)| (*id, json!(token))).collect();
        let mut config = json!({
            "add_prefix_space": false,
            "added_tokens_decoder": added,
            "do_lower_case": true,
            "errors": "replace",
            "model_max_length": self.max_length,
            "tokenizer_class": "CLIPTokenizer",
        });
        for name in ["bos_token", "eos_token", "unk_token", "pad_token"] {
            config[name] = named[name].clone();
        }
        for (name, content) in [("tokenizer_config.json", config), ("special_tokens_map.json", named)] {
            let path = dir.join(name);
            std::fs::write(&path, format!("{content:#}\n"))
                .map_err(|source| TokenizerError::Io { path, source })?;
        }
        Ok(())
    }
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

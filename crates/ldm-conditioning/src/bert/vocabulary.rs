use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::clip::TokenizerError;

/// The words of bert-base-uncased, one a line in the order of their ids; see assets/LICENSE-BERT.
const BERT_BASE_UNCASED: &str = include_str!("../../assets/bert_base_uncased_vocab.txt");

/// WordPiece tokens and their ids.
pub(super) struct Vocabulary(pub HashMap<String, u32>);

impl Vocabulary {
    /// Of bert-base-uncased, 30,522 words.
    pub fn published() -> Self {
        Self::lines(BERT_BASE_UNCASED)
    }

    /// A `vocab.txt`: one token a line.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        Ok(Self::lines(&read(path)?))
    }

    /// `vocab.txt`, or the model inside `tokenizer.json`.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let (text, json) = (dir.join("vocab.txt"), dir.join("tokenizer.json"));
        if text.is_file() {
            return Self::from_file(&text);
        }
        if !json.is_file() {
            return Err(invalid(dir, "no vocab.txt and no tokenizer.json"));
        }
        let value: Value = serde_json::from_str(&read(&json)?).map_err(|e| invalid(&json, e))?;
        let words = serde_json::from_value(value["model"]["vocab"].clone());
        words.map(Self).map_err(|e| invalid(&json, format!("model.vocab: {e}")))
    }

    fn lines(text: &str) -> Self {
        // Not `lines()`'s idea of the last one alone: a token may be any character but a line's end.
        let text = text.strip_suffix('\n').unwrap_or(text);
        let tokens = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_string());
        Self(tokens.zip(0..).collect())
    }
}

/// Reads a text file; the error names it.
pub(super) fn read(path: &Path) -> Result<String, TokenizerError> {
    std::fs::read_to_string(path).map_err(|source| TokenizerError::Io { path: path.into(), source })
}

/// The error of a file that says something else than it should.
pub(super) fn invalid(path: &Path, reason: impl ToString) -> TokenizerError {
    TokenizerError::Invalid { path: path.into(), reason: reason.to_string() }
}

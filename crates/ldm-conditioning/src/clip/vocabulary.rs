use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::tokenizer::TokenizerError;

/// CLIP's published list of merges; see assets/LICENSE-CLIP.
const MERGES: &[u8] = include_bytes!("../../assets/bpe_simple_vocab_16e6.txt.gz");

/// The list goes on after the merges that CLIP uses: its vocabulary of 49,408 is 256 byte symbols, the same
/// at a word's end, one token a merge, and two special tokens.
const USED_MERGES: usize = 49_408 - 2 * 256 - 2;

/// The tokens of a byte-pair encoding and the pairs that are merged, first come first merged.
pub(super) struct Vocabulary {
    pub ids: HashMap<String, u32>,
    pub merges: Vec<(String, String)>,
}

impl Vocabulary {
    /// CLIP's own.
    pub fn published() -> Result<Self, TokenizerError> {
        let asset = Path::new("bpe_simple_vocab_16e6.txt.gz");
        let lines = BufReader::new(GzDecoder::new(MERGES)).lines();
        let mut merges = Vec::with_capacity(USED_MERGES);
        // The first line is a version.
        for line in lines.skip(1).take(USED_MERGES) {
            let line = line.map_err(|source| TokenizerError::Io { path: asset.into(), source })?;
            merges.push(pair(&line).ok_or_else(|| invalid(asset, format!("no pair: {line:?}")))?);
        }
        let bytes: Vec<String> = byte_symbols().map(String::from).collect();
        let ends = bytes.iter().map(|b| format!("{b}</w>"));
        let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
        let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
        let tokens = bytes.iter().cloned().chain(ends).chain(merged).chain(special);
        let ids = tokens.zip(0..).collect();
        Ok(Self { ids, merges })
    }

    /// `vocab.json` and `merges.txt`.
    pub fn from_files(vocab: &Path, merges: &Path) -> Result<Self, TokenizerError> {
        let ids = serde_json::from_str(&read(vocab)?).map_err(|e| invalid(vocab, e))?;
        let mut pairs = Vec::new();
        for line in read(merges)?.lines() {
            if !line.starts_with("#version") && !line.is_empty() {
                pairs.push(pair(line).ok_or_else(|| invalid(merges, format!("no pair: {line:?}")))?);
            }
        }
        Ok(Self { ids, merges: pairs })
    }

    /// The model inside a `tokenizer.json`.
    pub fn from_tokenizer_json(path: &Path, json: &Value) -> Result<Self, TokenizerError> {
        let model = &json["model"];
        let ids = serde_json::from_value(model["vocab"].clone())
            .map_err(|e| invalid(path, format!("model.vocab: {e}")))?;
        let merges = model["merges"].as_array().ok_or_else(|| invalid(path, "model.merges is no list"))?;
        let merges = merges
            .iter()
            .map(|merge| {
                // Older files write "a b", newer ones ["a", "b"].
                let pair = match merge {
                    Value::String(text) => pair(text),
                    pair => serde_json::from_value(pair.clone()).ok(),
                };
                pair.ok_or_else(|| invalid(path, format!("model.merges: no pair: {merge}")))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { ids, merges })
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

fn pair(line: &str) -> Option<(String, String)> {
    let (a, b) = line.split_once(' ')?;
    (!a.is_empty() && !b.is_empty() && !b.contains(' ')).then(|| (a.into(), b.into()))
}

/// A printable character for every byte, in the order of their ids: printable bytes stand for
/// themselves and come first, the others are shifted beyond 255.
fn byte_symbols() -> impl Iterator<Item = char> {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let themselves = (0..=255u8).filter(printable).map(char::from);
    let shifted = (0..=255u8).filter(move |b| !printable(b)).zip('\u{100}'..).map(|(_, c)| c);
    themselves.chain(shifted)
}

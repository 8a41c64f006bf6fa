use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{NFC, Replace, replace::ReplacePattern, utils::Lowercase};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::special::SpecialTokens;
use super::vocabulary::{Vocabulary, invalid, read};

/// What is one piece for byte-pair encoding: a special token, an English contraction, a run of letters, a
/// digit, a run of anything else but white space.
const PIECE: &str = concat!(
    r"<\|startoftext\|>|<\|endoftext\|>",
    r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
);

/// The end of a word in CLIP's vocabulary.
const WORD_END: &str = "</w>";

/// CLIP's byte-pair tokenizer: from a prompt to ids and back.
///
/// Ids equal those of transformers' `CLIPTokenizer` (`tokenization_clip.py`, version 5): Unicode NFC, white
/// space made one space, lower case, then byte-pair encoding of each piece.
#[derive(Debug, Clone)]
pub struct ClipTokenizer {
    pub(super) tokenizer: Tokenizer,
    pub(super) bos: u32,
    pub(super) eos: u32,
    pub(super) pad: u32,
    pub(super) unk: u32,
    pub(super) max_length: usize,
}

/// A prompt as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Start of text, the prompt's tokens, end of text, padding: `max_length` in all.
    pub ids: Vec<u32>,
    /// The end of the prompt, where it did not fit.
    pub truncated: Option<String>,
}

/// Why a tokenizer can't be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file can't be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A file says something else than it should.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A directory holds no tokenizer.
    #[error("{dir}: no tokenizer.json, and no vocab.json with merges.txt")]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// A sequence must hold start and end of text at least.
    #[error("a maximum length of {0} leaves no place for start and end of text")]
    MaxLength(usize),
    /// Vocabulary, merges and special tokens don't fit together, or a text can't be encoded with them.
    #[error("the tokenizer: {0}")]
    Tokenizers(String),
}

impl ClipTokenizer {
    /// OpenAI's CLIP, padded with the end of text: Stable Diffusion 1 and SDXL's first encoder.
    ///
    /// # Errors
    /// None in practice: the vocabulary is built in.
    pub fn open_ai() -> Result<Self, TokenizerError> {
        Self::new(Vocabulary::published()?, SpecialTokens::published("<|endoftext|>"))
    }

    /// The same vocabulary padded with `!` (id 0), as OpenCLIP's models are: Stable Diffusion 2 and SDXL's
    /// second encoder.
    ///
    /// As in the published tokenizers, `!` is a special token, so that one in a prompt is id 0 too.
    ///
    /// # Errors
    /// None in practice: the vocabulary is built in.
    pub fn open_clip() -> Result<Self, TokenizerError> {
        Self::new(Vocabulary::published()?, SpecialTokens::published("!"))
    }

    /// Reads a tokenizer directory: `tokenizer.json`, or `vocab.json` and `merges.txt`; with
    /// `tokenizer_config.json` and `special_tokens_map.json` where present.
    ///
    /// # Errors
    /// No such files, files that can't be read, or files that don't fit together.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let dir = dir.as_ref();
        let [json, vocab, merges] = ["tokenizer.json", "vocab.json", "merges.txt"].map(|name| dir.join(name));
        if json.is_file() {
            let value: Value = serde_json::from_str(&read(&json)?).map_err(|e| invalid(&json, e))?;
            let vocabulary = Vocabulary::from_tokenizer_json(&json, &value)?;
            return Self::new(vocabulary, SpecialTokens::read(dir, Some(&value))?);
        }
        if !(vocab.is_file() && merges.is_file()) {
            return Err(TokenizerError::Missing { dir: dir.into() });
        }
        Self::new(Vocabulary::from_files(&vocab, &merges)?, SpecialTokens::read(dir, None)?)
    }

    fn new(vocabulary: Vocabulary, special: SpecialTokens) -> Result<Self, TokenizerError> {
        let SpecialTokens { bos, eos, unk, pad, max_length, added } = special;
        let tokenizer = pipeline(vocabulary, unk.clone()).and_then(|mut tokenizer| {
            tokenizer.add_tokens(added)?;
            Ok(tokenizer)
        });
        let tokenizer = tokenizer.map_err(|e| TokenizerError::Tokenizers(e.to_string()))?;
        let id = |token: &str| {
            let missing = || TokenizerError::Tokenizers(format!("{token:?} has no id"));
            tokenizer.token_to_id(token).ok_or_else(missing)
        };
        let (bos, eos, pad, unk) = (id(&bos)?, id(&eos)?, id(&pad)?, id(&unk)?);
        Self { tokenizer, bos, eos, pad, unk, max_length }.with_max_length(max_length)
    }

    /// Sets the length of every encoding (default: the directory's `model_max_length`, or 77).
    ///
    /// # Errors
    /// Less than 2.
    pub fn with_max_length(mut self, max_length: usize) -> Result<Self, TokenizerError> {
        if max_length < 2 {
            return Err(TokenizerError::MaxLength(max_length));
        }
        self.max_length = max_length;
        Ok(self)
    }

    /// The length of every encoding.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The id that pads.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// Encodes a prompt, any text.
    ///
    /// A prompt that is too long is cut; a warning quotes what was lost, and so does
    /// [`Encoding::truncated`].
    ///
    /// # Errors
    /// The vocabulary lacks a symbol and the unknown token too: never with a complete vocabulary.
    pub fn encode(&self, prompt: &str) -> Result<Encoding, TokenizerError> {
        let mut ids = self.tokens(prompt)?;
        let room = self.max_length - 2;
        let truncated = if ids.len() > room {
            let lost = self.decode(&ids.split_off(room))?;
            tracing::warn!(
                "the end of the prompt was cut, as the text encoder takes only {} tokens: {lost:?}",
                self.max_length
            );
            Some(lost)
        } else {
            None
        };
        ids.insert(0, self.bos);
        ids.push(self.eos);
        ids.resize(self.max_length, self.pad);
        Ok(Encoding { ids, truncated })
    }

    /// The prompt's own tokens, all of them, without start, end and padding.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn tokens(&self, prompt: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.tokenizer.encode_fast(prompt, false);
        let encoding = encoding.map_err(|e| TokenizerError::Tokenizers(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of these ids; a space follows every word. Unknown ids are left out.
    ///
    /// # Errors
    /// None in practice.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let text = self.tokenizer.decode(ids, false);
        let text = text.map_err(|e| TokenizerError::Tokenizers(e.to_string()))?;
        // The reference strips what Python calls white space: these four separators too.
        let space = |c: char| c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}');
        Ok(text.replace(WORD_END, " ").trim_matches(space).to_owned())
    }
}

fn pipeline(vocabulary: Vocabulary, unk: String) -> tokenizers::Result<Tokenizer> {
    let bpe = BPE::builder()
        .vocab_and_merges(
            vocabulary.ids.into_iter().collect::<tokenizers::models::bpe::Vocab>(),
            vocabulary.merges,
        )
        .unk_token(unk)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(WORD_END.into())
        .build()?;
    let mut tokenizer = Tokenizer::new(bpe);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let normalizer =
        tokenizers::normalizers::Sequence::new(vec![NFC.into(), spaces.into(), Lowercase.into()]);
    let pieces = Split::new(SplitPattern::Regex(PIECE.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    let pre = tokenizers::pre_tokenizers::sequence::Sequence::new(vec![pieces.into(), bytes.into()]);
    tokenizer.with_normalizer(Some(normalizer))?;
    tokenizer.with_pre_tokenizer(Some(pre));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Model, Tokenizer};

use super::vocabulary::{Vocabulary, invalid, read};
use crate::clip::TokenizerError;

/// Tokens that are found in a text as they stand.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// BERT's WordPiece tokenizer: from a text to ids.
///
/// Ids equal those of transformers' `BertTokenizer`: control characters dropped, Chinese characters set apart,
/// accents stripped, lower case, split at white space and punctuation, the longest known pieces of each word.
#[derive(Debug, Clone)]
pub struct BertTokenizer {
    tokenizer: Tokenizer,
    normalizer: BertNormalizer,
    max_length: usize,
    pad: u32,
    cls: u32,
    sep: u32,
}

impl BertTokenizer {
    /// Tokens of bert-base-uncased.
    pub const BASE_UNCASED: usize = 30_522;

    /// bert-base-uncased, which the paper's text models were trained with; texts are padded and cut to
    /// `max_length` (77 there).
    ///
    /// # Errors
    /// [`TokenizerError::MaxLength`] below 2.
    pub fn base_uncased(max_length: usize) -> Result<Self, TokenizerError> {
        Self::new(Vocabulary::published(), BertNormalizer::default(), max_length)
    }

    /// Another vocabulary: a `vocab.txt` with one token a line, `[PAD]`, `[UNK]`, `[CLS]` and `[SEP]` among
    /// them, pieces inside a word marked `##`. Texts become lower case.
    ///
    /// # Errors
    /// The file can't be read, a special token is absent, `max_length` is below 2.
    pub fn from_file(path: impl AsRef<Path>, max_length: usize) -> Result<Self, TokenizerError> {
        Self::new(Vocabulary::from_file(path.as_ref())?, BertNormalizer::default(), max_length)
    }

    /// A tokenizer directory: `vocab.txt` or `tokenizer.json`, with `tokenizer_config.json` where present
    /// (`do_lower_case`, `strip_accents`, `tokenize_chinese_chars`).
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file), and where the config is no JSON.
    pub fn from_dir(dir: impl AsRef<Path>, max_length: usize) -> Result<Self, TokenizerError> {
        let dir = dir.as_ref();
        let config = dir.join("tokenizer_config.json");
        let mut normalizer = BertNormalizer::default();
        if config.is_file() {
            let config: Value = serde_json::from_str(&read(&config)?).map_err(|e| invalid(&config, e))?;
            let flag = |key: &str| config.get(key).and_then(Value::as_bool);
            normalizer.lowercase = flag("do_lower_case").unwrap_or(true);
            normalizer.strip_accents = flag("strip_accents");
            normalizer.handle_chinese_chars = flag("tokenize_chinese_chars").unwrap_or(true);
        }
        Self::new(Vocabulary::from_dir(dir)?, normalizer, max_length)
    }

    fn new(
        vocabulary: Vocabulary,
        normalizer: BertNormalizer,
        max_length: usize,
    ) -> Result<Self, TokenizerError> {
        if max_length < 2 {
            return Err(TokenizerError::MaxLength(max_length));
        }
        let Vocabulary(words) = vocabulary;
        let id = |token: &str| {
            let missing = || TokenizerError::Tokenizers(format!("the vocabulary has no {token}"));
            words.get(token).copied().ok_or_else(missing)
        };
        let (pad, cls, sep) = (id("[PAD]")?, id("[CLS]")?, id("[SEP]")?);
        id("[UNK]")?;
        let known = SPECIAL.iter().filter(|token| words.contains_key(**token));
        let special: Vec<_> = known.map(|token| AddedToken::from(*token, true)).collect();
        let build = || {
            let vocab = words.into_iter().collect::<tokenizers::models::bpe::Vocab>();
            let model = WordPiece::builder().vocab(vocab).build()?;
            let mut tokenizer = Tokenizer::new(model);
            tokenizer.with_normalizer(Some(normalizer))?;
            tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
            tokenizer.add_special_tokens(special)?;
            tokenizers::Result::Ok(tokenizer)
        };
        let tokenizer = build().map_err(|e| TokenizerError::Tokenizers(e.to_string()))?;
        Ok(Self { tokenizer, normalizer, max_length, pad, cls, sep })
    }

    /// `[CLS]`, the text's tokens as far as they fit, `[SEP]`, `[PAD]`s: `max_length` ids.
    ///
    /// # Errors
    /// [`TokenizerError::Tokenizers`] where the text can't be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let pieces = self.tokenizer.encode_fast(text, false);
        let pieces = pieces.map_err(|e| TokenizerError::Tokenizers(e.to_string()))?;
        let pieces = pieces.get_ids().iter().copied().take(self.max_length - 2);
        let mut ids: Vec<u32> = std::iter::once(self.cls).chain(pieces).collect();
        ids.push(self.sep);
        ids.resize(self.max_length, self.pad);
        Ok(ids)
    }

    /// The number of ids that every text becomes.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The number of tokens; ids lie below it.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Writes `vocab.txt` and `tokenizer_config.json`, which transformers reads as its `BertTokenizer`.
    ///
    /// # Errors
    /// The directory can't be made or a file can't be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), TokenizerError> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(|source| TokenizerError::Io { path: dir.into(), source })?;
        let model = self.tokenizer.get_model().save(dir, None);
        model.map_err(|e| TokenizerError::Tokenizers(format!("{}: {e}", dir.display())))?;
        let config = json!({
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": self.normalizer.lowercase,
            "strip_accents": self.normalizer.strip_accents,
            "tokenize_chinese_chars": self.normalizer.handle_chinese_chars,
            "model_max_length": self.max_length,
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        });
        let path = dir.join("tokenizer_config.json");
        std::fs::write(&path, format!("{config:#}\n")).map_err(|source| TokenizerError::Io { path, source })
    }
}

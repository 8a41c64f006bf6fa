//! The special tokens of a tokenizer directory, as transformers' `CLIPTokenizer` gathers them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::tokenizer::TokenizerError;
use super::vocabulary::{invalid, read};

/// The order in which transformers registers the named tokens: of two entries for one text the later
/// decides how it is matched.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// CLIP's context length.
const MAX_LENGTH: usize = 77;

/// transformers writes 1e30 where a tokenizer has no limit.
const NO_LIMIT: f64 = 1e9;

/// The tokens that are matched whole, before byte-pair encoding.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    pub bos: String,
    pub eos: String,
    pub unk: String,
    pub pad: String,
    pub max_length: usize,
    /// In the order in which they are registered.
    pub added: Vec<AddedToken>,
}

/// A token in a JSON file: its text, or its text and how it is matched.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Full {
        content: String,
        #[serde(default)]
        single_word: bool,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        normalized: Option<bool>,
        #[serde(default)]
        special: bool,
    },
}

impl Token {
    fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Full { content, .. } => content,
        }
    }

    fn special(self) -> Self {
        match self {
            Self::Full { content, single_word, lstrip, rstrip, normalized, .. } => {
                Self::Full { content, single_word, lstrip, rstrip, normalized, special: true }
            }
            text => text,
        }
    }

    fn added(self) -> AddedToken {
        match self {
            Self::Text(content) => AddedToken::from(content, true),
            Self::Full { content, single_word, lstrip, rstrip, normalized, special } => AddedToken {
                content,
                single_word,
                lstrip,
                rstrip,
                normalized: normalized.unwrap_or(!special),
                special,
            },
        }
    }
}

impl SpecialTokens {
    /// What the published Stable Diffusion tokenizers say, padding with `pad`.
    pub fn published(pad: &str) -> Self {
        let whole = |content: &str| AddedToken::from(content, true).normalized(true);
        let (bos, eos) = ("<|startoftext|>", "<|endoftext|>");
        Self {
            bos: bos.into(),
            eos: eos.into(),
            unk: eos.into(),
            pad: pad.into(),
            max_length: MAX_LENGTH,
            added: vec![whole(bos), whole(eos), AddedToken::from(pad, true)],
        }
    }

    /// Reads `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, where present, and
    /// the `added_tokens` of a `tokenizer.json`.
    pub fn read(dir: &Path, tokenizer_json: Option<&Value>) -> Result<Self, TokenizerError> {
        let config_path = dir.join("tokenizer_config.json");
        let config = object(&config_path)?;
        let mut named = BTreeMap::new();
        collect_named(&config, false, &mut named);
        let mut extra = list(&config, "additional_special_tokens", false);
        extra.extend(list(&config, "extra_special_tokens", false));

        // Tokens with an id of their own come first, by id.
        let mut by_id: BTreeMap<u64, Token> = BTreeMap::new();
        if let Some(decoder) = config.get("added_tokens_decoder") {
            let bad = |e: serde_json::Error| invalid(&config_path, format!("added_tokens_decoder: {e}"));
            by_id = serde_json::from_value(decoder.clone()).map_err(bad)?;
        } else {
            let map = object(&dir.join("special_tokens_map.json"))?;
            collect_named(&map, true, &mut named);
            extra.extend(list(&map, "extra_special_tokens", true));
            for (content, id) in object(&dir.join("added_tokens.json"))? {
                let special = named.values().chain(&extra).any(|t| t.content() == content);
                let token = Token::Full {
                    content,
                    single_word: false,
                    lstrip: false,
                    rstrip: false,
                    normalized: Some(!special),
                    special,
                };
                by_id.extend(id.as_u64().map(|id| (id, token)));
            }
            let listed = tokenizer_json.and_then(|json| json["added_tokens"].as_array());
            for token in listed.into_iter().flatten() {
                let parsed = serde_json::from_value::<Token>(token.clone());
                let token_json = dir.join("tokenizer.json");
                let parsed = parsed.map_err(|e| invalid(&token_json, format!("added_tokens: {e}")))?;
                by_id.extend(token["id"].as_u64().map(|id| (id, parsed)));
            }
            // transformers reads this list only after it has told special added tokens from others.
            extra.extend(list(&map, "additional_special_tokens", true));
        }

        let text = |name: &str, default: &str| named.get(name).map_or(default, Token::content).to_owned();
        let eos = text("eos_token", "<|endoftext|>");
        let mut special = Self {
            bos: text("bos_token", "<|startoftext|>"),
            unk: text("unk_token", "<|endoftext|>"),
            pad: text("pad_token", "<|endoftext|>"),
            eos,
            max_length: max_length(&config_path, &config)?,
            added: by_id.into_values().map(Token::added).collect(),
        };
        for (name, content) in [
            ("bos_token", &special.bos),
            ("eos_token", &special.eos),
            ("unk_token", &special.unk),
            ("pad_token", &special.pad),
        ] {
            named.entry(name.into()).or_insert_with(|| Token::Text(content.clone()));
        }
        let ordered = NAMED.iter().filter_map(|name| named.remove(*name)).collect::<Vec<_>>();
        let known: Vec<String> = special.added.iter().map(|t| t.content.clone()).collect();
        for token in ordered.into_iter().chain(named.into_values()).chain(extra) {
            if !known.iter().any(|content| content == token.content()) {
                special.added.push(token.added());
            }
        }
        Ok(special)
    }
}

/// Every `*_token` of a file.
fn collect_named(fields: &Map<String, Value>, special: bool, named: &mut BTreeMap<String, Token>) {
    for (name, value) in fields {
        // `add_bos_token` ends the same way, but is a flag.
        if let (true, Some(token)) = (name.ends_with("_token"), token(value, special)) {
            named.insert(name.clone(), token);
        }
    }
}

/// A file's list, or object, of further special tokens.
fn list(fields: &Map<String, Value>, name: &str, special: bool) -> Vec<Token> {
    let token = |value| token(value, special);
    match fields.get(name) {
        Some(Value::Array(tokens)) => tokens.iter().filter_map(token).collect(),
        Some(Value::Object(tokens)) => tokens.values().filter_map(token).collect(),
        _ => Vec::new(),
    }
}

fn token(value: &Value, special: bool) -> Option<Token> {
    let token = serde_json::from_value::<Token>(value.clone()).ok()?;
    Some(if special { token.special() } else { token })
}

fn max_length(path: &Path, config: &Map<String, Value>) -> Result<usize, TokenizerError> {
    match config.get("model_max_length") {
        None | Some(Value::Null) => Ok(MAX_LENGTH),
        Some(value) => match value.as_f64() {
            Some(n) if n >= NO_LIMIT => Ok(MAX_LENGTH),
            Some(n) if n >= 2.0 && n.fract() == 0.0 => Ok(n as usize),
            _ => Err(invalid(path, format!("model_max_length: {value} is no length"))),
        },
    }
}

/// The JSON object in a file; empty where there is no file.
fn object(path: &Path) -> Result<Map<String, Value>, TokenizerError> {
    if !path.exists() {
        return Ok(Map::new());
    }
    serde_json::from_str(&read(path)?).map_err(|e| invalid(path, e))
}

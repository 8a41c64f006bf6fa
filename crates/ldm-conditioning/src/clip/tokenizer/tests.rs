//! Against transformers' `CLIPTokenizer` (tests/reference/tokenizer.py), and what must hold for any text.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ldm_test_support::Fixture;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::vocabulary::Vocabulary;
use super::*;

fn write(dir: &Path, name: &str, value: &Value) {
    fs::write(dir.join(name), value.to_string()).unwrap();
}

/// A tokenizer directory with the small files of the fixture, and the vocabulary where they want it.
fn directory(files: &serde_json::Map<String, Value>) -> TempDir {
    let dir = TempDir::new().unwrap();
    let vocabulary = Vocabulary::published().unwrap();
    for (name, content) in files {
        write(dir.path(), name, content);
    }
    if let Some(json) = files.get("tokenizer.json") {
        let mut json = json.clone();
        json["model"]["vocab"] = json!(vocabulary.ids);
        json["model"]["merges"] = json!(vocabulary.merges);
        write(dir.path(), "tokenizer.json", &json);
    } else {
        write(dir.path(), "vocab.json", &json!(vocabulary.ids));
        let merges: String = vocabulary.merges.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
        fs::write(dir.path().join("merges.txt"), format!("#version: 0.2\n{merges}")).unwrap();
    }
    dir
}

fn ragged(fixture: &Fixture, name: &str) -> Vec<Vec<u32>> {
    let mut flat = fixture.ints(name).into_iter().map(|id| id as u32);
    let lengths = fixture.ints(&format!("{name}_lengths"));
    lengths.iter().map(|n| flat.by_ref().take(*n as usize).collect()).collect()
}

/// Ids with and without padding and truncation, and the text that truncation loses.
fn compare(name: &str, tokenizer: &ClipTokenizer, fixture: &Fixture) {
    let texts: Vec<String> = serde_json::from_value(fixture.json("texts")).unwrap();
    let lost: BTreeMap<usize, String> = serde_json::from_value(fixture.json("lost")[name].clone()).unwrap();
    let tokens = ragged(fixture, &format!("{name}.tokens"));
    let padded = fixture.ints(&format!("{name}.ids"));
    assert!(tokens.len() >= 45 && padded.len() >= 45 * tokenizer.max_length());
    for (text, tokens) in texts.iter().zip(&tokens) {
        assert_eq!(&tokenizer.tokens(text).unwrap(), tokens, "{name}: {text:?}");
    }
    for (i, padded) in padded.chunks(tokenizer.max_length()).enumerate() {
        let encoding = tokenizer.encode(&texts[i]).unwrap();
        let ids: Vec<i64> = encoding.ids.iter().map(|id| i64::from(*id)).collect();
        assert_eq!(ids, padded, "{name}: {:?}", texts[i]);
        assert_eq!(encoding.truncated.as_ref(), lost.get(&i), "{name}: {:?}", texts[i]);
    }
}

#[test]
fn directories_equal_transformers() {
    let fixture = Fixture::open("tokenizer");
    let layouts = fixture.json("files");
    for (name, files) in layouts.as_object().unwrap() {
        let dir = directory(files.as_object().unwrap());
        let tokenizer = ClipTokenizer::from_dir(dir.path()).unwrap();
        compare(name, &tokenizer, &fixture);
        // What we write says the same again.
        let copy = dir.path().join("copy");
        tokenizer.save(&copy).unwrap();
        compare(name, &ClipTokenizer::from_dir(copy).unwrap(), &fixture);
    }
}

#[test]
fn the_embedded_vocabulary_equals_the_published_directories() {
    let fixture = Fixture::open("tokenizer");
    compare("sd1", &ClipTokenizer::open_ai().unwrap(), &fixture);
    compare("sd2", &ClipTokenizer::open_clip().unwrap(), &fixture);
}

#[test]
fn every_character_equals_transformers() {
    let fixture = Fixture::open("tokenizer");
    let tokenizer = ClipTokenizer::open_ai().unwrap();
    let expected = fixture.ints("characters");
    // Every plane that has assigned characters; one block of private use.
    let blocks = (0..0x4_0000).step_by(256).chain((0xe_0000..0xe_1000).step_by(256)).chain([0x10_ff00_u32]);
    assert_eq!(expected.len(), blocks.clone().count());
    for (first, expected) in blocks.zip(&expected) {
        let places = |c: char| format!("a{c}b {c} {c}{c}1");
        let texts: Vec<_> = (first..first + 256).filter_map(char::from_u32).map(places).collect();
        let hash =
            tokenizer.tokens(&texts.join(" ")).unwrap().iter().fold(0xcbf2_9ce4_8422_2325, |h, id| {
                (h ^ u64::from(*id)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        assert_eq!(hash as i64, *expected, "a character from {first:#x} on");
    }
}

#[test]
fn older_merges_are_read_too() {
    let vocabulary = Vocabulary::published().unwrap();
    let merges: Vec<String> = vocabulary.merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
    let dir = TempDir::new().unwrap();
    write(dir.path(), "tokenizer.json", &json!({"model": {"vocab": vocabulary.ids, "merges": merges}}));
    compare("bare", &ClipTokenizer::from_dir(dir.path()).unwrap(), &Fixture::open("tokenizer"));
}

#[test]
fn a_long_prompt_says_what_it_lost() {
    let tokenizer = ClipTokenizer::open_ai().unwrap();
    let encoding = tokenizer.encode(&("cat ".repeat(75) + "with a Red hat")).unwrap();
    assert_eq!(encoding.truncated.as_deref(), Some("with a red hat"));
    assert_eq!((encoding.ids.len(), encoding.ids[76]), (77, 49407));
    let fits = tokenizer.encode(&"cat ".repeat(75)).unwrap();
    assert_eq!((fits.truncated, fits.ids), (None, encoding.ids));
}

#[test]
fn wrong_directories_are_named() {
    let error = |files: &[(&str, &str)]| {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let error = ClipTokenizer::from_dir(dir.path()).unwrap_err().to_string();
        error.replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(error(&[]), "DIR: no tokenizer.json, and no vocab.json with merges.txt");
    assert_eq!(error(&[("vocab.json", "{}")]), "DIR: no tokenizer.json, and no vocab.json with merges.txt");
    assert!(error(&[("tokenizer.json", "{")]).starts_with("DIR/tokenizer.json: EOF"));
    assert!(error(&[("tokenizer.json", "[]")]).starts_with("DIR/tokenizer.json: model.vocab"));
    let vocab = ("vocab.json", r#"{"a": 0, "b": 1, "ab": 2}"#);
    assert_eq!(error(&[vocab, ("merges.txt", "a b\nab")]), "DIR/merges.txt: no pair: \"ab\"");
    assert!(error(&[vocab, ("merges.txt", "a c")]).contains("`c`"));
    assert!(
        error(&[("vocab.json", r#"{"a": -1}"#), ("merges.txt", "")])
            .starts_with("DIR/vocab.json: invalid value")
    );
    let config = ("tokenizer_config.json", r#"{"model_max_length": 1}"#);
    assert!(error(&[vocab, ("merges.txt", "a b"), config]).contains("model_max_length: 1 is no length"));
    assert!(matches!(
        ClipTokenizer::open_ai().unwrap().with_max_length(1),
        Err(TokenizerError::MaxLength(1))
    ));
}

proptest! {
    #[test]
    fn any_text_encodes(text in any::<String>(), doubled in any::<bool>()) {
        let tokenizer = OPEN_CLIP.with(Clone::clone);
        let text = if doubled { text.repeat(20) } else { text };
        let encoding = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(encoding.ids.len(), 77);
        prop_assert_eq!(encoding.ids[0], 49406);
        prop_assert!(encoding.ids.iter().all(|id| *id < 49408));
        let tokens = tokenizer.tokens(&text).unwrap();
        prop_assert_eq!(encoding.truncated.is_some(), tokens.len() > 75);
        tokenizer.decode(&tokens).unwrap();
    }

    #[test]
    fn any_ids_decode(ids in prop::collection::vec(any::<u32>(), 0..20)) {
        OPEN_CLIP.with(|t| t.decode(&ids)).unwrap();
    }

    /// Decoding gives the text back, in lower case and with one space after every piece.
    #[test]
    fn decoding_inverts_encoding(words in prop::collection::vec(r"[a-zA-Z\u{e0}-\u{f6}]{1,12}|[0-9]|[#$%&*+,\-.:;=?@~]{1,4}", 1..40), spaces in " {1,3}") {
        let tokenizer = OPEN_AI.with(Clone::clone);
        let tokens = tokenizer.tokens(&words.join(&spaces)).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokens).unwrap(), words.join(" ").to_lowercase());
        let again = tokenizer.tokens(&tokenizer.decode(&tokens).unwrap()).unwrap();
        prop_assert_eq!(again, tokens);
    }
}

thread_local! {
    static OPEN_AI: ClipTokenizer = ClipTokenizer::open_ai().unwrap();
    static OPEN_CLIP: ClipTokenizer = ClipTokenizer::open_clip().unwrap();
}

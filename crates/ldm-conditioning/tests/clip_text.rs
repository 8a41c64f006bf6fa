//! Text encoders against transformers' CLIPTextModel and OpenCLIP's text tower (tests/reference/clip.py).
// The helpers are tests too.
#![allow(clippy::unwrap_used)]

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ldm_conditioning::clip::{
    ClipKeys, ClipText, ClipTextConfig, ClipTextEncoder, ClipTextError, ClipTokenizer, ConfigError,
    HiddenState,
};
use ldm_conditioning::{Conditioner, ConditioningError};
use ldm_nn::weights::{Loader, WeightFile, save_safetensors};
use ldm_test_support::{Fixture, assert_close, write_weights};
use proptest::prelude::*;
use tempfile::TempDir;

const F32: f64 = 1e-4;
const F16: f64 = 1e-2;

/// A fixture's encoder, its weights loaded from a file in the reference's naming.
struct Case {
    fixture: Fixture,
    config: ClipTextConfig,
    dir: TempDir,
    device: Device,
}

impl Case {
    fn new(name: &str) -> Self {
        let fixture = Fixture::open(name);
        let config = ClipTextConfig::from_json(&fixture.json("config").to_string()).unwrap();
        let dir = TempDir::new().unwrap();
        write_weights(&dir.path().join("model.safetensors"), &fixture.shapes("shapes"));
        Self { fixture, config, dir, device: Device::default() }
    }

    fn load(&self, dtype: DType) -> ClipTextEncoder {
        let file = WeightFile::open(self.dir.path().join("model.safetensors")).unwrap();
        let keys = ClipKeys::detect(file.tensors().map(|t| t.name.as_str()), "").unwrap();
        let encoder = self.config.init(&self.device).unwrap();
        let (encoder, report) = Loader::new(&keys).dtype(dtype).load(encoder, &file).unwrap();
        assert_eq!(report.kept, Vec::<String>::new());
        assert_eq!(report.unknown, Vec::<String>::new());
        encoder
    }

    fn ids(&self) -> Tensor<2, Int> {
        self.fixture.int("input_ids", &self.device)
    }

    fn close<const D: usize>(&self, key: &str, actual: Tensor<D>, tolerance: f64) {
        assert_close(key, &actual.cast(DType::F32), &self.fixture.tensor(key, &self.device), tolerance);
    }

    fn compare(&self, encoder: &ClipTextEncoder, tolerance: f64) {
        let output = encoder.forward(self.ids()).unwrap();
        let state = |state| encoder.hidden_state(self.ids(), state).unwrap();
        let skip_2 = HiddenState { skip: 2, final_norm: true };
        self.close("penultimate", output.penultimate(), tolerance);
        self.close("penultimate", state(HiddenState::PENULTIMATE), tolerance);
        self.close("last_hidden_state", state(HiddenState::LAST), tolerance);
        self.close("skip_2_normed", state(skip_2), tolerance);
        self.close("skip_2_normed", encoder.select(&output, skip_2).unwrap(), tolerance);
        self.close("last_hidden_state", output.last_hidden_state, tolerance);
        self.close("pooler_output", output.pooler_output, tolerance);
        assert_eq!(output.text_embeds.is_some(), self.config.has_projection());
        if let Some(text_embeds) = output.text_embeds {
            self.close("text_embeds", text_embeds, tolerance);
        }
    }
}

/// quick_gelu, 77 tokens, pooled at the largest id.
#[test]
fn stable_diffusion_1() {
    let case = Case::new("clip_sd1");
    case.compare(&case.load(DType::F32), F32);
}

/// Exact GELU, 31 tokens, pooled at the end of text, which one row lacks.
#[test]
fn stable_diffusion_2() {
    let case = Case::new("clip_sd2");
    case.compare(&case.load(DType::F32), F32);
}

/// Exact GELU, head width 8, with a projection.
#[test]
fn sdxl_with_projection() {
    let case = Case::new("clip_sdxl");
    case.compare(&case.load(DType::F32), F32);
}

#[test]
fn half_precision() {
    for name in ["clip_sd1", "clip_sd2", "clip_sdxl"] {
        let case = Case::new(name);
        for dtype in [DType::F16, DType::BF16].into_iter().filter(|d| case.device.supports_dtype(*d)) {
            // bf16 keeps 3 bits less than f16.
            let tolerance = if dtype == DType::F16 { F16 } else { 8.0 * F16 };
            println!("{name} {dtype:?}");
            let encoder = case.load(dtype);
            assert_eq!(encoder.forward(case.ids()).unwrap().last_hidden_state.dtype(), dtype);
            case.compare(&encoder, tolerance);
        }
    }
}

/// OpenCLIP's names and layouts: fused q, k, v and a transposed projection.
#[test]
fn open_clip_names() {
    let case = Case::new("clip_open_clip");
    let encoder = case.load(DType::F32);
    let output = encoder.forward(case.ids()).unwrap();
    case.close("penultimate", output.penultimate(), F32);
    case.close("text_embeds", output.text_embeds.unwrap(), F32);
    let normed = encoder.hidden_state(case.ids(), HiddenState::PENULTIMATE_NORMED).unwrap();
    case.close("penultimate_normed", normed, F32);
}

/// Stable Diffusion 2's file holds one layer more than its converted config: the last layer of the shorter
/// encoder is the penultimate one of the file.
#[test]
fn open_clip_without_its_last_layer() {
    let mut case = Case::new("clip_open_clip");
    case.config.num_hidden_layers -= 1;
    case.config.architectures = vec!["CLIPTextModel".into()];
    let file = WeightFile::open(case.dir.path().join("model.safetensors")).unwrap();
    let encoder = case.config.init(&case.device).unwrap();
    let (encoder, report) = Loader::new(&ClipKeys::OpenClip).load(encoder, &file).unwrap();
    assert_eq!(report.unknown.len(), 12 + 1, "one layer and the projection: {:?}", report.unknown);
    let output = encoder.forward(case.ids()).unwrap();
    case.close("penultimate_normed", output.last_hidden_state, F32);
}

/// load(save(m)) = m in both namings, and the text model's prefix is optional.
#[test]
fn saving_and_loading_changes_nothing() {
    for (name, keys) in [("clip_sdxl", ClipKeys::Transformers), ("clip_open_clip", ClipKeys::OpenClip)] {
        let case = Case::new(name);
        let encoder = case.load(DType::F32);
        let path = case.dir.path().join("saved.safetensors");
        save_safetensors(&encoder, &keys, &path, DType::F32).unwrap();
        let saved = WeightFile::open(&path).unwrap();
        let mut names: Vec<_> = saved.tensors().map(|t| (t.name.clone(), t.shape.clone())).collect();
        names.sort();
        assert_eq!(names, case.fixture.shapes("shapes"));
        let fresh = case.config.init(&case.device).unwrap();
        let (again, _) = Loader::new(&keys).load(fresh, &saved).unwrap();
        let run = |e: &ClipTextEncoder| e.forward(case.ids()).unwrap().last_hidden_state.to_data();
        assert_eq!(run(&encoder), run(&again));
    }
    let case = Case::new("clip_sd1");
    let encoder = case.load(DType::F32);
    let path = case.dir.path().join("prefixed.safetensors");
    save_safetensors(&encoder, &ClipKeys::Transformers, &path, DType::F32).unwrap();
    let saved = WeightFile::open(&path).unwrap();
    assert!(saved.tensors().all(|t| t.name.starts_with("text_model.")));
    assert!(case.fixture.shapes("shapes").iter().all(|(name, _)| !name.starts_with("text_model.")));
    let fresh = case.config.init(&case.device).unwrap();
    let (again, _) = Loader::new(&ClipKeys::Transformers).load(fresh, &saved).unwrap();
    case.compare(&again, F32);
}

/// Any sizes, with and without a projection.
fn any_config() -> impl Strategy<Value = ClipTextConfig> {
    let sizes = (1usize..=20, 1usize..=3, 1usize..=4, 1usize..=9, 1usize..=3, 1usize..=6);
    (sizes, prop::option::of(1usize..=5)).prop_map(|(sizes, projection)| {
        let (vocab_size, num_attention_heads, width, intermediate_size, num_hidden_layers, positions) = sizes;
        let class = if projection.is_some() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
        ClipTextConfig {
            architectures: vec![class.into()],
            vocab_size,
            hidden_size: num_attention_heads * width,
            intermediate_size,
            projection_dim: projection.unwrap_or(1),
            num_hidden_layers,
            num_attention_heads,
            max_position_embeddings: positions,
            ..ClipTextConfig::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// load(save(m)) = m in both namings, every bit of every parameter.
    #[test]
    fn an_encoder_of_any_size_comes_back(config in any_config()) {
        let dir = TempDir::new().unwrap();
        let save = |encoder: &ClipTextEncoder, keys: ClipKeys| {
            let path = dir.path().join("model.safetensors");
            save_safetensors(encoder, &keys, &path, DType::F32).unwrap();
            std::fs::read(path).unwrap()
        };
        let load = |bytes: &[u8], keys: ClipKeys| {
            let path = dir.path().join("model.safetensors");
            std::fs::write(&path, bytes).unwrap();
            let fresh = config.init(&Device::default()).unwrap();
            Loader::new(&keys).load(fresh, &WeightFile::open(path).unwrap()).unwrap().0
        };
        // Parameters are drawn when they are first used: those that a file gave are settled.
        let drawn = save(&config.init(&Device::default()).unwrap(), ClipKeys::Transformers);
        let encoder = load(&drawn, ClipKeys::Transformers);
        for keys in [ClipKeys::Transformers, ClipKeys::OpenClip] {
            let again = load(&save(&encoder, keys), keys);
            prop_assert!(save(&again, ClipKeys::Transformers) == drawn, "{:?}", keys);
        }
    }
}

#[test]
fn prefixes_tell_the_naming() {
    let detect = |name, prefix| ClipKeys::detect(["unrelated", name], prefix);
    let open = "cond_stage_model.model.token_embedding.weight";
    assert_eq!(detect(open, "cond_stage_model.model."), Some(ClipKeys::OpenClip));
    assert_eq!(detect(open, "cond_stage_model.transformer."), None);
    let first = "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight";
    assert_eq!(detect(first, "conditioner.embedders.0.transformer."), Some(ClipKeys::Transformers));
}

#[test]
fn wrong_ids_are_errors() {
    let config = ClipTextConfig {
        vocab_size: 10,
        hidden_size: 8,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        max_position_embeddings: 4,
        ..ClipTextConfig::default()
    };
    let device = Device::default();
    let encoder = config.init(&device).unwrap();
    let ids = |rows: usize, ids: &[i32]| {
        let shape = [rows, ids.len() / rows.max(1)];
        Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), shape), &device)
    };
    let refused = |ids| encoder.forward(ids).unwrap_err();
    let outside = |id, row| ClipTextError::IdOutOfVocabulary { id, row, vocab_size: 10 };
    assert_eq!(refused(ids(2, &[1, 9, 10, 2])), outside(10, 1));
    assert_eq!(refused(ids(1, &[-1])), outside(-1, 0));
    assert_eq!(refused(ids(1, &[0; 5])), ClipTextError::Length { length: 5, max: 4 });
    let skip = HiddenState { skip: 2, final_norm: true };
    assert_eq!(
        encoder.hidden_state(ids(1, &[0]), skip).unwrap_err(),
        ClipTextError::Skip { skip: 2, layers: 1 }
    );
    let nothing = HiddenState { skip: 1, final_norm: false };
    assert_eq!(encoder.hidden_state(ids(1, &[0]), nothing).unwrap().dims(), [1, 1, 8]);
}

#[test]
fn wrong_configs_name_the_field() {
    let field = |json: &str| match ClipTextConfig::from_json(json) {
        Err(ConfigError::Field { field, .. }) => field,
        other => panic!("{json}: {other:?}"),
    };
    assert_eq!(field(r#"{"hidden_size": "wide"}"#), "hidden_size");
    assert_eq!(field(r#"{"hidden_size": 0}"#), "hidden_size");
    assert_eq!(field(r#"{"vocab_size": -1}"#), "vocab_size");
    assert_eq!(field(r#"{"hidden_act": "relu"}"#), "hidden_act");
    assert_eq!(field(r#"{"num_attention_heads": 7}"#), "num_attention_heads");
    assert_eq!(field(r#"{"num_hidden_layers": 1e30}"#), "num_hidden_layers");
    assert_eq!(field(r#"{"num_hidden_layers": 99999999999}"#), "num_hidden_layers");
    assert_eq!(field(r#"{"num_hidden_layers": 1025}"#), "num_hidden_layers");
    assert!(ClipTextConfig::from_json(r#"{"num_hidden_layers": 1024}"#).is_ok());
    assert_eq!(field(r#"{"layer_norm_eps": -1}"#), "layer_norm_eps");
    assert_eq!(field(r#"{"eos_token_id": [1, 2]}"#), "eos_token_id");
    assert!(matches!(ClipTextConfig::from_json("[]"), Err(ConfigError::Json(_))));
    let error = ClipTextConfig::from_file("nowhere/config.json").unwrap_err().to_string();
    assert!(error.starts_with("nowhere/config.json: "), "{error}");
}

#[test]
fn configs_are_read_with_defaults_and_written_whole() {
    let config = ClipTextConfig::from_json(r#"{"hidden_size": 64, "transformers_version": "4.0"}"#).unwrap();
    assert_eq!(config, ClipTextConfig { hidden_size: 64, ..ClipTextConfig::default() });
    let presets = [
        (ClipTextConfig::vit_l_14(), 768, 12, false),
        (ClipTextConfig::open_clip_h_14(), 1024, 23, false),
        (ClipTextConfig::open_clip_big_g_14(), 1280, 32, true),
    ];
    for (config, width, layers, projection) in presets {
        assert_eq!((config.hidden_size, config.num_hidden_layers), (width, layers));
        assert_eq!(config.has_projection(), projection);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(ClipTextConfig::from_json(&text).unwrap(), config);
    }
}

/// Prompts through tokenizer and encoder, as a pipeline uses them.
#[test]
fn prompts_become_context() {
    let config = ClipTextConfig {
        architectures: vec!["CLIPTextModelWithProjection".into()],
        hidden_size: 8,
        intermediate_size: 8,
        projection_dim: 6,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        ..ClipTextConfig::default()
    };
    let encoder = config.init(&Device::default()).unwrap();
    let tokenizer = ClipTokenizer::open_clip().unwrap();
    let text = ClipText::new(tokenizer, encoder, HiddenState::PENULTIMATE);
    let long = "10,000 ".repeat(1_429);
    let conditioning = text.encode(&["a cat", "", "\u{0}\u{7}\u{1b}[31m", &long][..]).unwrap();
    let (context, embeds) =
        (conditioning.context.clone().unwrap(), conditioning.text_embeds.clone().unwrap());
    assert_eq!((context.dims(), embeds.dims()), ([4, 77, 8], [4, 6]));
    let whole = text.encoder.forward(text.input_ids(&["a cat"]).unwrap()).unwrap();
    assert_close("context", &context.narrow(0, 0, 1), &whole.penultimate(), 1e-5);
    assert_close("text_embeds", &embeds.narrow(0, 0, 1), &whole.text_embeds.unwrap(), 1e-5);
    let zeros = conditioning.zeros_like();
    assert_eq!(zeros.context.unwrap().abs().max().into_scalar::<f32>(), 0.0);
    assert!(matches!(text.encode(&[] as &[&str]), Err(ConditioningError::EmptyBatch)));
}

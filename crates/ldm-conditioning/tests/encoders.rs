//! The encoders tau_theta against the original code, with weights under its names
//! (tests/reference/conditioning.py).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ldm_conditioning::bert::{BertConfigError, BertEmbedderConfig, BertError, BertKeys, BertTokenizer};
use ldm_conditioning::clip::{ClipImageEmbedder, ClipVisionConfig, ClipVisionKeys};
use ldm_conditioning::{
    BoundingBox, ClassEmbedderConfig, CondStage, CondStageConfig, CondStageConfigError, Condition,
    ConditioningError, Layout, LayoutError, LayoutObject, LayoutTokenizer, SpatialRescalerConfig,
    SpatialRescalerError,
};
use ldm_nn::weights::{KeyMap, Loader, WeightFile, save_safetensors};
use ldm_nn::{InterpolateMethod, Interpolation};
use ldm_test_support::{Fixture, assert_close, seeded_input, write_weights};
use serde_json::{Value, json};

const TOLERANCE: f64 = 1e-4;

/// The module with seeded weights under the file's names; every tensor of the file is used.
fn load<M: Module>(module: M, keys: &dyn KeyMap, shapes: &[(String, Vec<usize>)]) -> M {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    write_weights(&path, shapes);
    let (module, report) = Loader::new(keys).load(module, &WeightFile::open(&path).unwrap()).unwrap();
    assert_eq!((report.kept, report.unknown), (vec![], vec![]));
    module
}

fn bert(name: &str, target: &str) {
    let (fixture, device) = (Fixture::open(name), Device::default());
    let target = format!("ldm.modules.encoders.modules.{target}");
    let config = CondStageConfig::from_target(&target, &fixture.json("config")).unwrap();
    let stage = config.init(&device).unwrap();
    let keys = stage.compvis_keys();
    let shapes = fixture.shapes("shapes");
    let stage = load(stage, &keys, &shapes);
    let tokens = Condition::Tokens(fixture.int("tokens", &device));
    let context = stage.encode(&tokens).unwrap().context.unwrap();
    assert_close(name, &context, &fixture.tensor("context", &device), TOLERANCE);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.safetensors");
    save_safetensors(&stage, &keys, &path, DType::F32).unwrap();
    let saved = WeightFile::open(&path).unwrap();
    let mut names: Vec<_> = saved.tensors().map(|t| (t.name.clone(), t.shape.clone())).collect();
    names.sort();
    assert_eq!(names, shapes);
}

#[test]
fn bert_over_texts_32_layers() {
    bert("bert_text", "BERTEmbedder");
}

#[test]
fn bert_over_layouts_16_layers() {
    bert("bert_layout", "BERTEmbedder");
    bert("bert_short", "TransformerEmbedder");
}

#[test]
fn ldmbert_of_diffusers() {
    let (fixture, device) = (Fixture::open("ldmbert"), Device::default());
    let config = BertEmbedderConfig::from_diffusers(&fixture.json("config")).unwrap();
    let model = load(config.init(&device).unwrap(), &BertKeys::Diffusers, &fixture.shapes("shapes"));
    let context = model.forward(fixture.int("tokens", &device)).unwrap();
    assert_close("ldmbert", &context, &fixture.tensor("context", &device), TOLERANCE);
    let written = Value::Object(config.to_diffusers());
    assert_eq!(BertEmbedderConfig::from_diffusers(&written).unwrap(), config);
    let refused = |key: &str, value: Value| {
        let mut json = fixture.json("config");
        json[key] = value;
        BertEmbedderConfig::from_diffusers(&json).unwrap_err().to_string()
    };
    assert!(refused("activation_function", json!("relu")).contains("`activation_function` = \"relu\""));
    assert!(refused("encoder_ffn_dim", json!(95)).contains("`encoder_ffn_dim` = 95"));
}

#[test]
fn word_pieces_are_those_of_transformers() {
    let fixture = Fixture::open("wordpiece");
    let texts: Vec<String> = serde_json::from_value(fixture.json("texts")).unwrap();
    let device = Device::default();
    let rows = |key: &str| -> Vec<Vec<i64>> {
        let ids: Tensor<2, Int> = fixture.int(key, &device);
        let length = ids.dims()[1];
        ids.to_data().iter::<i64>().collect::<Vec<_>>().chunks(length).map(<[i64]>::to_vec).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    BertTokenizer::base_uncased(77).unwrap().save(folder.path()).unwrap();
    let tokenizers = [
        ("ids", BertTokenizer::base_uncased(77).unwrap()),
        ("short", BertTokenizer::base_uncased(10).unwrap()),
        ("ids", BertTokenizer::from_dir(folder.path(), 77).unwrap()),
        ("ids", BertTokenizer::from_file(folder.path().join("vocab.txt"), 77).unwrap()),
    ];
    assert!(texts.len() > 80);
    for (key, tokenizer) in tokenizers {
        assert_eq!(tokenizer.vocab_size(), 30_522);
        for (text, expected) in texts.iter().zip(rows(key)) {
            let ids: Vec<i64> = tokenizer.encode(text).unwrap().into_iter().map(i64::from).collect();
            assert_eq!(ids, expected, "{text:?}");
        }
    }
}

#[test]
fn a_vocabulary_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    std::fs::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\nfox\nred\n##ish\n").unwrap();
    let tokenizer = BertTokenizer::from_file(&path, 8).unwrap();
    assert_eq!(tokenizer.encode("Reddish FOX, redish fox red fox").unwrap(), [2, 1, 4, 1, 5, 6, 4, 3]);

    let mut config = BertEmbedderConfig::new(8, 1);
    (config.vocab_size, config.max_seq_len, config.heads, config.dim_head) = (7, 8, 2, 4);
    let stage = CondStageConfig::BertEmbedder(config.clone()).init(&Device::default()).unwrap();
    let text = Condition::Text(vec!["red fox".into(), String::new()]);
    let error = stage.encode(&text).unwrap_err();
    assert!(matches!(error, ConditioningError::Bert(BertError::NoTokenizer)), "{error}");
    let embedder = config.init(&Device::default()).unwrap();
    let embedder = embedder.with_tokenizer(Arc::new(tokenizer)).unwrap();
    let stage = CondStage::BertEmbedder(embedder);
    assert_eq!(stage.encode(&text).unwrap().context.unwrap().dims(), [2, 8, 8]);

    let embedder = config.init(&Device::default()).unwrap();
    let error = embedder.with_tokenizer(Arc::new(BertTokenizer::base_uncased(8).unwrap())).unwrap_err();
    assert_eq!(error, BertError::Tokenizer { what: "a vocabulary of", got: 30_522, max: 7 });
    std::fs::write(&path, "[PAD]\n[CLS]\n[SEP]\n").unwrap();
    let error = BertTokenizer::from_file(&path, 8).unwrap_err().to_string();
    assert!(error.contains("no [UNK]"), "{error}");
}

/// The whole of the reference's text side: words to context.
#[test]
fn texts_become_context() {
    let mut config = BertEmbedderConfig::new(8, 2);
    config.dim_head = 4;
    let stage = CondStageConfig::BertEmbedder(config).init(&Device::default()).unwrap();
    let text = Condition::Text(vec!["a virus monster".into(), "oil on canvas".into()]);
    assert_eq!(stage.encode(&text).unwrap().context.unwrap().dims(), [2, 77, 8]);
    let CondStage::BertEmbedder(embedder) = &stage else { panic!("{}", stage.name()) };
    let ids: Vec<i64> = embedder.tokens(&["a virus"]).unwrap().to_data().iter::<i64>().collect();
    assert_eq!(ids[..5], [101, 1037, 7865, 102, 0]);
}

#[test]
fn layouts_are_tokens_as_the_original_builds_them() {
    let cases: Vec<Value> = serde_json::from_value(Fixture::open("layout").json("cases")).unwrap();
    assert_eq!(cases.len(), 24);
    for case in cases {
        let tokenizer: LayoutTokenizer = serde_json::from_value(case["config"].clone()).unwrap();
        let number = |v: &Value| v.as_f64().unwrap();
        let bounds =
            |v: &[Value]| BoundingBox::new(number(&v[0]), number(&v[1]), number(&v[2]), number(&v[3]));
        let object = |v: &Value| {
            let v = v.as_array().unwrap();
            let flag = |i: usize| v[i].as_bool().unwrap();
            LayoutObject {
                class: v[0].as_u64().unwrap() as usize,
                bbox: bounds(&v[1..5]),
                is_group_of: flag(5),
                is_occluded: flag(6),
                is_depiction: flag(7),
                is_inside: flag(8),
            }
        };
        let layout = Layout {
            objects: case["objects"].as_array().unwrap().iter().map(object).collect(),
            crop: bounds(case["crop"].as_array().unwrap()),
            horizontal_flip: case["flip"].as_bool().unwrap(),
        };
        let expected: Vec<i64> = serde_json::from_value(case["tokens"].clone()).unwrap();
        assert_eq!(tokenizer.encode(&layout).unwrap(), expected);
        assert_eq!(tokenizer.length(), expected.len());
    }
}

#[test]
fn bad_layouts_are_named() {
    let tokenizer = LayoutTokenizer::new(600);
    assert_eq!((tokenizer.length(), tokenizer.none()), (92, 8191));
    let bbox = BoundingBox::new(0.5, 0.5, 0.25, 0.25);
    let refused = |objects: Vec<LayoutObject>| tokenizer.encode(&Layout::new(objects)).unwrap_err();
    let outside = BoundingBox::new(0.5, 0.5, 0.6, 0.1);
    let error = refused(vec![LayoutObject::new(1, bbox), LayoutObject::new(1, outside)]);
    assert_eq!(error, LayoutError::BoxOutside { object: Some(1), bbox: outside });
    assert!(error.to_string().contains("box of object 1 from (0.5, 0.5), 0.6 wide"), "{error}");
    for bbox in [
        BoundingBox::new(-0.1, 0.0, 0.5, 0.5),
        BoundingBox::new(0.1, 0.0, 0.0, 0.5),
        BoundingBox::new(0.1, f64::NAN, 0.1, 0.5),
    ] {
        assert!(matches!(refused(vec![LayoutObject::new(1, bbox)]), LayoutError::BoxOutside { .. }));
    }
    let class = LayoutError::ClassOutOfRange { class: 600, object: 0, classes: 600 };
    assert_eq!(refused(vec![LayoutObject::new(600, bbox)]), class);
    let many = vec![LayoutObject::new(1, bbox); 31];
    assert_eq!(refused(many), LayoutError::TooManyObjects { got: 31, max: 30 });
    let all = LayoutObject {
        is_group_of: true,
        is_occluded: true,
        is_depiction: true,
        is_inside: true,
        ..LayoutObject::new(0, bbox)
    };
    let word = LayoutError::OutOfVocabulary { object: 0, token: 9000, no_tokens: 8192 };
    assert_eq!(refused(vec![all]), word);
    let crop = Layout { crop: outside, ..Layout::new(vec![]) };
    let error = tokenizer.encode(&crop).unwrap_err();
    assert_eq!(error, LayoutError::BoxOutside { object: None, bbox: outside });
}

#[test]
fn maps_are_rescaled_as_the_original_does() {
    let (fixture, device) = (Fixture::open("rescaler"), Device::default());
    let cases: Vec<Value> = serde_json::from_value(fixture.json("cases")).unwrap();
    for (i, case) in cases.iter().enumerate() {
        let target = "ldm.modules.encoders.modules.SpatialRescaler";
        let stage = CondStageConfig::from_target(target, &case["config"]).unwrap().init(&device).unwrap();
        let shapes: std::collections::BTreeMap<String, Vec<usize>> =
            serde_json::from_value(case["shapes"].clone()).unwrap();
        let keys = stage.compvis_keys();
        let stage = load(stage, &keys, &shapes.into_iter().collect::<Vec<_>>());
        let shape: [usize; 4] = serde_json::from_value(case["shape"].clone()).unwrap();
        let map = Condition::Image(seeded_input(&format!("rescaler.{i}"), shape, &device));
        let concat = stage.encode(&map).unwrap().concat.unwrap();
        assert_close(&case["config"].to_string(), &concat, &fixture.tensor(&i.to_string(), &device), 1e-5);
    }
    let x = seeded_input("interpolate", [1, 2, 11, 13], &device);
    let sizes: Vec<(InterpolateMethod, bool, bool, [usize; 2])> =
        serde_json::from_value(fixture.json("sizes")).unwrap();
    for (i, (method, align, antialias, size)) in sizes.into_iter().enumerate() {
        let resample = Interpolation::new(method).with_align_corners(align).with_antialias(antialias);
        let expected = fixture.tensor(&format!("size.{i}"), &device);
        let name = format!("{method:?} {align} {antialias} {size:?}");
        assert_close(&name, &resample.to_size(x.clone(), size), &expected, 1e-5);
    }
}

#[test]
fn bad_maps_are_named() {
    let device = Device::default();
    let stage = CondStage::SpatialRescaler(SpatialRescalerConfig::new(2, 3).init(&device).unwrap());
    let refused = |shape: [usize; 4]| match stage.encode(&Condition::Image(Tensor::zeros(shape, &device))) {
        Err(ConditioningError::Map(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused([1, 4, 8, 8]), SpatialRescalerError::Channels { expected: 3, got: 4 });
    assert_eq!(refused([1, 4, 8, 8]).to_string(), "the map has 4 channels, the rescaler takes 3");
    let small = SpatialRescalerError::TooSmall { height: 3, width: 9, n_stages: 2, multiplier: 0.5 };
    assert_eq!(refused([1, 3, 3, 9]), small);
}

#[test]
fn classes_are_a_context_of_one_token() {
    let device = Device::default();
    let stage = CondStage::ClassEmbedder(ClassEmbedderConfig::new(6, 10).init(&device));
    let keys = stage.compvis_keys();
    let stage = load(stage, &keys, &[("embedding.weight".into(), vec![10, 6])]);
    let context = stage.encode(&Condition::Classes(vec![9, 0])).unwrap().context.unwrap();
    let CondStage::ClassEmbedder(embedder) = &stage else { panic!("{}", stage.name()) };
    let rows = embedder.embedding.weight.val();
    let expected = Tensor::cat(vec![rows.clone().narrow(0, 9, 1), rows.narrow(0, 0, 1)], 0);
    assert_close("classes", &context, &expected.unsqueeze_dim::<3>(1), 0.0);
    let refused =
        |classes: &[i64]| stage.encode(&Condition::Classes(classes.into())).unwrap_err().to_string();
    assert_eq!(refused(&[0, 10]), "class 10 of item 1 is outside 0..10");
    assert_eq!(refused(&[-1]), "class -1 of item 0 is outside 0..10");
    assert_eq!(refused(&[]), "an empty batch of conditions");
}

#[test]
fn fields_of_a_vision_config_are_named() {
    for (text, part) in [
        (r#"{"image_size": "224"}"#, "image_size: invalid type"),
        (r#"{"patch_size": 1.5}"#, "patch_size: invalid type"),
        (r#"{"hidden_act": "relu"}"#, "hidden_act: unknown variant"),
        ("[]", "no JSON object"),
    ] {
        let error = ClipVisionConfig::from_json(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn clip_embeds_pictures() {
    let (fixture, device) = (Fixture::open("clip_vision"), Device::default());
    let image = seeded_input("clip_vision.image", [2, 3, 20, 37], &device) / 3f32.sqrt();
    let config = ClipVisionConfig::from_json(&fixture.json("config").to_string()).unwrap();
    let encoder =
        load(config.init(&device).unwrap(), &ClipVisionKeys::Transformers, &fixture.shapes("shapes"));
    let embedder = ClipImageEmbedder::new(encoder);
    let pixels = embedder.preprocess(image.clone());
    let output = embedder.encoder.forward(pixels.clone()).unwrap();
    let seventh = |x: Tensor<4>, axis| {
        let at = Tensor::<1, Int>::from_ints([0, 7, 14, 21, 28, 35, 42], &device);
        x.select(axis, at)
    };
    let some = seventh(seventh(pixels, 2), 3);
    assert_close("pixels", &some, &fixture.tensor("pixel_values", &device), 1e-5);
    assert_close(
        "state",
        &output.last_hidden_state,
        &fixture.tensor("last_hidden_state", &device),
        TOLERANCE,
    );
    assert_close("embeds", &output.image_embeds, &fixture.tensor("image_embeds", &device), TOLERANCE);

    let unit = embedder.clone().with_normalize(true).embed(image.clone()).unwrap();
    let length = unit.powi_scalar(2).sum_dim(1);
    assert_close("lengths", &length, &Tensor::ones([2, 1], &device), 1e-5);
    let stage = CondStage::ClipImageEmbedder(embedder);
    let context = stage.encode(&Condition::Image(image.clone())).unwrap().context.unwrap();
    let expected = fixture.tensor::<2>("image_embeds", &device).unsqueeze_dim::<3>(1);
    assert_close("context", &context, &expected, TOLERANCE);
    let grey = stage.encode(&Condition::Image(image.clone().narrow(1, 0, 1))).unwrap_err();
    assert!(grey.to_string().contains("[1, 20, 37] channels"), "{grey}");

    // OpenCLIP's names, which are OpenAI's too.
    let fixture = Fixture::open("clip_vision_open");
    let config = ClipVisionConfig::from_json(&fixture.json("config").to_string()).unwrap();
    let encoder = load(config.init(&device).unwrap(), &ClipVisionKeys::OpenClip, &fixture.shapes("shapes"));
    let embeds = ClipImageEmbedder::new(encoder).embed(image).unwrap();
    assert_close("open", &embeds, &fixture.tensor("image_embeds", &device), TOLERANCE);
}

#[test]
fn an_encoder_takes_its_own_kind_alone() {
    let device = Device::default();
    let classes = CondStage::ClassEmbedder(ClassEmbedderConfig::new(6, 10).init(&device));
    let maps = CondStage::SpatialRescaler(SpatialRescalerConfig::new(1, 3).init(&device).unwrap());
    let text = Condition::Text(vec!["a fox".into()]);
    let error = classes.encode(&text).unwrap_err();
    assert_eq!(error.to_string(), "ClassEmbedder does not take texts");
    assert_eq!(
        maps.encode(&Condition::Classes(vec![1])).unwrap_err().to_string(),
        "SpatialRescaler does not take classes"
    );
    assert_eq!(CondStage::identity().encode(&text).unwrap_err().to_string(), "Identity does not take texts");

    // Hybrid: channels from one, context from the other.
    let map = |b| Condition::Image(Tensor::zeros([b, 3, 8, 8], &device));
    let hybrid = CondStage::hybrid(maps, classes);
    let both = hybrid.encode(&Condition::both(map(2), Condition::Classes(vec![1, 2]))).unwrap();
    assert_eq!((both.concat.unwrap().dims(), both.context.unwrap().dims()), ([2, 3, 4, 4], [2, 1, 6]));
    let error = hybrid.encode(&Condition::both(map(1), Condition::Classes(vec![1, 2]))).unwrap_err();
    assert!(error.to_string().contains("`concat` has 1 items, `context` has 2"), "{error}");
    assert!(hybrid.encode(&map(1)).is_err());

    let latent = Condition::Latent(Tensor::ones([2, 4, 8, 8], &device));
    let neighbours = Condition::Context(Tensor::ones([2, 10, 5], &device));
    let given = CondStage::identity().encode(&Condition::both(latent, neighbours)).unwrap();
    assert_eq!(given.batch().unwrap(), Some(2));
    assert!(given.concat.is_some() && given.context.is_some());
    let labels = CondStage::identity().encode(&Condition::Classes(vec![3])).unwrap();
    assert_eq!(labels.class_labels, Some(vec![3]));
}

#[test]
fn conditions_are_selected() {
    let device = Device::default();
    let both = Condition::both(
        Condition::Text(vec!["a".into(), "b".into(), "c".into()]),
        Condition::Vector(Tensor::from_floats([[0.0], [1.0], [2.0]], &device)),
    );
    assert_eq!(both.batch(), Some(3));
    let Condition::Both(text, vector) = both.select(&[2, 0]).unwrap() else { panic!("two conditions") };
    assert!(matches!(*text, Condition::Text(t) if t == ["c", "a"]));
    let Condition::Vector(vector) = *vector else { panic!("vectors") };
    assert_eq!(vector.to_data().iter::<f32>().collect::<Vec<_>>(), [2.0, 0.0]);
    assert!(matches!(both.select(&[3]), Err(ConditioningError::Item { item: 3, items: 3 })));
}

#[test]
fn configs_name_what_is_wrong() {
    let of = |name: &str, params: Value| {
        CondStageConfig::from_target(&format!("ldm.modules.encoders.modules.{name}"), &params)
    };
    let error = of("FrozenT5Embedder", Value::Null).unwrap_err();
    assert!(error.to_string().contains("unknown target `ldm.modules.encoders.modules.FrozenT5Embedder`"));
    let message = |name: &str, params| of(name, params).unwrap_err().to_string();
    assert!(message("ClassEmbedder", json!({"embed_dims": 512})).contains("`embed_dims`"));
    assert!(message("ClassEmbedder", json!({})).contains("`embed_dim`"));
    assert!(message("SpatialRescaler", json!({"method": "trilinear"})).contains("`trilinear`"));
    assert!(message("TransformerEmbedder", json!({"n_embed": 8, "n_layer": 1})).contains("`vocab_size`"));
    let error = of("BERTEmbedder", json!({"n_embed": 0, "n_layer": 1})).unwrap_err();
    let expected =
        BertConfigError::Value { key: "n_embed", value: "0".into(), reason: "not between 1 and 2^24" };
    assert!(matches!(error, CondStageConfigError::Bert(e) if e == expected));
    let layers = |n_layer: usize| of("BERTEmbedder", json!({"n_embed": 8, "n_layer": n_layer}));
    assert!(layers(1024).is_ok());
    let expected =
        BertConfigError::Value { key: "n_layer", value: "1025".into(), reason: "not between 1 and 1024" };
    assert!(matches!(layers(1025).unwrap_err(), CondStageConfigError::Bert(e) if e == expected));
    let clip = of("FrozenClipImageEmbedder", json!({"model": "RN50"})).unwrap();
    assert!(clip.init(&Device::default()).unwrap_err().to_string().contains("`model` = RN50"));

    // The YAML files' own params, and back.
    for (name, params) in [
        ("ClassEmbedder", json!({"embed_dim": 512, "key": "class_label"})),
        ("BERTEmbedder", json!({"n_embed": 1280, "n_layer": 32})),
        ("SpatialRescaler", json!({"n_stages": 2, "in_channels": 182, "out_channels": 3})),
        ("FrozenCLIPTextEmbedder", json!({"version": "ViT-B/32", "n_repeat": 3})),
    ] {
        let config = of(name, params).unwrap();
        let (target, params) = config.to_target();
        assert_eq!(CondStageConfig::from_target(target, &params).unwrap(), config);
    }
    let identity = CondStageConfig::from_target("torch.nn.Identity", &Value::Null).unwrap();
    assert_eq!(identity, CondStageConfig::Identity);
}

#[test]
fn wrong_tokens_are_errors() {
    let device = Device::default();
    let model = BertEmbedderConfig::new(4, 1).over_tokens(10, 3).init(&device).unwrap();
    let refused = |rows: usize, ids: &[i64]| {
        let shape = [rows, ids.len() / rows.max(1)];
        model.forward(Tensor::from_data(TensorData::new(ids.to_vec(), shape), &device)).unwrap_err()
    };
    assert_eq!(refused(2, &[0, 9, 3, 10]), BertError::IdOutOfVocabulary { id: 10, item: 1, vocab_size: 10 });
    assert_eq!(refused(1, &[-1]), BertError::IdOutOfVocabulary { id: -1, item: 0, vocab_size: 10 });
    assert_eq!(refused(1, &[0; 4]), BertError::Length { length: 4, max: 3 });
}

//! Conditions that are wrong give errors that name the sample, or the key.

use burn::tensor::Device;
use ldm_conditioning::{BoundingBox, ClassEmbedderConfig, CondStage, LayoutObject};
use ldm_train::RunError;
use ldm_train::conditions::{ConditionConfig, Conditions};
use ldm_train::config::ModelConfig;
use ldm_train::data::Batch;
use ldm_train::run::{DiffusionTraining, Latents};
use serde_json::{Value, json};

use crate::made::{batch, config, cross_attention, layouts, mapped, steps, training, unet};

fn identity(_: &Device) -> Option<CondStage> {
    Some(CondStage::identity())
}

fn embedder(device: &Device) -> Option<CondStage> {
    Some(CondStage::ClassEmbedder(ClassEmbedderConfig::new(8, 4).init(device)))
}

/// What a step says of a batch.
fn error(
    unet: &Value,
    key: &str,
    tau: fn(&Device) -> Option<CondStage>,
    conditions: impl Conditions + 'static,
    change: impl FnOnce(&mut Batch),
) -> RunError {
    let model = json!({"cond_stage_config": {"target": "torch.nn.Identity"}, "conditioning_key": key});
    let mut training = training(&config(unet, &model), None, tau, Box::new(conditions)).unwrap();
    let mut batch = mapped(0, 4, 8);
    change(&mut batch);
    steps(&mut training, &[batch], 1e-3).unwrap_err()
}

fn names(error: &RunError, sample: &str, words: &[&str]) {
    let RunError::Sample { key, .. } = error else { panic!("{error:?}") };
    let text = error.to_string();
    assert!(key == sample && words.iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn classes_outside_the_table_are_named() {
    let classes = || ConditionConfig::Classes { null_class: Some(3) };
    let wrong = |batch: &mut Batch| batch.classes = Some(vec![0, 1, 4, 2]);
    let table = unet(3, json!({"num_classes": 4}));
    names(&error(&table, "adm", identity, classes(), wrong), "p002", &["4", "0..4"]);
    let attending = unet(3, cross_attention());
    names(&error(&attending, "crossattn", embedder, classes(), wrong), "p002", &["class 4", "0..4"]);
    let none = error(&table, "adm", identity, classes(), |batch| batch.classes = None);
    names(&none, "p000", &["no class", "class_key"]);
}

#[test]
fn labels_and_maps_are_named() {
    let map = || ConditionConfig::Map { classes: Some(2) };
    let plain = unet(5, json!({}));
    let wrong = error(&plain, "concat", identity, map(), |batch| {
        batch.maps.as_mut().unwrap().values[3 * 64 + 5] = 7.0;
    });
    names(&wrong, "p003", &["label 7", "0..2"]);
    names(&error(&plain, "concat", identity, map(), |batch| batch.maps = None), "p000", &["map_suffix"]);
    // One that is not as large as the latent, and one of other channels.
    let large = error(&plain, "concat", identity, map(), |batch| *batch = mapped(0, 4, 16));
    assert!(matches!(large, RunError::UNet(_)), "{large}");
    let narrow = error(&unet(6, json!({})), "concat", identity, map(), |_| ());
    assert!(matches!(narrow, RunError::UNet(_)), "{narrow}");
}

#[test]
fn boxes_are_named() {
    let bert = |device: &Device| {
        let config = ldm_conditioning::bert::BertEmbedderConfig::new(8, 1).over_tokens(101, 8);
        Some(ldm_conditioning::CondStageConfig::BertEmbedder(config).init(device).unwrap())
    };
    let attending = unet(3, cross_attention());
    let fault = |object: LayoutObject| {
        error(&attending, "crossattn", bert, layouts(), |batch| {
            batch.layouts.as_mut().unwrap()[1].objects = vec![object];
        })
    };
    let outside = LayoutObject::new(1, BoundingBox::new(0.75, 0.0, 0.5, 0.5));
    names(&fault(outside), "p001", &["box", "0.75"]);
    names(&fault(LayoutObject::new(9, BoundingBox::FULL)), "p001", &["class 9", "0..4"]);
    let none = error(&attending, "crossattn", bert, layouts(), |batch| batch.layouts = None);
    names(&none, "p000", &["objects_key"]);
}

#[test]
fn what_stands_for_no_condition_must_be_known() {
    let model = json!({
        "cond_stage_config": {"target": "torch.nn.Identity"}, "conditioning_key": "adm",
        "conditioning_dropout_prob": 0.1,
    });
    let config = config(&unet(3, json!({"num_classes": 4})), &model);
    let run = |null_class| {
        let classes = Box::new(ConditionConfig::Classes { null_class });
        let mut training = training(&config, None, identity, classes).unwrap();
        steps(&mut training, &[batch(0, 4)], 1e-3)
    };
    let error = run(None).unwrap_err();
    assert!(matches!(error, RunError::NoNull { .. }) && error.to_string().contains("null_class"), "{error}");
    run(Some(3)).unwrap();
}

/// What the config alone says of its conditions.
fn of_config(model: Value, condition: Option<ConditionConfig>) -> Result<(), RunError> {
    let mut config = config(&unet(3, cross_attention()), &model);
    config.data.condition = condition;
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    let device = Device::default();
    let (first_stage, tau) = (model.first_stage.init(&device)?, model.tau(&device)?);
    DiffusionTraining::new(model, &config, first_stage, Latents::Encoded, tau, &device).map(drop)
}

#[test]
fn a_mechanism_that_is_not_the_encoders_is_refused() {
    let classes = json!({"target": "ldm.modules.encoders.modules.ClassEmbedder", "params": {"embed_dim": 8}});
    let model = |key: Option<&str>| {
        json!({"cond_stage_config": classes, "cond_stage_trainable": true, "conditioning_key": key,
               "cond_stage_key": "class_label"})
    };
    of_config(model(Some("crossattn")), None).unwrap();
    for key in [None, Some("concat"), Some("hybrid"), Some("adm")] {
        let error = of_config(model(key), None).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, RunError::Mechanism { .. }), "{text}");
        assert!(
            text.contains(key.unwrap_or("concat")) && text.contains("ClassEmbedder gives crossattn"),
            "{text}"
        );
    }
    let identity = |key: &str, cond_stage_key: &str| {
        json!({"cond_stage_config": {"target": "torch.nn.Identity"}, "conditioning_key": key,
               "cond_stage_key": cond_stage_key})
    };
    of_config(identity("adm", "class_label"), None).unwrap();
    of_config(identity("concat", "LR_image"), None).unwrap();
    assert!(matches!(of_config(identity("concat", "class_label"), None), Err(RunError::Mechanism { .. })));
    assert!(matches!(of_config(identity("adm", "LR_image"), None), Err(RunError::Mechanism { .. })));
}

#[test]
fn what_the_conditions_are_made_of_must_be_said() {
    let identity = |key: &str| {
        json!({"cond_stage_config": {"target": "torch.nn.Identity"}, "conditioning_key": "crossattn",
               "cond_stage_key": key})
    };
    for key in ["nix", "coordinates_bbox"] {
        let error = of_config(identity(key), None).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, RunError::NoConditions { .. }) && text.contains(key), "{text}");
        assert!(text.contains("data.condition"), "{text}");
    }
    // Classes in the place of the map that the key names.
    let mut model = identity("segmentation");
    model["conditioning_key"] = json!("adm");
    of_config(model, Some(ConditionConfig::Classes { null_class: None })).unwrap();
    // Two encoders, two conditions.
    let two = json!([
        {"target": "torch.nn.Identity"},
        {"target": "ldm.modules.encoders.modules.ClassEmbedder", "params": {"embed_dim": 8}},
    ]);
    let model = json!({"cond_stage_config": two, "conditioning_key": "hybrid", "cond_stage_trainable": true});
    assert!(matches!(of_config(model.clone(), None), Err(RunError::NoConditions { .. })));
    let both: ConditionConfig = serde_json::from_value(json!({
        "kind": "both", "first": {"kind": "low_resolution", "factor": 1}, "second": {"kind": "classes"},
    }))
    .unwrap();
    of_config(model, Some(both)).unwrap();
}

/// An encoder that nothing ever trained makes noise of its conditions.
#[test]
fn a_frozen_encoder_needs_weights() {
    let bert = json!({
        "target": "ldm.modules.encoders.modules.BERTEmbedder",
        "params": {"n_embed": 8, "n_layer": 1, "heads": 2, "dim_head": 4, "vocab_size": 50, "max_seq_len": 8,
                   "use_tokenizer": false},
    });
    let model = |trained: bool| json!({"cond_stage_config": bert, "conditioning_key": "crossattn", "cond_stage_trainable": trained});
    let error = of_config(model(false), Some(layouts())).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RunError::NoWeights { .. }), "{text}");
    assert!(text.contains("BERTEmbedder") && text.contains("cond_stage_config.params.ckpt_path"), "{text}");
    of_config(model(true), Some(layouts())).unwrap();
}

/// The run's own pictures can't be encoded along.
#[test]
fn a_condition_of_pixels_needs_the_pixels() {
    let plain = unet(6, json!({}));
    let smaller = ConditionConfig::LowResolution { factor: 1 };
    assert!(smaller.reads_pictures() && layouts().reads_pictures());
    assert!(!ConditionConfig::Captions.reads_pictures());
    let error = error(&plain, "concat", identity, ConditionConfig::LowResolution { factor: 3 }, |_| ());
    names(&error, "p000", &["8 pixels", "3 times"]);
    let mut training = training(
        &config(&plain, &json!({"cond_stage_config": {"target": "torch.nn.Identity"}})),
        None,
        identity,
        Box::new(smaller),
    )
    .unwrap();
    assert!(training.reads_pictures());
    steps(&mut training, &[batch(0, 2)], 1e-3).unwrap();
}

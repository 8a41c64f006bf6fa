//! Conditions that are dropped, in a process of its own: two runs are compared bit by bit, and a backend has one generator
//! for all threads.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[allow(dead_code, reason = "shared with the tests of conditions")]
#[path = "conditions/made.rs"]
mod made;

use ldm_conditioning::CondStage;
use ldm_train::conditions::ConditionConfig;
use made::{batch, config, steps, training, unet, weights};
use serde_json::json;

/// Dropped always, a class is not seen: two runs on other classes are one run.
#[test]
fn a_dropped_condition_is_the_sources_null() {
    let run = |p: f64, other: bool| {
        let unet = unet(3, json!({"num_classes": 5}));
        let model = json!({
            "cond_stage_config": {"target": "torch.nn.Identity"}, "conditioning_key": "adm",
            "conditioning_dropout_prob": p,
        });
        let classes = Box::new(ConditionConfig::Classes { null_class: Some(4) });
        let config = config(&unet, &model);
        let mut training = training(&config, None, |_| Some(CondStage::identity()), classes).unwrap();
        let mut seen = batch(0, 4);
        if other {
            seen.classes = Some(vec![3, 2, 1, 0]);
        }
        let before = training.denoiser().model.class_embedding.clone().unwrap().weight.val().into_data();
        steps(&mut training, &vec![seen; 3], 1e-2).unwrap();
        let after = training.denoiser().model.class_embedding.clone().unwrap().weight.val().into_data();
        let rows = |data: burn::tensor::TensorData| data.iter::<f32>().collect::<Vec<_>>();
        let (before, after) = (rows(before), rows(after));
        let width = before.len() / 5;
        let moved: Vec<bool> =
            before.chunks(width).zip(after.chunks(width)).map(|(before, after)| before != after).collect();
        (weights(&training.denoiser().model), moved)
    };
    assert_eq!(run(1.0, false), run(1.0, true));
    assert_eq!(run(1.0, false).1, [false, false, false, false, true]);
    assert_ne!(run(0.0, false).0, run(0.0, true).0);
    assert!(!run(0.0, true).1[4]);
}

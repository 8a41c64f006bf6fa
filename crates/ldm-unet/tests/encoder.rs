//! Half a U-Net against the original's, with the gradient that guides a sampler
//! (tests/reference/encoder_unet.py).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use burn::tensor::{Device, Int, Tensor, activation};
use ldm_nn::weights::{Loader, WeightFile, save_safetensors};
use ldm_test_support::{Fixture, assert_close, seeded_input, write_weights};
use ldm_unet::{ConfigError, EncoderUNet, EncoderUNetConfig, Pool, UNetError};
use serde_json::{Value, json};

const NAMES: [&str; 4] = ["adaptive", "attention", "spatial", "spatial_v2"];

/// The model with the original's seeded weights, loaded under the original's names.
fn model(fixture: &Fixture, name: &str, device: &Device) -> EncoderUNet {
    let case = &fixture.json("cases")[name];
    let shapes: std::collections::BTreeMap<String, Vec<usize>> =
        serde_json::from_value(case["shapes"].clone()).unwrap();
    let shapes: Vec<_> = shapes.into_iter().collect();
    let config = EncoderUNetConfig::from_compvis(&case["config"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("encoder.safetensors");
    write_weights(&path, &shapes);
    let keys = config.compvis_keys().unwrap();
    let file = WeightFile::open(&path).unwrap();
    let (model, report) = Loader::new(&keys).load(config.init(device).unwrap(), &file).unwrap();
    assert_eq!((report.kept, report.unknown), (vec![], vec![]), "{name}");

    let saved = folder.path().join("saved.safetensors");
    save_safetensors(&model, &keys, &saved, burn::tensor::DType::F32).unwrap();
    let saved = WeightFile::open(&saved).unwrap();
    let mut names: Vec<_> = saved.tensors().map(|t| (t.name.clone(), t.shape.clone())).collect();
    names.sort();
    assert_eq!(names, shapes, "{name}");
    model
}

#[test]
fn logits_and_the_gradient_that_guides() {
    let (fixture, plain) = (Fixture::open("encoder_unet"), Device::default());
    let device = plain.clone().autodiff();
    for name in NAMES {
        let model = model(&fixture, name, &device);
        let x = seeded_input(&format!("encoder_unet.{name}.x"), [2, 3, 16, 16], &device).require_grad();
        let timesteps = Tensor::<1>::from_floats([3.0, 870.0], &device);
        let logits = model.forward(x.clone(), timesteps).unwrap();
        assert_close(name, &logits.clone().inner(), &fixture.tensor(&format!("{name}.logits"), &plain), 1e-4);
        let labels = Tensor::<2, Int>::from_ints([[9], [4]], &device);
        let selected = activation::log_softmax(logits, 1).gather(1, labels);
        let gradient = x.grad(&selected.sum().backward()).unwrap();
        assert_close(name, &gradient, &fixture.tensor(&format!("{name}.gradient"), &plain), 1e-3);
    }
}

#[test]
fn inputs_have_to_fit() {
    let fixture = Fixture::open("encoder_unet");
    let device = Device::default();
    let model = model(&fixture, "attention", &device);
    let refused = |x: [usize; 4], t: usize| {
        model.forward(Tensor::zeros(x, &device), Tensor::zeros([t], &device)).unwrap_err()
    };
    let shape = |input, axis, expected, got| UNetError::Shape { input, axis, expected, got };
    assert_eq!(refused([2, 4, 16, 16], 2), shape("x", "the number of channels", 3, 4));
    assert_eq!(refused([2, 3, 16, 8], 2), shape("x", "the width", 16, 8));
    assert_eq!(refused([0, 3, 16, 16], 1), UNetError::EmptyBatch);
    assert_eq!(refused([2, 3, 16, 16], 3), shape("timesteps", "the batch", 2, 3));
}

#[test]
fn configs_name_what_is_wrong() {
    let case = &Fixture::open("encoder_unet").json("cases")["adaptive"]["config"];
    let with = |key: &str, value: Value| {
        let mut params = case.clone();
        params[key] = value;
        EncoderUNetConfig::from_compvis(&params)
    };
    let init = |config: EncoderUNetConfig| config.init(&Device::default()).unwrap_err();
    assert!(with("pool", json!("max")).unwrap_err().to_string().contains("`max`"));
    let classes = init(with("num_classes", json!(10)).unwrap());
    assert!(matches!(classes, ConfigError::Unsupported { key, .. } if key == "num_classes"));
    let mut attention = with("pool", json!("attention")).unwrap();
    assert_eq!(attention.pool, Pool::Attention);
    attention.unet.num_head_channels = None;
    assert!(matches!(init(attention), ConfigError::Missing { key: "num_head_channels", .. }));
}

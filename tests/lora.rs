//! LoRA files as diffusers reads them, training as peft does it (tests/reference/lora.py).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use common::{directory, load, run};
use ldm::nn::lora::{LoraConfig, LoraError, LoraKeys, METADATA};
use ldm::nn::weights::{KeyMap, ParameterPath, Saver, WeightFile};
use ldm::unet::{Conditioning, UNet};
use ldm::{Error, LoadOptions, StableDiffusion};
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight};
use serde_json::Value;

/// Writes factors drawn by name, with alphas and a note.
fn write(path: &Path, shapes: &Value, alphas: &Value, note: &Value) {
    let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_value(shapes.clone()).unwrap();
    let alphas: BTreeMap<String, f32> = serde_json::from_value(alphas.clone()).unwrap();
    let mut saver = Saver::new();
    for (name, shape) in shapes {
        let values = seeded_weight(&name, &shape);
        saver = saver.add_tensor(name, TensorData::new(values, shape));
    }
    for (name, alpha) in alphas {
        saver = saver.add_tensor(name, TensorData::new(vec![alpha], Vec::<usize>::new()));
    }
    if !note.is_null() {
        saver = saver.metadata(METADATA, note.to_string());
    }
    saver.write(path).unwrap();
}

#[test]
fn files_of_every_naming_change_a_run_as_in_diffusers() {
    let (fixture, folder) = (Fixture::open("lora"), tempfile::tempdir().unwrap());
    let cases = common::cases(&fixture);
    assert_eq!(cases.len(), 6);
    let mut wrong = vec![];
    for family in ["sd1", "sd2", "sdxl"] {
        let model = load(&Fixture::open(&format!("pipeline_{family}")));
        for (name, case) in cases.iter().filter(|(name, _)| name.split('_').next() == Some(family)) {
            let path = folder.path().join("pytorch_lora_weights.safetensors");
            write(&path, &case["shapes"], &case["alphas"], &case["note"]);
            let with = model.clone().load_lora(folder.path(), case["scale"].as_f64().unwrap()).unwrap();
            wrong.extend(common::differences(&fixture, name, &run(&with, &fixture, case).unwrap()));
            // At strength 0 it is the model itself, to the bit.
            if *name == "sd1_old" {
                let without = model.clone().load_lora(&path, 0.0).unwrap();
                let [a, b] = [&without, &model].map(|m| m.unet.conv_in.weight.val().into_data());
                a.assert_eq(&b, true);
                let [a, b] = [&without, &model].map(|m| run(m, &fixture, case).unwrap().latents.into_data());
                a.assert_eq(&b, true);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_does_not_fit_is_named() {
    let (fixture, folder) = (Fixture::open("lora"), tempfile::tempdir().unwrap());
    let case = &common::cases(&fixture)["sd1_note"];
    let model = load(&Fixture::open("pipeline_sd1"));
    let path = folder.path().join("lora.safetensors");
    let refused = |shapes: Value, note: Value| -> Error {
        write(&path, &shapes, &serde_json::json!({}), &note);
        model.clone().load_lora(&path, 1.0).unwrap_err()
    };
    let down = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight";
    let up = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight";

    let mut shapes = case["shapes"].clone();
    shapes["text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"] =
        serde_json::json!([4, 32]);
    shapes["unet.conv_in.lora_magnitude_vector"] = serde_json::json!([4]);
    let error = refused(shapes, Value::Null);
    assert!(matches!(&error, Error::Lora(LoraError::Unused { keys, .. }) if keys.len() == 2), "{error}");
    for part in ["lora.safetensors", "text_encoder_2", "lora_magnitude_vector"] {
        assert!(error.to_string().contains(part), "{error}");
    }

    let mut shapes = case["shapes"].clone();
    shapes[down] = serde_json::json!([4, 63]);
    shapes[up] = serde_json::json!([64, 5]);
    let error = refused(shapes, Value::Null).to_string();
    assert!(error.contains(&format!("{down} has shape [4, 63], the model needs [4, 64]")), "{error}");
    assert!(error.contains(&format!("{up} has shape [64, 5], the model needs [64, 4]")), "{error}");

    let mut shapes = case["shapes"].clone();
    shapes.as_object_mut().unwrap().remove(up);
    let error = refused(shapes, Value::Null).to_string();
    assert!(error.contains(&format!("{up} is missing")), "{error}");

    for (key, value, told) in [
        ("unet.use_dora", Value::from(true), "DoRA"),
        ("unet.lora_alpha", Value::from("two"), "unet.lora_alpha"),
        ("unet.alpha_pattern", serde_json::json!({".*to_q": 1}), ".*to_q"),
    ] {
        let mut note = case["note"].clone();
        note[key] = value;
        let error = refused(case["shapes"].clone(), note).to_string();
        assert!(error.contains("lora_adapter_metadata") && error.contains(told), "{error}");
    }
    assert!(matches!(
        model.unet.clone().with_lora(&LoraConfig::new(0), 1),
        Err(LoraError::Config { r: 0, .. })
    ));
}

/// The gradient of every parameter, by its name in a LoRA file, or its path where it is no factor.
struct Collect<'a> {
    keys: LoraKeys<'a>,
    gradients: &'a Gradients,
    path: ParameterPath,
    found: BTreeMap<String, TensorData>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            let path = self.path.joined();
            let name = self.keys.entry(&path).map_or(path, |entry| entry.key);
            self.found.insert(name, gradient.into_data());
        }
    }
}

const CONFIG: LoraConfig = LoraConfig { r: 3, lora_alpha: 6.0 };

fn forward(unet: &UNet, device: &Device) -> Tensor<4> {
    let (x, context) =
        (seeded_input("lora.x", [2, 4, 8, 8], device), seeded_input("lora.context", [2, 5, 32], device));
    unet.forward(x, Tensor::from_floats([17.0, 801.0], device), &Conditioning::context(context)).unwrap()
}

fn loss(unet: &UNet, device: &Device) -> Tensor<1> {
    (forward(unet, device) - seeded_input("lora.target", [2, 4, 8, 8], device)).square().mean()
}

/// What a file of [`CONFIG`] says of itself.
fn note() -> Value {
    serde_json::from_str(&CONFIG.metadata("unet", &[])).unwrap()
}

/// A tiny U-Net under autodiff with factors of the fixture's names.
fn adapted(fixture: &Fixture, folder: &Path, device: &Device) -> UNet {
    let model = directory(&Fixture::open("pipeline_sd1"));
    let unet = ldm::load_unet(model.path(), &LoadOptions::new(device.clone())).unwrap();
    let path = folder.join("drawn.safetensors");
    write(&path, &fixture.json("gradient"), &serde_json::json!({}), &note());
    unet.with_lora(&CONFIG, 7).unwrap().resume_lora(&CONFIG, &path).unwrap()
}

#[test]
fn only_the_factors_get_gradients_and_they_are_pefts() {
    let (fixture, folder) = (Fixture::open("lora"), tempfile::tempdir().unwrap());
    let (device, plain) = (Device::default().autodiff(), Device::default());
    let unet = adapted(&fixture, folder.path(), &device);
    assert_close(
        "output",
        &forward(&unet, &device).inner(),
        &fixture.tensor("gradient.output", &plain),
        1e-4,
    );

    let gradients = loss(&unet, &device).backward();
    let keys = unet.config().diffusers_keys().unwrap();
    let mut collect = Collect {
        keys: LoraKeys::new(&keys, "unet"),
        gradients: &gradients,
        path: ParameterPath::default(),
        found: BTreeMap::new(),
    };
    unet.visit(&mut collect);
    let names: Vec<String> = fixture.shapes("gradient").into_iter().map(|(name, _)| name).collect();
    assert_eq!(collect.found.keys().cloned().collect::<Vec<_>>(), names);
    for (name, gradient) in collect.found {
        let expected = fixture.tensor::<2>(&format!("gradient.{name}"), &plain);
        assert_close(&name, &Tensor::<2>::from_data(gradient, (&plain, DType::F32)), &expected, 1e-3);
    }
}

#[test]
fn factors_are_saved_as_diffusers_names_them_and_give_the_same_model() {
    let (fixture, folder) = (Fixture::open("lora"), tempfile::tempdir().unwrap());
    let device = Device::default();
    let unet = adapted(&fixture, folder.path(), &device);
    let path = folder.path().join("pytorch_lora_weights.safetensors");
    unet.save_lora(&CONFIG, &path, DType::F32).unwrap();

    let file = WeightFile::open(&path).unwrap();
    let found: Vec<_> = file.tensors().map(|t| (t.name.clone(), t.shape.clone())).collect();
    assert_eq!(found, fixture.shapes("gradient"));
    let note: Value = serde_json::from_str(&file.metadata()[METADATA]).unwrap();
    assert_eq!((&note["unet.r"], note["unet.lora_alpha"].as_f64()), (&Value::from(3), Some(6.0)));
    let model = load(&Fixture::open("pipeline_sd1"));
    let fused = model.clone().load_lora(&path, 1.0).unwrap();
    let expected = fixture.tensor("gradient.output", &device);
    for (name, unet) in [("attached", &unet), ("merged", &unet.clone().materialize()), ("fused", &fused.unet)]
    {
        assert_close(name, &forward(unet, &device), &expected, 1e-4);
    }
    // A whole model has no names for factors: its file is the plain model's.
    let keys = unet.config().diffusers_keys().unwrap();
    let whole = folder.path().join("whole.safetensors");
    ldm::nn::weights::save_safetensors(&unet, &keys, &whole, DType::F32).unwrap();
    assert!(WeightFile::open(&whole).unwrap().tensors().all(|t| !t.name.contains("lora")));
}

#[test]
fn training_goes_on_with_the_files_own_rank_and_alpha() {
    let (fixture, folder) = (Fixture::open("lora"), tempfile::tempdir().unwrap());
    let device = Device::default();
    let trained = adapted(&fixture, folder.path(), &device);
    let path = folder.path().join("pytorch_lora_weights.safetensors");
    trained.save_lora(&CONFIG, &path, DType::F32).unwrap();
    let plain = load(&Fixture::open("pipeline_sd1")).unet;
    assert_eq!(plain.lora_config(&path).unwrap(), CONFIG);
    let resume =
        |config: LoraConfig| plain.clone().with_lora(&config, 7).unwrap().resume_lora(&config, &path);
    assert_close("resumed", &forward(&resume(CONFIG).unwrap(), &device), &forward(&trained, &device), 1e-5);
    for other in [CONFIG.with_alpha(3.0), LoraConfig::new(4)] {
        let error = resume(other).unwrap_err();
        let fits = matches!(&error, LoraError::Differs { found, expected, .. }
            if *found == CONFIG && *expected == other);
        assert!(fits && error.to_string().contains("rank 3 and alpha 6"), "{error}");
    }

    // What the U-Net does not take would be lost; layers of several strengths are none that one config says.
    let mut shapes = fixture.json("gradient");
    let text = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight";
    shapes[text] = serde_json::json!([3, 32]);
    write(&path, &shapes, &serde_json::json!({}), &note());
    let error = resume(CONFIG).unwrap_err();
    assert!(matches!(&error, LoraError::Unused { keys, .. } if keys == &[text]), "{error}");
    let mut uneven = note();
    uneven["unet.alpha_pattern"] = serde_json::json!({ "to_q": 1.0 });
    write(&path, &fixture.json("gradient"), &serde_json::json!({}), &uneven);
    assert!(matches!(resume(CONFIG).unwrap_err(), LoraError::Uneven { .. }));
    write(&path, &serde_json::json!({}), &serde_json::json!({}), &note());
    assert!(matches!(plain.lora_config(&path).unwrap_err(), LoraError::NoFactors { .. }));

    // The U-Net has the layer, and its factors go into a run; training has factors in the attention alone.
    let mut shapes = fixture.json("gradient");
    let layer = "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj";
    let pair = ["lora_A", "lora_B"].map(|factor| format!("{layer}.{factor}.weight"));
    shapes[&pair[0]] = serde_json::json!([3, 64]);
    shapes[&pair[1]] = serde_json::json!([512, 3]);
    write(&path, &shapes, &serde_json::json!({ (format!("{layer}.alpha")): 6.0 }), &note());
    assert_eq!(plain.lora_config(&path).unwrap(), CONFIG);
    let error = resume(CONFIG).unwrap_err();
    assert!(matches!(&error, LoraError::Unused { keys, .. } if *keys == pair), "{error}");

    // The attention's own alphas say what the note says.
    let alphas = ["to_q", "to_k", "to_v", "to_out.0"].map(|end| {
        (format!("unet.mid_block.attentions.0.transformer_blocks.0.attn1.{end}.alpha"), Value::from(6.0))
    });
    write(&path, &fixture.json("gradient"), &Value::Object(alphas.into_iter().collect()), &note());
    resume(CONFIG).unwrap();
}

#[test]
fn a_few_steps_lower_the_loss_and_leave_the_weights_alone() {
    let device = Device::default().autodiff();
    let model = directory(&Fixture::open("pipeline_sd1"));
    let unet = ldm::load_unet(model.path(), &LoadOptions::new(device.clone())).unwrap();
    let before = forward(&unet, &device).into_data();
    let [mut unet, twin, other] =
        [5, 5, 6].map(|seed| unet.clone().with_lora(&LoraConfig::new(4), seed).unwrap());
    forward(&unet, &device).into_data().assert_eq(&before, true);
    let query = |unet: &UNet| {
        let mut keys = vec![];
        let mut names = Names(&mut keys);
        unet.visit(&mut names);
        keys
    };
    assert_eq!(query(&unet), query(&twin), "the same seed, the same factors");
    assert_ne!(query(&unet), query(&other));

    let mut optimizer = AdamWConfig::new().with_epsilon(1e-8).init();
    let mut losses = vec![];
    for _ in 0..12 {
        let loss = loss(&unet, &device);
        losses.push(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &unet);
        assert_eq!(gradients.len(), 64, "two factors of each of the 32 layers");
        unet = optimizer.step(2e-2, unet, gradients);
    }
    println!("{losses:?}");
    assert!(losses[11] < 0.9 * losses[0], "{losses:?}");
    let plain = StableDiffusion::load(model.path(), &LoadOptions::default()).unwrap().unet;
    let [trained, loaded] = [&unet, &plain].map(|u| u.conv_in.weight.val().into_data());
    trained.assert_eq(&loaded, true);
}

/// The factors' first values.
struct Names<'a>(&'a mut Vec<u32>);

impl ModuleVisitor for Names<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.0.push(param.val().into_data().iter::<f32>().next().unwrap().to_bits());
        }
    }
}

//! First stages of every kind out of directories and CompVis' files, and what is wrong with them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use ldm::nn::weights::Saver;
use ldm::vae::{Encoded, FirstStage};
use ldm::{Error, LoadOptions, load_first_stage, load_first_stage_from_checkpoint, load_vae};
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight, write_weights};
use npyz::WriterBuilder;
use serde_json::{Value, json};

/// A first stage's YAML with `extra` keys among its parameters.
fn yaml(folder: &Path, class: &str, config: &Value, extra: Value) -> PathBuf {
    let mut params = config.clone();
    params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let path = folder.join("config.yaml");
    let model = json!({"model": {"target": format!("ldm.models.autoencoder.{class}"), "params": params}});
    fs::write(&path, model.to_string()).unwrap();
    path
}

fn vq(stage: FirstStage) -> ldm::vae::VqModel {
    match stage {
        FirstStage::Vq(model) => model,
        other => panic!("{other:?}"),
    }
}

fn picture(fixture: &Fixture, drawn: &str) -> Tensor<4> {
    let shape: [usize; 4] = serde_json::from_value(fixture.json("shape")).unwrap();
    seeded_input::<4>(&format!("{drawn}.x"), shape, &Device::default()).clamp(-1.0, 1.0)
}

#[track_caller]
fn encodes(stage: &FirstStage, fixture: &Fixture, drawn: &str) {
    let latents = stage.encode(picture(fixture, drawn)).unwrap().mode();
    assert_close("latents", &latents, &fixture.tensor("latents", &Device::default()), 1e-4);
}

#[test]
fn a_directory_s_class_tells_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let vqvae = folder.path().join("vqvae");
    fs::create_dir(&vqvae).unwrap();
    let fixture = Fixture::open("vq_diffusers_ldm");
    fs::write(vqvae.join("config.json"), fixture.json("config").to_string()).unwrap();
    let weights = vqvae.join("diffusion_pytorch_model.safetensors");
    write_weights(&weights, &fixture.shapes("shapes"));
    let stage = load_first_stage(folder.path(), &LoadOptions::default()).unwrap();
    encodes(&stage, &fixture, "diffusers_ldm");
    // Nothing in the config says a factor, and diffusers' default is not 1.
    assert_eq!(stage.scaling().scaling_factor, 0.18215);

    // The same folder, with a KL model in it.
    let fixture = Fixture::open("vae_diffusers_sd");
    fs::write(vqvae.join("config.json"), fixture.json("config").to_string()).unwrap();
    write_weights(&weights, &fixture.shapes("shapes"));
    let stage = load_first_stage(folder.path(), &LoadOptions::default()).unwrap();
    let encoded = stage.encode(picture(&fixture, "sd")).unwrap();
    let Encoded::Posterior(posterior) = encoded else { panic!("no posterior") };
    assert_close("mean", &posterior.mean(), &fixture.tensor("mean", &Device::default()), 1e-4);
}

#[test]
fn stable_diffusion_refuses_a_vq_model() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("vae")).unwrap();
    let fixture = Fixture::open("vq_diffusers_default");
    fs::write(folder.path().join("vae/config.json"), fixture.json("config").to_string()).unwrap();
    let weights = folder.path().join("vae/diffusion_pytorch_model.safetensors");
    write_weights(&weights, &fixture.shapes("shapes"));
    let error = load_vae(folder.path(), &LoadOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { what, .. } if what.contains("VQModel")), "{error}");
}

#[test]
fn a_whole_models_yaml_and_prefix_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::open("vq_f8_n256");
    let shapes = fixture.shapes("shapes");
    let checkpoint = folder.path().join("model.safetensors");
    let mut file = Saver::new();
    for (name, shape) in &shapes {
        let data = TensorData::new(seeded_weight(name, shape), shape.clone());
        file = file.add_tensor(format!("first_stage_model.{name}"), data);
    }
    file.add_tensor("scale_factor", TensorData::new(vec![0.5f32], [1])).write(&checkpoint).unwrap();
    let first_stage =
        json!({"target": "ldm.models.autoencoder.VQModelInterface", "params": fixture.json("config")});
    let unet = json!({"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": {}});
    let params = json!({"first_stage_config": first_stage, "unet_config": unet, "channels": 4});
    let path = folder.path().join("ldm.yaml");
    let model = json!({"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}});
    fs::write(&path, model.to_string()).unwrap();
    let stage = load_first_stage_from_checkpoint(&checkpoint, &LoadOptions::default().config(&path)).unwrap();
    encodes(&stage, &fixture, "vq-f8-n256");
    assert_eq!(stage.scaling().scaling_factor, 0.5);

    // Without a first stage the picture is the latent.
    let mut identity = model.clone();
    identity["model"]["params"]["first_stage_config"] =
        json!({"target": "ldm.models.autoencoder.IdentityFirstStage", "params": {"vq_interface": true}});
    fs::write(&path, identity.to_string()).unwrap();
    let stage = load_first_stage_from_checkpoint(&checkpoint, &LoadOptions::default().config(&path)).unwrap();
    assert!(matches!(stage, FirstStage::Identity(_)));
    assert_eq!((stage.factor(), stage.latent_channels()), (1, 4));

    identity["model"]["params"]["first_stage_config"]["target"] = json!("ldm.models.autoencoder.GumbelVQ");
    fs::write(&path, identity.to_string()).unwrap();
    let error = load_first_stage_from_checkpoint(&checkpoint, &LoadOptions::default().config(&path));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("ldm.models.autoencoder.GumbelVQ") && error.contains("ldm.yaml"), "{error}");
}

#[test]
fn a_first_stages_average_is_taken_where_its_yaml_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::open("vq_f8_n256");
    let checkpoint = folder.path().join("model.safetensors");
    let mut file = Saver::new();
    for (name, shape) in &fixture.shapes("shapes") {
        let data = |from: &str| TensorData::new(seeded_weight(from, shape), shape.clone());
        file = file.add_tensor(format!("model_ema.{}", name.replace('.', "")), data(name));
        file = file.add_tensor(name.clone(), data(&format!("trained.{name}")));
    }
    file.write(&checkpoint).unwrap();
    let load = |extra: Value, use_ema: Option<bool>| {
        let yaml = yaml(folder.path(), "VQModel", &fixture.json("config"), extra);
        let options = LoadOptions { use_ema, ..LoadOptions::default().config(yaml) };
        load_first_stage_from_checkpoint(&checkpoint, &options).unwrap()
    };
    encodes(&load(json!({"use_ema": true}), None), &fixture, "vq-f8-n256");
    encodes(&load(json!({}), Some(true)), &fixture, "vq-f8-n256");
    let plain = load(json!({}), None).encode(picture(&fixture, "vq-f8-n256")).unwrap().mode();
    let averaged = fixture.tensor::<4>("latents", &Device::default());
    assert!(ldm_test_support::relative_difference(&plain, &averaged) > 0.1);
}

#[test]
fn a_remapped_model_finds_its_used_codes() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::open("vq_f8_n256");
    let checkpoint = folder.path().join("model.safetensors");
    let shapes = fixture.shapes("shapes");
    write_weights(&checkpoint, &shapes);
    let extra = json!({"remap": "used.npy", "unknown_index": "extra", "sane_index_shape": true});
    let yaml = yaml(folder.path(), "VQModel", &fixture.json("config"), extra);
    let load = || load_first_stage_from_checkpoint(&checkpoint, &LoadOptions::default().config(&yaml));
    let error = load().unwrap_err().to_string();
    assert!(error.contains("used.npy") && error.contains("config.yaml"), "{error}");

    let npy = |values: &[i64]| {
        let file = fs::File::create(folder.path().join("used.npy")).unwrap();
        let options = npyz::WriteOptions::new().default_dtype().shape(&[values.len() as u64]);
        let mut writer = options.writer(file).begin_nd().unwrap();
        writer.extend(values.iter().copied()).unwrap();
        writer.finish().unwrap();
    };
    npy(&[7, 200, 3]);
    let model = vq(load().unwrap());
    assert_eq!(model.quantize.remap().unwrap().used(), [7, 200, 3]);
    assert_eq!(model.quantize.re_embed(), 4);
    npy(&[7, 256]);
    let error = load().unwrap_err().to_string();
    assert!(error.contains("256"), "{error}");

    // The buffer in the checkpoint is what the model was trained with.
    let mut file = Saver::new();
    for (name, shape) in &shapes {
        file = file.add_tensor(name, TensorData::new(seeded_weight(name, shape), shape.clone()));
    }
    let used = TensorData::new(vec![1i64, 2, 255], [3]);
    file.add_tensor("quantize.used", used).write(&checkpoint).unwrap();
    assert_eq!(vq(load().unwrap()).quantize.remap().unwrap().used(), [1, 2, 255]);
}

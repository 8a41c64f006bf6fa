//! The example `fine_tune` on a tiny model and a few pictures.
//!
//! Cargo builds the examples whenever it runs all tests (`cargo test --workspace --release`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use common::program::{refuses, succeeds, text};
use common::{directory, load};
use ldm::nn::lora::{LoraConfig, METADATA};
use ldm::nn::weights::WeightFile;
use ldm::scheduler::{SamplerKind, Scheduler};
use ldm::unet::Conditioning;
use ldm::{LoadOptions, StableDiffusion};
use ldm_test_support::{Fixture, relative_difference, seeded_input};
use ldm_train::{FineTuneConfig, FineTuneError, FineTuning, MicroBatch, Objective, ObjectiveConfig};

/// Six pictures of 64 pixels with captions.
fn pictures(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..6u32 {
        let pixel = |x: u32, y: u32| image::Rgb([(x * 4) as u8, (y * 4) as u8, (i * 40) as u8]);
        image::RgbImage::from_fn(64, 64, pixel).save(folder.join(format!("{i}.png"))).unwrap();
        fs::write(folder.join(format!("{i}.txt")), format!("a picture, number {i}")).unwrap();
    }
}

/// The losses that were printed.
fn losses(out: &str) -> Vec<f64> {
    let loss = |line: &str| line.split_once("loss ")?.1.split(',').next()?.parse().ok();
    out.lines().filter_map(loss).collect()
}

#[test]
fn lora_factors_lower_the_loss_and_go_on_top_of_the_model() {
    let (model, folder) = (directory(&Fixture::open("pipeline_sd1")), tempfile::tempdir().unwrap());
    let (data, output) = (folder.path().join("data"), folder.path().join("out"));
    pictures(&data);
    let common = ["--model", text(model.path()), "--data", text(&data), "--output", text(&output)];
    let rank = ["--lora-rank", "4", "--lora-alpha", "8", "--learning-rate", "1e-2", "--batch-size", "3"];
    let run = |more: &[&str]| succeeds("fine_tune", &[&common[..], &rank, more].concat());
    let steps = ["--steps", "45", "--log-every", "15"];
    let out = run(&steps);
    let found = losses(&out);
    println!("{found:?}");
    assert!(found.len() == 3 && found[2] < 0.8 * found[0], "{out}");

    let path = output.join("pytorch_lora_weights.safetensors");
    let file = WeightFile::open(&path).unwrap();
    assert_eq!(file.tensors().count(), 64);
    assert!(file.tensors().all(|t| t.name.starts_with("unet.") && t.name.contains(".lora_")));

    // The same command gives the same file; it goes on from a file.
    let first = fs::read(&path).unwrap();
    assert_eq!(losses(&run(&steps)), found);
    assert!(first == fs::read(&path).unwrap(), "one seed, one result");
    let more = losses(&run(&["--steps", "15", "--log-every", "15", "--lora-from", text(&path)]));
    println!("{more:?}");
    assert!(more[0] < 0.8 * found[0]);

    // The file's alpha counts where none is given; another one, or another rank, is refused.
    let kept = folder.path().join("kept");
    let on = ["--model", text(model.path()), "--data", text(&data), "--output", text(&kept), "--steps", "1"];
    let from = ["--lora-from", text(&path), "--lora-rank"];
    succeeds("fine_tune", &[&on[..], &from, &["4"]].concat());
    let file = WeightFile::open(kept.join("pytorch_lora_weights.safetensors")).unwrap();
    let note: serde_json::Value = serde_json::from_str(&file.metadata()[METADATA]).unwrap();
    assert_eq!((note["unet.r"].as_u64(), note["unet.lora_alpha"].as_f64()), (Some(4), Some(8.0)));
    let other = [&on[..], &from, &["4", "--lora-alpha", "3"]].concat();
    refuses("fine_tune", &other, 1, &["--lora-alpha 3", text(&path), "trained with 8"]);
    refuses("fine_tune", &[&on[..], &from, &["2"]].concat(), 1, &["--lora-rank 2", text(&path), "rank 4"]);

    let draw = |more: &[&str], name: &str| {
        let output = folder.path().join(name);
        let prompt =
            ["--prompt", "a picture", "--steps", "3", "--seed", "1", "--width", "64", "--height", "64"];
        let to = ["--model", text(model.path()), "--output", text(&output)];
        succeeds("text_to_image", &[&to[..], &prompt, more].concat());
        image::open(&output).unwrap().to_rgb8()
    };
    let plain = draw(&[], "plain.png");
    assert_ne!(draw(&["--lora", text(&output)], "lora.png"), plain);
    let without = format!("{}:0", text(&path));
    assert_eq!(draw(&["--lora", &without], "zero.png"), plain);
}

#[test]
fn a_whole_model_is_trained_and_written_as_a_model() {
    let (model, folder) = (directory(&Fixture::open("pipeline_sd1")), tempfile::tempdir().unwrap());
    let (data, output) = (folder.path().join("data"), folder.path().join("out"));
    pictures(&data);
    let arguments = [
        "--model",
        text(model.path()),
        "--data",
        text(&data),
        "--output",
        text(&output),
        "--learning-rate",
        "3e-3",
        "--steps",
        "30",
        "--log-every",
        "10",
        "--accumulate",
        "2",
    ];
    let found = losses(&succeeds("fine_tune", &arguments));
    println!("{found:?}");
    assert!(found.len() == 3 && found[2] < 0.8 * found[0], "{found:?}");
    let [before, after] =
        [model.path(), &output].map(|path| StableDiffusion::load(path, &LoadOptions::default()).unwrap());
    let difference = relative_difference(&after.unet.conv_in.weight.val(), &before.unet.conv_in.weight.val());
    assert!(difference > 1e-3, "{difference}");
    let [a, b] = [&before, &after].map(|m| m.vae.decoder.conv_in.weight.val().into_data());
    a.assert_eq(&b, true);
}

/// One of the paper's models, one that predicts velocities, and SDXL, which is told sizes too.
#[test]
fn other_families_are_trained_too() {
    for name in ["ldm_pipeline_text", "pipeline_sd2", "pipeline_sdxl"] {
        let (model, folder) = (directory(&Fixture::open(name)), tempfile::tempdir().unwrap());
        let data = folder.path().join("data");
        pictures(&data);
        let load = |path: &Path| StableDiffusion::load(path, &LoadOptions::default()).unwrap();
        let draw = |model: &StableDiffusion| {
            model.text_to_image("a picture").steps(2).seed(1).run().unwrap().images.remove(0)
        };
        let before = load(model.path());
        let kinds: [(&str, &[&str]); 2] =
            [("3e-3", &[]), ("2e-2", &["--lora-rank", "2", "--caption-dropout", "0.5"])];
        for (rate, more) in kinds {
            let output = folder.path().join(rate);
            let from = ["--model", text(model.path()), "--data", text(&data), "--output", text(&output)];
            let steps = ["--steps", "3", "--log-every", "1", "--batch-size", "2", "--learning-rate", rate];
            let found = losses(&succeeds("fine_tune", &[&from[..], &steps, more].concat()));
            println!("{name}, {more:?}: {found:?}");
            assert!(found.len() == 3 && found.iter().all(|loss| loss.is_finite()), "{name}: {found:?}");
            let after = match more.is_empty() {
                true => load(&output),
                false => {
                    // They begin at zero.
                    let file = WeightFile::open(output.join("pytorch_lora_weights.safetensors")).unwrap();
                    let second = file.tensors().filter(|tensor| tensor.name.ends_with(".lora_B.weight"));
                    for tensor in second {
                        let (_, values) = file.read_f32(&tensor.name).unwrap();
                        assert!(values.iter().any(|value| *value != 0.0), "{name}: {}", tensor.name);
                    }
                    before.clone().load_lora(&output, 1.0).unwrap()
                }
            };
            let weight = |model: &StableDiffusion| model.unet.conv_in.weight.val();
            let moved = relative_difference(&weight(&after), &weight(&before));
            assert_eq!(moved > 1e-3, more.is_empty(), "{name}: the first layer moved by {moved}");
            assert!(draw(&after) != draw(&before), "{name}, {more:?}: the same picture");
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let (model, folder) = (directory(&Fixture::open("pipeline_sd1")), tempfile::tempdir().unwrap());
    let (data, output) = (folder.path().join("data"), folder.path().join("out"));
    pictures(&data);
    (0..6).for_each(|i| fs::remove_file(data.join(format!("{i}.txt"))).unwrap());
    let arguments = |model: &str, more: &[&str]| -> Vec<String> {
        let all = ["--model", model, "--data", text(&data), "--output", text(&output), "--steps", "1"];
        all.iter().chain(more).map(|s| s.to_string()).collect()
    };
    let told = |model: &str, more: &[&str], code: i32, parts: &[&str]| {
        let all = arguments(model, more);
        refuses("fine_tune", &all.iter().map(String::as_str).collect::<Vec<_>>(), code, parts);
    };
    let sd1 = text(model.path());
    told(sd1, &[], 1, &[text(&data), "has no caption", "--caption"]);
    told(sd1, &["--caption", "x", "--lora-rank", "0"], 1, &["rank 0"]);
    told(sd1, &["--lora-alpha", "2"], 2, &["--lora-rank"]);
    told(sd1, &["--caption", "x", "--lora", "nowhere.safetensors"], 1, &["nowhere.safetensors"]);
    let nine = directory(&Fixture::open("pipeline_inpaint9"));
    told(text(nine.path()), &["--caption", "x"], 1, &["9 channels"]);
}

/// A latent consistency model takes the guidance scale as an input, which this objective does not give.
#[test]
fn a_distilled_model_is_refused() {
    let [distilled, plain] = ["pipeline_lcm", "pipeline_sd1"].map(|name| load(&Fixture::open(name)));
    let scheduler = Scheduler::from_config(SamplerKind::Ddpm, &plain.scheduler).unwrap();
    for lora in [None, Some(LoraConfig::new(2))] {
        let config = FineTuneConfig { lora, ..Default::default() };
        let objective = || Objective::of(&scheduler, &ObjectiveConfig::default()).unwrap();
        let refused = FineTuning::new(distilled.unet.clone(), objective(), config.clone());
        assert!(matches!(refused, Err(FineTuneError::Distilled)), "{lora:?}");
        assert!(FineTuning::new(plain.unet.clone(), objective(), config).is_ok(), "{lora:?}");
    }
}

#[test]
fn a_loss_that_is_no_number_changes_nothing() {
    let (model, device) = (load(&Fixture::open("pipeline_sd1")), Device::default());
    let scheduler = Scheduler::from_config(SamplerKind::Ddpm, &model.scheduler).unwrap();
    let objective = Objective::of(&scheduler, &ObjectiveConfig::default()).unwrap();
    let mut training = FineTuning::new(model.unet.clone(), objective, FineTuneConfig::default()).unwrap();
    let batch = |z: Tensor<4>| MicroBatch {
        z,
        noise: seeded_input("noise", [1, 4, 8, 8], &device),
        timesteps: vec![500],
        conditioning: Conditioning::context(seeded_input("context", [1, 3, 32], &device)),
    };
    let z = seeded_input("z", [1, 4, 8, 8], &device);
    let broken = Tensor::from_data(TensorData::new(vec![f32::NAN; 256], [1, 4, 8, 8]), (&device, DType::F32));
    let error = training.step(&[batch(z.clone()), batch(broken)]).unwrap_err();
    assert!(matches!(error, FineTuneError::NotFinite { step: 0, what: "loss", .. }), "{error}");
    assert!(matches!(training.step(&[]), Err(FineTuneError::Empty)));
    assert!(matches!(training.resume_lora("factors.safetensors"), Err(FineTuneError::Whole { .. })));
    let weight = |unet: &ldm::unet::UNet| unet.conv_in.weight.val().into_data();
    weight(&training.unet()).assert_eq(&weight(&model.unet), true);
    let told = training.step(&[batch(z)]).unwrap();
    assert!(told.loss > 0.0 && told.grad_norm > 0.0);
    assert!(weight(&training.unet()) != weight(&model.unet));
}

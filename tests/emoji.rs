//! What is trained on the emoji in assets/: how good the first stage there is, and the trainer's default run on it.
//!
//! Cargo builds the examples whenever it runs all tests (`cargo test --workspace --release`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use ldm_train::config::{ModelConfig, RunConfig};
use ldm_train::data::{DataConfig, Loader, LoaderConfig, Transform};
use ldm_train::evaluate::{mean, reconstruction};
use ldm_train::export::load_first_stage;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_first_stage_reconstructs_pictures_that_it_has_not_seen() {
    let config = RunConfig::read(root().join("configs/emoji_diffusion.yaml")).unwrap();
    let ModelConfig::Diffusion(model) = &config.model else { panic!("a diffusion model's config") };
    let weights = root().join(model.first_stage_ckpt.as_ref().unwrap());
    let device = Device::default();
    let first_stage = load_first_stage(&model.first_stage, &weights, &device).unwrap();

    let held_out = DataConfig::new(root().join("assets/emoji.tar")).split("held_out").open().unwrap();
    let loader = LoaderConfig { batch_size: 20, transform: Transform::new(64), ..LoaderConfig::default() };
    let figures = reconstruction(&Loader::new(held_out, loader).unwrap(), &device, |pictures| {
        Ok(first_stage.decode(first_stage.encode(pictures)?.mode())?)
    });
    let figures = figures.unwrap();
    println!("{} pictures, {:.2} dB", figures.len(), mean(&figures));
    assert_eq!(figures.len(), 200);
    assert!(mean(&figures) >= 27.0, "{:.2} dB", mean(&figures));
}

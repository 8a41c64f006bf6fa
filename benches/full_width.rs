//! The paper's U-Nets at full width against the original code, one of each family:
//! `cargo bench --bench full_width -- cin256` (`all`: all; rdm768x768 takes 12 GB of memory).
//!
//! Weights are drawn by name as in the tests, tests/reference/full_width.py made the numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench ends where its model cannot be made")]

use std::process::ExitCode;
use std::time::Instant;

use burn::tensor::{DType, Device, Tensor};
use ldm_nn::weights::{Loader, WeightFile, save_safetensors};
use ldm_test_support::{Fixture, relative_difference, seeded_input, write_weights};
use ldm_unet::{Conditioning, UNetConfig};

const TOLERANCE: f64 = 1e-4;

fn main() -> ExitCode {
    let fixture = Fixture::open("full_width");
    // `cargo bench` adds `--bench`.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if named.is_empty() {
        // `cargo bench` alone stays within an ordinary machine's memory.
        println!("usage: full_width NAME..., all or some of {}", fixture.names().join(", "));
        return ExitCode::SUCCESS;
    }
    let all = named.iter().any(|name| name == "all");
    let mut worst = 0f64;
    for name in fixture.names().into_iter().filter(|name| all || named.contains(name)) {
        worst = worst.max(compare(&fixture, &name));
    }
    if worst <= TOLERANCE { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One forward pass on an 8x8 latent; gives the difference.
fn compare(fixture: &Fixture, name: &str) -> f64 {
    let device = Device::default();
    let preset = ldm::presets::ldm(name).expect("a published model");
    let config = UNetConfig::from_compvis(&preset.config().unet_config.params).unwrap();
    let keys = config.compvis_keys().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unet.safetensors");
    save_safetensors(&config.init(&device).unwrap(), &keys, &path, DType::F32).unwrap();
    let file = WeightFile::open(&path).unwrap();
    const PREFIX: &str = "model.diffusion_model.";
    let shapes: Vec<_> = file.tensors().map(|t| (format!("{PREFIX}{}", t.name), t.shape.clone())).collect();
    drop(file);
    write_weights(&path, &shapes);
    let file = WeightFile::open(&path).unwrap();
    let (unet, _) = Loader::new(&keys).prefix(PREFIX).load(config.init(&device).unwrap(), &file).unwrap();

    let x = seeded_input("x", [1, config.in_channels, 8, 8], &device);
    let conditioning = match config.context_dim {
        Some(width) => Conditioning::context(seeded_input("context", [1, 5, width], &device)),
        None => Conditioning::none(),
    };
    let t = || Tensor::<1>::from_floats([500.0], &device);
    let e = unet.forward(x.clone(), t(), &conditioning).unwrap();
    let difference = relative_difference(&e, &fixture.tensor::<4>(name, &device));
    let start = Instant::now();
    let again = unet.forward(x, t(), &conditioning).unwrap();
    std::hint::black_box(again.into_data());
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}: {} parameters, difference {difference:.2e}, {seconds:.2} s", unet.parameter_count());
    difference
}

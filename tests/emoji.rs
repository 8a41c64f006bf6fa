//! The model in assets/: how good it is, how large, and the examples that draw with it.
//!
//! Cargo builds the examples whenever it runs all tests (`cargo test --workspace --release`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::program::{succeeds, text};
use image::{Rgb, RgbImage};
use ldm::{Family, LoadOptions, StableDiffusion};

const MEBI: u64 = 1 << 20;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets")
}

fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), fs::metadata(&path).unwrap().len())),
        }
    }
    found
}

#[test]
fn it_is_light_to_clone() {
    let model: u64 = files(&assets().join("emoji")).iter().map(|(_, size)| size).sum();
    assert!(model <= 24 * 1_000_000, "{model} bytes");
    let all = files(&assets());
    for (path, size) in &all {
        assert!(*size < 16 * MEBI, "{}: {size} bytes", path.display());
    }
    let whole: u64 = all.iter().map(|(_, size)| size).sum();
    assert!(whole < 38 * 1_000_000, "{whole} bytes");
}

/// The number before `unit` in the line that begins with `name`.
fn figure(said: &str, name: &str, unit: &str) -> f64 {
    let line = said.lines().find(|line| line.starts_with(name)).unwrap();
    let before = line.split(unit).next().unwrap();
    before.rsplit([' ', ':']).find(|word| !word.is_empty()).unwrap().parse().unwrap()
}

#[test]
fn it_reconstructs_and_draws_what_is_named() {
    let said = succeeds("emoji_score", &[]);
    assert!(figure(&said, "reconstruction of 200 held-out pictures", "dB") >= 27.0, "{said}");
    assert!(figure(&said, "training prompts", "%") >= 60.0, "{said}");
    // Never seen together in training; 5 % would be chance.
    assert!(figure(&said, "held-out combinations", "%") >= 60.0, "{said}");
}

#[test]
fn the_examples_draw_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let files =
        ["first.png", "again.png", "other.png", "prompts.txt", "sheet.png", "changed.png", "mask.png"];
    let [first, again, other, prompts, sheet, changed, mask] = files.map(|name| folder.path().join(name));
    let painted = folder.path().join("painted.png");
    let read = |path: &Path| image::open(path).unwrap().to_rgb8();
    let draw = |seed: &str, path: &Path| {
        succeeds("text_to_image", &["--steps", "4", "--seed", seed, "--output", text(path)]);
        read(path)
    };
    let picture = draw("1", &first);
    assert_eq!(picture.dimensions(), (64, 64));
    assert_eq!(picture, draw("1", &again), "one seed, one picture");
    assert_ne!(picture, draw("2", &other));

    fs::write(&prompts, "red heart\n\ncat face\npizza\n").unwrap();
    succeeds(
        "text_to_image",
        &["--prompts", text(&prompts), "--sheet", "2", "--steps", "2", "--output", text(&sheet)],
    );
    assert_eq!(read(&sheet).dimensions(), (128, 128));

    let from_it = ["--image", text(&first), "--prompt", "blue heart", "--steps", "4"];
    succeeds("image_to_image", &[&from_it[..], &["--output", text(&changed)]].concat());
    assert_eq!(read(&changed).dimensions(), (64, 64));

    // Only the right half is painted anew: on the left the picture is what the first stage makes of it.
    RgbImage::from_fn(64, 64, |x, _| Rgb([if x < 32 { 0 } else { 255 }; 3])).save(&mask).unwrap();
    let into_it = ["--mask", text(&mask), "--output", text(&painted)];
    succeeds("inpaint", &[&from_it[..], &into_it].concat());
    let painted = read(&painted);
    let apart = |columns: std::ops::Range<u32>| -> f64 {
        let pixels = columns.flat_map(|x| (0..64).map(move |y| (x, y)));
        let difference = |(x, y)| {
            let pairs = painted.get_pixel(x, y).0.into_iter().zip(picture.get_pixel(x, y).0);
            pairs.map(|(a, b)| f64::from(a.abs_diff(b))).sum::<f64>() / 3.0
        };
        let all: Vec<f64> = pixels.map(difference).collect();
        all.iter().sum::<f64>() / all.len() as f64
    };
    assert!(apart(0..24) < 20.0, "{}", apart(0..24));
}

#[test]
fn it_is_a_model_like_any_other() {
    let model = StableDiffusion::load(assets().join("emoji"), &LoadOptions::default()).unwrap();
    assert_eq!(model.family, Family::LatentDiffusion);
    assert_eq!(model.default_size, [64, 64]);
    let red = |prompt: &str| {
        let output = model.text_to_image(prompt).steps(20).guidance(3.0).seed(5).run().unwrap();
        let [r, _, b] = output.images[0].pixels().fold([0f64; 3], |mut sum, pixel| {
            sum.iter_mut().zip(pixel.0).for_each(|(sum, v)| *sum += f64::from(v));
            sum
        });
        r - b
    };
    assert!(red("red heart") > red("blue heart"), "the prompt matters");
}

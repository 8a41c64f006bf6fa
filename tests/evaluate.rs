//! The example `evaluate` on two folders, with seeded weights in the feature extractors.
//!
//! Cargo builds the examples whenever it runs all tests (`cargo test --workspace --release`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::TensorData;
use common::program::{refuses, succeeds, text};
use ldm::nn::weights::Saver;
use ldm_test_support::{Fixture, seeded_weight};
use ldm_train::metrics::{ClipModel, MetricError};

fn pictures(folder: &Path, green: u32) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..5u32 {
        let pixel =
            |x: u32, y: u32| image::Rgb([(x * 7 * i) as u8, (y * 5 + green) as u8, (i * 40 + green) as u8]);
        image::RgbImage::from_fn(32, 40, pixel).save(folder.join(format!("{i}.png"))).unwrap();
    }
}

fn write(path: &Path, shapes: impl IntoIterator<Item = (String, Vec<usize>)>) {
    let mut saver = Saver::new();
    for (name, shape) in shapes {
        let offset = if name.ends_with("running_var") { 1.0 } else { 0.0 };
        let values: Vec<f32> = seeded_weight(&name, &shape).iter().map(|v| v + offset).collect();
        saver = saver.add_tensor(name, TensorData::new(values, shape));
    }
    saver.write(path).unwrap();
}

/// VGG16's convolutions under torchvision's names, and LPIPS' linear layers.
fn lpips() -> Vec<(String, Vec<usize>)> {
    let places = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
    let channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512];
    let mut shapes = vec![];
    for (i, place) in places.into_iter().enumerate() {
        shapes.push((format!("features.{place}.weight"), vec![channels[i + 1], channels[i], 3, 3]));
        shapes.push((format!("features.{place}.bias"), vec![channels[i + 1]]));
    }
    shapes.extend(
        [64, 128, 256, 512, 512]
            .iter()
            .enumerate()
            .map(|(i, c)| (format!("lin{i}.model.1.weight"), vec![1, *c, 1, 1])),
    );
    shapes
}

/// The table's rows: figure, then value, or nothing.
fn rows(out: &str) -> BTreeMap<String, Option<f64>> {
    let row = |line: &str| {
        let (figure, rest) = line.split_at_checked(16)?;
        let value = rest.split_whitespace().next()?;
        Some((figure.trim().to_string(), value.parse().ok()))
    };
    out.lines().skip(1).filter_map(row).collect()
}

#[test]
fn two_folders() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (drawn, real) = (at("drawn"), at("real"));
    pictures(&drawn, 30);
    pictures(&real, 0);

    let out = succeeds("evaluate", &["--drawn", text(&drawn), "--real", text(&real)]);
    println!("{out}");
    let found = rows(&out);
    assert!((10.0..40.0).contains(&found["PSNR (dB)"].unwrap()), "{out}");
    assert!((0.1..1.0).contains(&found["SSIM"].unwrap()), "{out}");
    for (figure, needs) in [("LPIPS", "--lpips"), ("FID", "--inception"), ("recall", "--inception")] {
        assert!(found[figure].is_none() && out.contains(&format!("needs {needs} FILE")), "{out}");
    }

    let (inception, vgg, kept) = (at("inception.safetensors"), at("lpips.safetensors"), at("real.npz"));
    write(&inception, Fixture::open("inception").shapes("shapes"));
    write(&vgg, lpips());
    let all = ["--inception", text(&inception), "--splits", "2", "--batch", "5"];
    let save = ["--lpips", text(&vgg), "--save-statistics", text(&kept)];
    let out =
        succeeds("evaluate", &[&["--drawn", text(&drawn), "--real", text(&real)][..], &all, &save].concat());
    println!("{out}");
    let found = rows(&out);
    assert_eq!(found.values().filter(|v| v.is_some()).count(), 8, "{out}");
    let fid = found["FID"].unwrap();
    assert!(fid > 0.0 && found["sFID"].unwrap() > 0.0 && found["LPIPS"].unwrap().is_finite(), "{out}");
    assert!(found["Inception Score"].unwrap() >= 1.0);

    // The statistics that were written stand for the real pictures.
    let out = succeeds("evaluate", &[&["--drawn", text(&drawn), "--real", text(&kept)][..], &all].concat());
    let again = rows(&out);
    assert_eq!(
        (again["FID"], again["sFID"], again["precision"]),
        (found["FID"], found["sFID"], None),
        "{out}"
    );

    // A set against itself.
    let out = succeeds("evaluate", &[&["--drawn", text(&real), "--real", text(&real)][..], &all].concat());
    let same = rows(&out);
    assert_eq!((same["PSNR (dB)"], same["SSIM"]), (Some(f64::INFINITY), Some(1.0)), "{out}");
    assert_eq!((same["precision"], same["recall"]), (Some(1.0), Some(1.0)), "{out}");
    assert!(same["FID"].unwrap().abs() < 1e-2 * fid, "{out}");
}

/// The tiny CLIP of tests/reference/clip_score.py against torchmetrics.
#[test]
fn clip_score() {
    let (fixture, folder) = (Fixture::open("clip_score"), tempfile::tempdir().unwrap());
    let (model, drawn) = (folder.path().join("clip"), folder.path().join("drawn"));
    fs::create_dir_all(&model).unwrap();
    fs::create_dir_all(&drawn).unwrap();
    fs::write(model.join("config.json"), fixture.json("config").to_string()).unwrap();
    fs::write(model.join("tokenizer_config.json"), "{}").unwrap();
    common::write_vocabulary(&model);
    write(&model.join("model.safetensors"), fixture.shapes("shapes"));
    let sizes: Vec<[u32; 2]> = serde_json::from_value(fixture.json("sizes")).unwrap();
    let texts: Vec<String> = serde_json::from_value(fixture.json("texts")).unwrap();
    let expected: Vec<f64> = serde_json::from_value(fixture.json("scores")).unwrap();
    let mut files = vec![];
    for (i, [w, h]) in sizes.into_iter().enumerate() {
        let pixel = |x: u32, y: u32| {
            let third = if x > y { 200 } else { 30 };
            image::Rgb([((x * 5 + 40 * i as u32) % 256) as u8, ((y * 3 + x) % 256) as u8, third])
        };
        files.push(drawn.join(format!("{i}.png")));
        image::RgbImage::from_fn(w, h, pixel).save(&files[i]).unwrap();
        fs::write(drawn.join(format!("{i}.txt")), &texts[i]).unwrap();
    }
    let clip = ClipModel::from_directory(&model, &Default::default()).unwrap();
    let scores = clip.scores(&files, &texts, 3, |_| {}).unwrap();
    println!("{scores:?} {expected:?}");
    for (i, (score, expected)) in scores.iter().zip(&expected).enumerate() {
        // Pillow rounds a resized picture to 8 bits.
        let tolerance = if i < 2 { 1e-3 } else { 0.2 };
        assert!((score - expected).abs() < tolerance, "{i}: {score}, not {expected}");
    }
    assert!(matches!(clip.scores(&files, &texts[1..], 3, |_| {}), Err(MetricError::Shapes { .. })));

    let both = ["--drawn", text(&drawn), "--real", text(&drawn)];
    let out = succeeds("evaluate", &[&both[..], &["--clip", text(&model)]].concat());
    let found = rows(&out)["CLIP score"].unwrap();
    assert!((found - expected.iter().sum::<f64>() / 4.0).abs() < 0.2, "{out}");
    fs::remove_file(model.join("model.safetensors")).unwrap();
    refuses("evaluate", &[&both[..], &["--clip", text(&model)]].concat(), 1, &["clip", "no weights"]);
}

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (drawn, real, nowhere) =
        (folder.path().join("drawn"), folder.path().join("real"), folder.path().join("nowhere"));
    pictures(&drawn, 0);
    pictures(&real, 0);
    let both = ["--drawn", text(&drawn), "--real", text(&real)];
    refuses("evaluate", &["--drawn", text(&nowhere), "--real", text(&real)], 1, &["nowhere"]);
    refuses("evaluate", &[&both[..], &["--inception", text(&nowhere)]].concat(), 1, &["nowhere"]);
    let other = folder.path().join("other.safetensors");
    write(&other, [("fc.weight".to_string(), vec![2, 2])]);
    refuses(
        "evaluate",
        &[&both[..], &["--lpips", text(&other)]].concat(),
        1,
        &["other.safetensors", "missing"],
    );
    refuses("evaluate", &[&both[..], &["--inception", text(&other)]].concat(), 1, &["Mixed_7c", "missing"]);
    refuses("evaluate", &[&both[..], &["--save-statistics", "x.npz"]].concat(), 2, &["--inception"]);
    refuses("evaluate", &[&both[..], &["--clip", text(&nowhere)]].concat(), 1, &["nowhere"]);
    fs::write(drawn.join("3.png"), "broken").unwrap();
    refuses("evaluate", &both, 1, &["3.png"]);
    fs::rename(drawn.join("3.png"), drawn.join("9.png")).unwrap();
    let out = succeeds("evaluate", &both);
    assert!(out.contains("needs pairs") && out.contains("named 9"), "{out}");
}

//! Figures of quality against pytorch-fid, torch-fidelity, guided-diffusion, scikit-image and torchmetrics
//! (tests/reference/metrics.py).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_nn::weights::Saver;
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight};
use ldm_train::metrics::*;

fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap()
}

#[track_caller]
fn near(name: &str, actual: f64, expected: f64, tolerance: f64) {
    println!("{name}: {actual} {expected}");
    let difference = (actual - expected).abs() / expected.abs();
    assert!(difference <= tolerance, "{name}: {actual}, not {expected}: {difference:.1e} > {tolerance:.0e}");
}

/// As the script's `features`.
fn features(name: &str, shape: [usize; 2], scale: f64, offset: f64) -> Features {
    let drawn = seeded_input::<2>(&format!("metrics.{name}"), shape, &Device::default());
    Features::try_from(drawn * scale + offset).unwrap()
}

fn regular() -> [Features; 2] {
    [features("fid_a", [40, 8], 1.0, 0.0), features("fid_b", [30, 8], 1.5, 0.25)]
}

#[test]
fn frechet_distance_of_regular_and_singular_covariances() {
    let fixture = Fixture::open("metrics");
    // Fewer pictures than features.
    let singular = [features("few_a", [12, 24], 1.0, 0.0), features("few_b", [10, 24], 1.5, 0.25)];
    for (key, sets) in [("frechet", regular()), ("frechet_singular", singular)] {
        let [a, b] = sets.map(|set| Statistics::of(&set).unwrap());
        let distance = frechet_distance(&a, &b).unwrap();
        for reference in ["pytorch_fid", "torch_fidelity", "guided_diffusion"] {
            near(&format!("{key} {reference}"), distance, number(&fixture.json(key)[reference]), 1e-6);
        }
        near(&format!("{key}, turned round"), frechet_distance(&b, &a).unwrap(), distance, 1e-9);
        assert!(frechet_distance(&a, &a).unwrap().abs() < 1e-6);
    }
}

#[test]
fn statistics_may_come_in_batches_and_lie_in_files() {
    let fixture = Fixture::open("metrics");
    let [all, other] = regular();
    let whole = Statistics::of(&all).unwrap();
    let list = |key: &str| -> Vec<f64> {
        let json = fixture.json(key);
        let rows: Vec<serde_json::Value> = serde_json::from_value(json).unwrap();
        rows.iter()
            .flat_map(|v| v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]))
            .map(|v| number(&v))
            .collect()
    };
    let same =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(same(whole.mu(), &list("mu")) && same(whole.sigma(), &list("sigma")));

    let mut moments = Moments::new(8);
    for rows in all.values().chunks(7 * 8) {
        let batch = TensorData::new(rows.to_vec(), [rows.len() / 8, 8]);
        moments.push(&Features::try_from(Tensor::from_data(batch, &Device::default())).unwrap()).unwrap();
    }
    assert_eq!(moments.count(), 40);
    let joined = moments.finish().unwrap();
    assert!(same(joined.mu(), whole.mu()) && same(joined.sigma(), whole.sigma()));

    // numpy's file, of f64, and of f32 and in Fortran's order.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/fid_statistics.npz");
    let read = Statistics::read_npz(&file, StatisticsKind::Pool).unwrap();
    assert!(same(read.mu(), whole.mu()) && same(read.sigma(), whole.sigma()));
    let spatial = Statistics::read_npz(&file, StatisticsKind::Spatial).unwrap();
    assert!(spatial.mu().iter().zip(whole.mu()).all(|(a, b)| (a - b).abs() < 1e-6));
    let column = |i: usize| (i % 8) as f64;
    let expected: Vec<f64> = whole.sigma().iter().enumerate().map(|(i, v)| v + column(i)).collect();
    assert!(same(spatial.sigma(), &expected));

    // Ours, read again.
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("statistics.npz");
    let other = Statistics::of(&other).unwrap();
    let both = [(StatisticsKind::Pool, &whole), (StatisticsKind::Spatial, &other)];
    Statistics::write_npz(&ours, &both).unwrap();
    for (kind, statistics) in both {
        assert_eq!(&Statistics::read_npz(&ours, kind).unwrap(), statistics);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");

    Statistics::write_npz(&ours, &both[..1]).unwrap();
    let error = Statistics::read_npz(&ours, StatisticsKind::Spatial).unwrap_err().to_string();
    assert!(error.contains("statistics.npz") && error.contains("mu_s"), "{error}");
    fs::write(&ours, b"PK no archive").unwrap();
    let error = Statistics::read_npz(&ours, StatisticsKind::Pool).unwrap_err().to_string();
    assert!(error.contains("statistics.npz") && error.contains("no .npz"), "{error}");
}

/// All rows once, in another order, the same for one seed.
#[test]
fn rows_are_shuffled() {
    let rows = features("rows", [20, 3], 1.0, 0.0);
    let shuffled = rows.shuffled(0);
    assert_ne!(shuffled, rows);
    assert_eq!(shuffled, rows.shuffled(0));
    assert_ne!(shuffled, rows.shuffled(1));
    let sorted = |features: &Features| {
        let mut rows: Vec<Vec<f32>> = features.values().chunks(3).map(<[f32]>::to_vec).collect();
        rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
        rows
    };
    assert_eq!(sorted(&shuffled), sorted(&rows));
}

#[test]
fn inception_score_precision_recall_and_clip_score() {
    let fixture = Fixture::open("metrics");
    let expected = fixture.json("inception_score");
    let logits = features("logits", [50, 10], 3.0, 0.0);
    let score = inception_score(&logits, Splits::Count(3)).unwrap();
    near("mean", score.mean, number(&expected["count_3"][0]), 1e-6);
    near("std", score.std, number(&expected["count_3"][1]), 1e-6);
    near(
        "size",
        inception_score(&logits, Splits::Size(16)).unwrap().mean,
        number(&expected["size_16"]),
        1e-5,
    );

    let [near_, far] = [features("prc_a", [60, 6], 1.0, 0.0), features("prc_b", [45, 6], 1.25, 0.5)];
    for (k, expected) in fixture.json("precision_recall").as_object().unwrap() {
        let found = precision_recall(&near_, &far, k.parse().unwrap()).unwrap();
        near(&format!("precision, k = {k}"), found.precision, number(&expected[0]), 1e-6);
        near(&format!("recall, k = {k}"), found.recall, number(&expected[1]), 1e-6);
    }
    let itself = precision_recall(&far, &far, 3).unwrap();
    assert_eq!((itself.precision, itself.recall, itself.f_score()), (1.0, 1.0, 1.0));

    let embedding = |name| seeded_input::<2>(name, [5, 16], &Device::default());
    let (pictures, texts) = (embedding("metrics.clip_a"), embedding("metrics.clip_b"));
    let expected: Vec<f64> = serde_json::from_value(fixture.json("clip")).unwrap();
    let scores = clip_scores(pictures.clone() * 3.0, texts.clone()).unwrap();
    for (score, expected) in scores.iter().zip(&expected) {
        near("CLIP score", *score, *expected, 1e-5);
    }
    near("mean", clip_score(pictures, texts).unwrap(), expected.iter().sum::<f64>() / 5.0, 1e-5);
}

#[test]
fn pixels() {
    let fixture = Fixture::open("metrics");
    let drawn = |name| seeded_input::<4>(name, [2, 3, 24, 31], &Device::default()) / 3f64.sqrt();
    let a = drawn("metrics.a");
    let b = a.clone() * 0.8 + drawn("metrics.b") * 0.2;
    type Figure = fn(Tensor<4>, Tensor<4>) -> Result<Vec<f64>, MetricError>;
    for (key, figure, best) in [("psnr", psnr as Figure, f64::INFINITY), ("ssim", ssim, 1.0)] {
        let expected: Vec<f64> = serde_json::from_value(fixture.json(key)).unwrap();
        let found = figure(a.clone(), b.clone()).unwrap();
        assert_eq!(found.len(), 2);
        for (found, expected) in found.iter().zip(expected) {
            near(key, *found, expected, 1e-6);
        }
        assert_eq!(figure(a.clone(), a.clone()).unwrap(), [best; 2]);
    }
}

#[test]
fn inception_v3() {
    let (fixture, device) = (Fixture::open("inception"), Device::default());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inception.safetensors");
    let mut saver = Saver::new();
    for (name, shape) in fixture.shapes("shapes") {
        let offset = if name.ends_with("running_var") { 1.0 } else { 0.0 };
        let values: Vec<f32> = seeded_weight(&name, &shape).iter().map(|v| v + offset).collect();
        saver = saver.add_tensor(name, TensorData::new(values, shape));
    }
    saver.write(&path).unwrap();
    let network = Inception::from_file(&path, &device).unwrap();
    for (name, shape) in [("small", [2, 3, 40, 56]), ("large", [1, 3, 320, 310])] {
        let pictures = seeded_input::<4>(&format!("inception.{name}"), shape, &device) / 3f64.sqrt();
        let Activations { pool, spatial, logits } = network.forward(pictures);
        for (part, found) in [("pool", pool), ("spatial", spatial), ("logits", logits)] {
            let key = format!("{name}.{part}");
            assert_close(&key, &found, &fixture.tensor(&key, &device), 1e-4);
        }
    }

    // From files: two pictures of different sizes.
    let picture = |name: &str, w, h| {
        let path = folder.path().join(name);
        image::RgbImage::from_fn(w, h, |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, 90]))
            .save(&path)
            .unwrap();
    };
    picture("b.png", 20, 30);
    picture("a.bmp", 25, 12);
    let files = pictures_in(folder.path()).unwrap();
    assert_eq!(files, ["a.bmp", "b.png"].map(|name| folder.path().join(name)));
    let mut seen = vec![];
    let set = network.extract(&files, 8, |n| seen.push(n)).unwrap();
    assert_eq!((seen, set.pool.rows(), set.spatial.width(), set.logits.width()), (vec![2], 2, 2023, 1008));
    let alone = network.forward(read_picture(&files[1], &device).unwrap()).pool;
    let row = TensorData::new(set.pool.values()[2048..].to_vec(), [1, 2048]);
    assert_close("in a batch", &Tensor::<2>::from_data(row, (&device, DType::F32)), &alone, 1e-5);

    let file = Saver::new().add_tensor("fc.weight", TensorData::new(vec![0f32; 4], [2, 2]));
    file.write(&path).unwrap();
    let error = Inception::from_file(&path, &device).unwrap_err().to_string();
    assert!(error.contains("Mixed_7c.branch_pool.bn.running_var [192] is missing"), "{error}");
    assert!(error.contains("fc.weight has shape [2, 2]"), "{error}");
}

/// PNGs of 1 to 16 bits, with and without transparency (tests/reference/pictures.py), as `ldm::image::to_rgb8` sees them.
#[test]
fn pictures_have_the_pixels_that_pillow_sees() {
    let (fixture, folder) = (Fixture::open("pictures"), tempfile::tempdir().unwrap());
    let kinds: Vec<String> = serde_json::from_value(fixture.json("kinds")).unwrap();
    assert_eq!(kinds.len(), 11);
    for kind in kinds {
        let bytes = |what: &str| fixture.bytes(&format!("{kind}.{what}")).1;
        let path = folder.path().join("picture.png");
        fs::write(&path, bytes("png")).unwrap();
        let picture = read_picture(&path, &Device::default()).unwrap();
        let byte = |v: f32| ((v + 1.0) * 127.5).round() as u8;
        let found: Vec<u8> = picture.permute([0, 2, 3, 1]).into_data().iter::<f32>().map(byte).collect();
        assert_eq!(found, bytes("rgb"), "{kind}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let device = Device::default();
    let [a, _] = regular();
    let narrow = features("narrow", [40, 7], 1.0, 0.0);
    let [wide_stats, narrow_stats] = [&a, &narrow].map(|f| Statistics::of(f).unwrap());
    let told = |error: MetricError| error.to_string();
    let shapes = told(frechet_distance(&wide_stats, &narrow_stats).unwrap_err());
    assert!(shapes.contains("[8]") && shapes.contains("[7]"), "{shapes}");
    assert!(told(precision_recall(&a, &narrow, 3).unwrap_err()).contains("[40, 7]"));
    let few = features("few", [3, 8], 1.0, 0.0);
    assert!(told(precision_recall(&a, &few, 3).unwrap_err()).contains("3 given, at least 4"));
    let one = features("one", [1, 8], 1.0, 0.0);
    assert!(told(Statistics::of(&one).unwrap_err()).contains("1 given, at least 2"));
    assert!(told(inception_score(&few, Splits::Count(4)).unwrap_err()).contains("at least 4"));
    assert!(matches!(Statistics::new(vec![0.0], vec![f64::NAN]), Err(MetricError::NotFinite(_))));
    let nan = Tensor::<2>::full([2, 2], f32::NAN, &device);
    assert!(matches!(Features::try_from(nan), Err(MetricError::NotFinite(_))));
    let picture = |h, w| Tensor::<4>::zeros([1, 3, h, w], &device);
    assert!(told(psnr(picture(8, 8), picture(8, 9)).unwrap_err()).contains("[1, 3, 8, 9]"));
    assert!(told(ssim(picture(8, 12), picture(8, 12)).unwrap_err()).contains("8 given, at least 11"));

    let folder = tempfile::tempdir().unwrap();
    let (left, right) = (folder.path().join("left"), folder.path().join("right"));
    fs::create_dir(&left).unwrap();
    assert!(told(pictures_in(&right).unwrap_err()).contains("right"));
    assert!(told(pictures_in(&left).unwrap_err()).contains("no pictures"));
    fs::create_dir(&right).unwrap();
    fs::write(left.join("1.png"), "broken").unwrap();
    fs::write(right.join("2.jpg"), "broken").unwrap();
    let missing = told(pairs_in(&left, &right).unwrap_err());
    assert!(missing.contains("right") && missing.contains("named 1"), "{missing}");
    fs::write(right.join("1.JPG"), "broken").unwrap();
    assert_eq!(pairs_in(&left, &right).unwrap(), [(left.join("1.png"), right.join("1.JPG"))]);
    assert!(told(read_picture(left.join("1.png"), &device).unwrap_err()).contains("1.png"));
}

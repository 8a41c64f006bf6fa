//! What is saved is what is loaded, in every layout; and what a file lacks is listed.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use ldm_nn::weights::{Entry, KeyMap, Layout, Loader, Saver, WeightError, WeightFile, save_safetensors};
use ldm_nn::{Conv2d, Conv2dConfig, Linear, LinearConfig};
use ldm_test_support::{seeded_weight, write_weights};
use proptest::prelude::*;
use tempfile::tempdir;

/// A layer for each layout.
#[derive(Module, Debug)]
struct Small {
    conv: Conv2d,
    attention: Vec<Linear>,
    heads: Vec<Linear>,
    projection: Linear,
    as_conv2d: Linear,
    as_conv1d: Linear,
    choice: Choice,
}

#[derive(Module, Debug)]
enum Choice {
    Linear(Linear),
}

const HEADS: usize = 2;

impl Small {
    fn new(d: usize, device: &Device) -> Self {
        let square = || LinearConfig::new(d, d).init(device);
        Self {
            conv: Conv2dConfig::new([3, d], 3).init(device),
            attention: (0..3).map(|_| LinearConfig::new(d + 1, d).init(device)).collect(),
            heads: (0..3).map(|_| square()).collect(),
            projection: LinearConfig::new(d, d + 3).init(device),
            as_conv2d: square(),
            as_conv1d: LinearConfig::new(d, d + 1).with_bias(false).init(device),
            choice: Choice::Linear(square()),
        }
    }
}

fn map(path: &str) -> Option<Entry> {
    let part = |path: &str| path.split('.').nth(1)?.parse::<usize>().ok();
    let leaf = path.rsplit('.').next()?;
    let layout = match (path.split('.').next()?, leaf) {
        ("attention", _) => Layout::Qkv { part: part(path)?, per_head: None, conv: false },
        ("heads", _) => Layout::Qkv { part: part(path)?, per_head: Some(HEADS), conv: leaf == "weight" },
        ("projection", "weight") => Layout::Transposed,
        ("as_conv2d", "weight") => Layout::Conv2d1x1,
        ("as_conv1d", _) => Layout::Conv1d1x1,
        _ => return Some(Entry::same(path)),
    };
    let module = path.split('.').next()?;
    Some(Entry::new(format!("{module}.{leaf}"), layout))
}

/// The names and shapes of the file that [`map`] describes.
fn shapes(d: usize) -> Vec<(String, Vec<usize>)> {
    let all: [(&str, &[usize]); 13] = [
        ("conv.weight", &[d, 3, 3, 3]),
        ("conv.bias", &[d]),
        ("attention.weight", &[3 * d, d + 1]),
        ("attention.bias", &[3 * d]),
        ("heads.weight", &[3 * d, d, 1]),
        ("heads.bias", &[3 * d]),
        ("projection.weight", &[d, d + 3]),
        ("projection.bias", &[d + 3]),
        ("as_conv2d.weight", &[d, d, 1, 1]),
        ("as_conv2d.bias", &[d]),
        ("as_conv1d.weight", &[d + 1, d, 1]),
        ("choice.weight", &[d, d]),
        ("choice.bias", &[d]),
    ];
    all.into_iter().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect()
}

fn values<const D: usize>(param: &Param<Tensor<D>>) -> Vec<f32> {
    param.val().into_data().try_to_vec().unwrap()
}

#[test]
fn every_layout_lands_where_it_belongs() {
    let (device, d, dir) = (Device::default(), 4, tempdir().unwrap());
    let path = dir.path().join("a.safetensors");
    write_weights(&path, &shapes(d));
    let file = WeightFile::open(&path).unwrap();
    let (small, report) = Loader::new(&map).load(Small::new(d, &device), &file).unwrap();

    assert_eq!(report.loaded.len(), 13);
    assert!(report.kept.is_empty() && report.ignored.is_empty() && report.unknown.is_empty());
    assert_eq!(values(&small.conv.weight), seeded_weight("conv.weight", &[d, 3, 3, 3]));

    let stacked = seeded_weight("attention.weight", &[3 * d, d + 1]);
    for (part, layer) in small.attention.iter().enumerate() {
        let n = d * (d + 1);
        assert_eq!(values(&layer.weight), stacked[part * n..(part + 1) * n]);
    }

    let stacked = seeded_weight("heads.weight", &[3 * d, d, 1]);
    let width = d / HEADS;
    for (part, layer) in small.heads.iter().enumerate() {
        let layer = values(&layer.weight);
        for row in 0..d {
            let file_row = (row / width * 3 + part) * width + row % width;
            assert_eq!(layer[row * d..(row + 1) * d], stacked[file_row * d..(file_row + 1) * d]);
        }
    }

    let projection = seeded_weight("projection.weight", &[d, d + 3]);
    for (i, v) in values(&small.projection.weight).into_iter().enumerate() {
        assert_eq!(v, projection[i % d * (d + 3) + i / d]);
    }
    assert_eq!(values(&small.as_conv2d.weight), seeded_weight("as_conv2d.weight", &[d, d, 1, 1]));
    assert_eq!(values(&small.as_conv1d.weight), seeded_weight("as_conv1d.weight", &[d + 1, d, 1]));
}

#[test]
fn a_saved_file_is_the_file_that_was_loaded() {
    let (device, dir) = (Device::default(), tempdir().unwrap());
    let (a, b) = (dir.path().join("a.safetensors"), dir.path().join("b.safetensors"));
    write_weights(&a, &shapes(4));
    let file = WeightFile::open(&a).unwrap();
    let (small, _) = Loader::new(&map).load(Small::new(4, &device), &file).unwrap();
    save_safetensors(&small, &map, &b, DType::F32).unwrap();

    let bytes = std::fs::read(&b).unwrap();
    let saved = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, shape) in shapes(4) {
        let tensor = saved.tensor(&name).unwrap();
        assert_eq!(tensor.shape(), shape);
        let expected: Vec<u8> = seeded_weight(&name, &shape).into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(tensor.data(), expected, "{name}");
    }
    assert_eq!(saved.len(), 13);
    assert_eq!(WeightFile::open(&b).unwrap().metadata()["format"], "pt");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "a temporary file was left");

    save_safetensors(&small, &map, &b, DType::F32).unwrap();
    assert_eq!(std::fs::read(&b).unwrap(), bytes, "the same weights make the same file");
}

/// Every parameter's values, in the module's order.
struct Values(Vec<Vec<f64>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().into_data().iter::<f64>().collect());
    }
}

fn all_values(module: &impl Module) -> Vec<Vec<f64>> {
    let mut values = Values(Vec::new());
    module.visit(&mut values);
    values.0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// load(save(m)) = m, to the bit in m's own type; in a narrower type once the first save has rounded.
    #[test]
    fn what_is_saved_is_loaded(half_width in 1usize..5, narrow in 0usize..3) {
        let (device, dir) = (Device::default(), tempdir().unwrap());
        let path = dir.path().join("a.safetensors");
        let load = |dtype| {
            let file = WeightFile::open(&path).unwrap();
            Loader::new(&map).dtype(dtype).load(Small::new(2 * half_width, &device), &file).unwrap().0
        };
        let small = Small::new(2 * half_width, &device);
        save_safetensors(&small, &map, &path, DType::F32).unwrap();
        prop_assert_eq!(all_values(&load(DType::F32)), all_values(&small));

        let narrow = [DType::F16, DType::BF16, DType::F64][narrow];
        save_safetensors(&small, &map, &path, narrow).unwrap();
        let rounded = load(DType::F32);
        let unit = match narrow { DType::F16 => 2f64.powi(-11), DType::BF16 => 2f64.powi(-8), _ => 0.0 };
        for (a, b) in all_values(&rounded).iter().flatten().zip(all_values(&small).iter().flatten()) {
            prop_assert!((a - b).abs() <= unit * b.abs() + 1e-7, "{a} {b}");
        }
        save_safetensors(&rounded, &map, &path, narrow).unwrap();
        prop_assert_eq!(all_values(&load(DType::F32)), all_values(&rounded));
        if device.supports_dtype(narrow) {
            prop_assert_eq!(all_values(&load(narrow)), all_values(&rounded));
        }
    }
}

#[test]
fn parameters_get_the_type_that_was_asked_for() {
    let (device, dir) = (Device::default(), tempdir().unwrap());
    let path = dir.path().join("a.safetensors");
    write_weights(&path, &shapes(4));
    let file = WeightFile::open(&path).unwrap();
    for (dtype, float) in
        [(DType::F32, FloatDType::F32), (DType::F16, FloatDType::F16), (DType::BF16, FloatDType::BF16)]
    {
        if device.supports_dtype(float) {
            let (small, _) = Loader::new(&map).dtype(dtype).load(Small::new(4, &device), &file).unwrap();
            assert_eq!(small.conv.weight.val().dtype(), dtype);
        }
    }
}

/// Two names for each parameter: the new one, and the one that older files have.
struct TwoNames;

impl KeyMap for TwoNames {
    fn entry(&self, path: &str) -> Option<Entry> {
        Some(Entry::same(format!("new.{path}")))
    }

    fn entries(&self, path: &str) -> Vec<Entry> {
        let layout = if path == "weight" { Layout::Conv2d1x1 } else { Layout::Same };
        self.entry(path).into_iter().chain([Entry::new(format!("old.{path}"), layout)]).collect()
    }
}

#[test]
fn older_names_are_read_and_the_first_is_written() {
    let (device, dir) = (Device::default(), tempdir().unwrap());
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let linear = || LinearConfig::new(2, 3).init(&device);
    write_weights(&old, &[("old.weight".into(), vec![3, 2, 1, 1]), ("old.bias".into(), vec![3])]);
    let (loaded, report) = Loader::new(&TwoNames).load(linear(), &WeightFile::open(&old).unwrap()).unwrap();
    assert_eq!(report.loaded, ["old.bias", "old.weight"]);
    assert_eq!(values(&loaded.weight), seeded_weight("old.weight", &[3, 2]));
    save_safetensors(&loaded, &TwoNames, &new, DType::F32).unwrap();
    let file = WeightFile::open(&new).unwrap();
    assert_eq!(file.info("new.weight").unwrap().shape, [3, 2]);
    assert_eq!(Loader::new(&TwoNames).load(linear(), &file).unwrap().1.loaded, ["new.bias", "new.weight"]);

    // Neither name: the first is the one that is missing. A name in a wrong shape says more than none.
    write_weights(&old, &[("old.weight".into(), vec![3, 2])]);
    let error =
        Loader::new(&TwoNames).load(linear(), &WeightFile::open(&old).unwrap()).unwrap_err().to_string();
    assert!(error.contains("old.weight has shape [3, 2], the model needs [3, 2, 1, 1]"), "{error}");
    assert!(error.contains("new.bias [3] is missing"), "{error}");
}

#[test]
fn what_is_not_needed_is_reported() {
    let (device, dir) = (Device::default(), tempdir().unwrap());
    let path = dir.path().join("a.safetensors");
    let names = [
        "vae.weight",
        "vae.bias",
        "vae.loss.logvar",
        "vae.text.position_ids",
        "vae.betas",
        "vae.mine.1",
        "vae.more",
        "unet.weight",
        "model_ema.decay",
    ];
    let shape = |name: &str| if name == "vae.weight" { vec![3, 2] } else { vec![3] };
    write_weights(&path, &names.map(|name| (name.to_owned(), shape(name))));
    let file = WeightFile::open(&path).unwrap();
    let map = |path: &str| (path == "weight").then(|| Entry::same("weight"));
    let (linear, report) = Loader::new(&map)
        .prefix("vae.")
        .ignore(["mine.*"])
        .load(LinearConfig::new(2, 3).init(&device), &file)
        .unwrap();
    assert_eq!(report.loaded, ["vae.weight"]);
    assert_eq!(report.kept, ["bias"]);
    assert_eq!(report.ignored, ["vae.betas", "vae.loss.logvar", "vae.mine.1", "vae.text.position_ids"]);
    assert_eq!(report.unknown, ["vae.bias", "vae.more"]);
    assert_eq!(values(&linear.weight), seeded_weight("vae.weight", &[3, 2]));
}

#[test]
fn several_modules_in_one_file() {
    let (device, dir) = (Device::default(), tempdir().unwrap());
    let path = dir.path().join("whole.safetensors");
    let (a, b) = (Small::new(2, &device), Small::new(4, &device));
    let betas = || TensorData::new(vec![0.5f64, 0.25], [2]);
    let saver =
        || Saver::new().dtype(DType::F32).metadata("made", "here").add(&a, &map, "a.").add(&b, &map, "b.");
    saver().add_tensor("betas", betas()).write(&path).unwrap();

    let file = WeightFile::open(&path).unwrap();
    assert_eq!(file.tensors().count(), 27);
    assert_eq!(file.metadata()["made"], "here");
    assert_eq!(file.read_f32("betas").unwrap(), (vec![2], vec![0.5, 0.25]));
    let (loaded, report) = Loader::new(&map).prefix("b.").load(Small::new(4, &device), &file).unwrap();
    assert_eq!(all_values(&loaded), all_values(&b));
    assert!(report.unknown.is_empty(), "{:?}", report.unknown);

    let refused = |saver: Saver<'_>, says: &str| {
        let other = dir.path().join("refused.safetensors");
        let error = saver.write(&other).unwrap_err();
        assert!(matches!(error, WeightError::Save { .. }) && error.to_string().contains(says), "{error}");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left of a file that failed"
        );
    };
    refused(saver().add(&a, &map, "a."), "two parameters are named a.");
    refused(saver().add_tensor("a.conv.bias", betas()), "two tensors are named a.conv.bias");
    refused(saver().dtype(DType::I64), "no float type");
    let only_a_query = |path: &str| {
        let layout = Layout::Qkv { part: 0, per_head: None, conv: false };
        (path == "attention.0.weight").then(|| Entry::new("qkv", layout))
    };
    refused(Saver::new().add(&a, &only_a_query, ""), "a part of qkv has no parameter");
    let large = Param::from_tensor(Tensor::<1>::from_data([1e30f32], &device));
    let large = Large { large };
    let same = |path: &str| Some(Entry::same(path));
    let too_large = || Saver::new().dtype(DType::F16).add(&large, &same, "");
    refused(too_large(), "too large");
    // What failed is not told as written.
    let mut told = vec![];
    let other = dir.path().join("refused.safetensors");
    assert!(too_large().write_observed(&other, &mut |done, of| told.push((done, of))).is_err());
    assert!(told.is_empty(), "{told:?}");
    let nowhere = saver().write(dir.path().join("none").join("a.safetensors"));
    assert!(matches!(nowhere, Err(WeightError::Io { .. })));
}

#[derive(Module, Debug)]
struct Large {
    large: Param<Tensor<1>>,
}

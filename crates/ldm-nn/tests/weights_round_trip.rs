//! What is saved is what is loaded, in every layout; and what a file lacks is listed.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use ldm_nn::weights::{Entry, Layout, Loader, WeightFile, save_safetensors};
use ldm_nn::{Conv2d, Conv2dConfig, Linear, LinearConfig};
use ldm_test_support::{seeded_weight, write_weights};
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

//! Reading what torch.save writes (fixtures: tests/reference/weights.py).
#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::Device;
use half::{bf16, f16};
use ldm_nn::weights::{ElementType, Entry, Layout, Loader, TensorProblem, WeightError, WeightFile};
use ldm_nn::{Linear, LinearConfig};
use ldm_test_support::{pickled_state_dict, seeded_weight, write_torch_deflated};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn check(name: &str) {
    let file = WeightFile::open(fixture(name)).unwrap();
    let float = |key: &str| file.read_f32(key).unwrap();
    let int = |key: &str| file.read_i64(key).unwrap();
    let drawn = |key: &str, shape: &[usize]| (shape.to_vec(), seeded_weight(key, shape));
    let rounded = |key: &str, shape: &[usize], round: fn(f32) -> f32| {
        (shape.to_vec(), seeded_weight(key, shape).into_iter().map(round).collect::<Vec<_>>())
    };

    assert_eq!(float("f32.weight"), drawn("f32.weight", &[3, 4, 2]));
    assert_eq!(float("f64.weight"), drawn("f64.weight", &[2, 7]));
    assert_eq!(float("parameter.weight"), drawn("parameter.weight", &[6, 2]));
    assert_eq!(float("f16.weight"), rounded("f16.weight", &[5, 3], |v| f16::from_f32(v).to_f32()));
    assert_eq!(float("bf16.weight"), rounded("bf16.weight", &[4, 4], |v| bf16::from_f32(v).to_f32()));
    assert_eq!(file.info("bf16.weight").unwrap().element, ElementType::BF16);
    assert_eq!(float("scalar"), (vec![], vec![0.25]));
    assert_eq!(float("empty"), (vec![0, 3], vec![]));

    assert_eq!(int("i64"), (vec![3, 4], (-3..9).collect()));
    for key in ["i32", "i16", "i8"] {
        assert_eq!(int(key), (vec![5], (-2..3).collect()), "{key}");
    }
    assert_eq!(int("u8"), (vec![6], (250..256).collect()));
    assert_eq!(int("bool"), (vec![3], vec![1, 0, 1]));

    let base = seeded_weight("base.weight", &[6, 5]);
    let view = |indices: &[usize]| indices.iter().map(|i| base[*i]).collect::<Vec<_>>();
    assert_eq!(float("base.weight").1, base);
    let transposed: Vec<usize> = (0..5).flat_map(|c| (0..6).map(move |r| r * 5 + c)).collect();
    assert_eq!(float("view.transposed"), (vec![5, 6], view(&transposed)));
    let rows: Vec<usize> = [5..10, 15..20, 25..30].into_iter().flatten().collect();
    assert_eq!(float("view.rows"), (vec![3, 5], view(&rows)));
    assert_eq!(float("view.column"), (vec![6], view(&[3, 8, 13, 18, 23, 28])));
    assert_eq!(float("view.tail"), (vec![2, 5], base[20..].to_vec()));
    assert_eq!(float("view.expanded"), (vec![2, 3], vec![base[11]; 6]));

    assert_eq!(file.tensors().count(), 19);
    assert!(matches!(file.read_f32("i64"), Err(WeightError::Tensors { problems, .. })
        if problems == [TensorProblem::Type { key: "i64".into(), found: ElementType::I64 }]));
    assert!(file.read_i64("scalar").is_err());
}

#[test]
fn zip_archive() {
    check("weights_zip.ckpt");
}

#[test]
fn compressed_zip_archive() {
    check("weights_deflated.ckpt");
}

#[derive(Module, Debug)]
struct Parts {
    layers: Vec<Linear>,
}

/// Query, key and value that are stacked inside each head lie in several runs, here of a compressed entry.
#[test]
fn parts_of_a_compressed_tensor() {
    const HEADS: usize = 3;
    const WIDTH: usize = 4;
    let (d, dir) = (HEADS * WIDTH, tempfile::tempdir().unwrap());
    let path = dir.path().join("qkv.ckpt");
    let shapes = [("other".to_owned(), vec![7]), ("qkv".to_owned(), vec![3 * d, d])];
    let bytes = |(name, shape): &(String, Vec<usize>)| {
        seeded_weight(name, shape).into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>()
    };
    write_torch_deflated(&path, &pickled_state_dict(&shapes), shapes.iter().map(bytes));
    let file = WeightFile::open(&path).unwrap();
    let map = |path: &str| {
        let part = path.split('.').nth(1)?.parse().ok()?;
        Some(Entry::new("qkv", Layout::Qkv { part, per_head: Some(HEADS), conv: false }))
    };
    let layer = |_| LinearConfig::new(d, d).with_bias(false).init(&Device::default());
    let parts = Parts { layers: (0..3).map(layer).collect() };
    let (parts, report) = Loader::new(&map).load(parts, &file).unwrap();
    assert_eq!((report.loaded, report.unknown), (vec!["qkv".to_owned()], vec!["other".to_owned()]));
    let stacked = seeded_weight("qkv", &[3 * d, d]);
    for (part, layer) in parts.layers.iter().enumerate() {
        let weight: Vec<f32> = layer.weight.val().into_data().try_to_vec().unwrap();
        for (row, found) in weight.chunks(d).enumerate() {
            let at = (row / WIDTH * 3 + part) * WIDTH + row % WIDTH;
            assert_eq!(found, &stacked[at * d..(at + 1) * d], "part {part}, row {row}");
        }
    }
}

#[test]
fn before_pytorch_1_6() {
    check("weights_legacy.ckpt");
}

#[test]
fn code_in_a_pickle_is_never_run() {
    let file = WeightFile::open(fixture("weights_code.bin")).unwrap();
    assert_eq!(file.read_f32("good.weight").unwrap().1, seeded_weight("good.weight", &[2, 3]));
    assert_eq!(file.tensors().count(), 1);
    let error = file.read_f32("bad.weight").unwrap_err();
    assert!(error.to_string().contains("bad.weight is made by calling posix.system"), "{error}");
    assert!(!std::path::Path::new("pickle_was_run").exists());
}

#[test]
fn shards_of_either_kind() {
    let dir = tempfile::tempdir().unwrap();
    let shapes = [("a.weight".to_owned(), vec![3, 2]), ("b.weight".to_owned(), vec![4])];
    ldm_test_support::write_weights(&dir.path().join("one.safetensors"), &shapes);
    std::fs::copy(fixture("weights_zip.ckpt"), dir.path().join("two.bin")).unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    let write = |map: &str| {
        let text = format!(r#"{{"metadata": {{"total_size": 1}}, "weight_map": {{{map}}}}}"#);
        std::fs::write(&index, text).unwrap();
        WeightFile::open(&index)
    };

    let file = write(r#""a.weight": "one.safetensors", "f32.weight": "two.bin""#).unwrap();
    assert_eq!(file.read_f32("a.weight").unwrap().1, seeded_weight("a.weight", &[3, 2]));
    assert_eq!(file.read_f32("f32.weight").unwrap().1, seeded_weight("f32.weight", &[3, 4, 2]));
    assert_eq!(file.tensors().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a.weight", "f32.weight"]);

    let missing = write(r#""a.weight": "one.safetensors", "c": "three.safetensors""#).unwrap_err();
    assert!(matches!(&missing, WeightError::MissingShard { shard, .. } if shard == "three.safetensors"));
    let lacking = write(r#""c.weight": "one.safetensors""#).unwrap_err().to_string();
    assert!(lacking.contains("one.safetensors lacks c.weight"), "{lacking}");
    let outside = write(r#""a.weight": "../one.safetensors""#).unwrap_err().to_string();
    assert!(outside.contains("outside"), "{outside}");
}

/// A first stage as Lightning 1.4 saves it, with classes as keys beside its state dict.
#[test]
fn lightning_checkpoint() {
    let file = WeightFile::open(fixture("lightning_vae.ckpt")).unwrap();
    assert_eq!(file.info("encoder.conv_in.weight").unwrap().shape[1..], [3, 3, 3]);
    let floats = file.tensors().filter(|t| t.element.is_float());
    assert!(floats.filter(|t| !file.read_f32(&t.name).unwrap().0.is_empty()).count() > 50);
}

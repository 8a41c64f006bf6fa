//! Weight files that are not what they should be: an error that says so, never a panic.
#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device};
use ldm_nn::weights::{ElementType, Entry, Loader, TensorProblem, WeightError, WeightFile};
use ldm_nn::{Linear, LinearConfig};
use ldm_test_support::write_weights;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::{TempDir, tempdir};

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    fs::read(path).unwrap()
}

/// A good file of every kind.
fn good_files() -> Vec<(&'static str, Vec<u8>)> {
    let dir = tempdir().unwrap();
    let path = dir.path().join("good");
    let shapes = [("weight", vec![8, 8]), ("bias", vec![8])];
    write_weights(&path, &shapes.map(|(name, shape)| (name.to_owned(), shape)));
    vec![
        ("safetensors", fs::read(path).unwrap()),
        ("zip", fixture("weights_zip.ckpt")),
        ("deflated", fixture("weights_deflated.ckpt")),
        ("legacy", fixture("weights_legacy.ckpt")),
    ]
}

fn open(dir: &TempDir, bytes: &[u8]) -> Result<WeightFile, WeightError> {
    let path = dir.path().join("weights.bin");
    fs::write(&path, bytes).unwrap();
    WeightFile::open(path)
}

/// Every tensor's name and what reading it gives, as text.
fn read_all(file: &WeightFile) -> Vec<(String, Result<String, String>)> {
    let read = |name: &str, float: bool| match float {
        true => file.read_f32(name).map(|values| format!("{values:?}")),
        false => file.read_i64(name).map(|values| format!("{values:?}")),
    };
    file.tensors()
        .map(|t| (t.name.clone(), read(&t.name, t.element.is_float()).map_err(|e| e.to_string())))
        .collect()
}

#[test]
fn truncated_anywhere() {
    let dir = tempdir().unwrap();
    for (kind, bytes) in good_files() {
        assert!(open(&dir, &bytes).is_ok(), "{kind}");
        for sixteenth in 0..16 {
            let error = open(&dir, &bytes[..bytes.len() * sixteenth / 16]).expect_err(kind);
            assert!(error.to_string().contains("weights.bin: "), "{kind}: {error}");
            if sixteenth == 0 {
                assert!(matches!(error, WeightError::Empty { .. }));
            }
        }
        let last = open(&dir, &bytes[..bytes.len() - 1]).expect_err(kind).to_string();
        assert!(last.contains("truncated"), "{kind}: {last}");
    }
}

#[test]
fn more_than_the_header_says() {
    let (dir, mut bytes) = (tempdir().unwrap(), good_files().remove(0).1);
    bytes.extend([0; 4]);
    let error = open(&dir, &bytes).unwrap_err().to_string();
    assert!(error.contains("4 bytes follow the last tensor"), "{error}");
}

#[test]
fn something_else() {
    let dir = tempdir().unwrap();
    for (bytes, says) in [
        (&b"<!DOCTYPE html>\n<html><body>404</body></html>"[..], "an HTML page"),
        (b"\n  <html><body>404</body></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "a git-lfs pointer"),
        (b"{\"error\": \"not found\"}", "no index of a sharded model"),
        (b"GGUF\x03\0\0\0", "a GGUF file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x93NUMPY\x01\0", "a NumPy array"),
        (b"\0\x01\x02\x03", "no known weight format"),
        (b"PK\x03\x04", "truncated"),
    ] {
        let error = open(&dir, bytes).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let zip = dir.path().join("other.zip");
    let mut writer = zip::ZipWriter::new(fs::File::create(&zip).unwrap());
    writer.start_file("arr_0.npy", zip::write::SimpleFileOptions::default()).unwrap();
    writer.finish().unwrap();
    assert!(WeightFile::open(&zip).unwrap_err().to_string().contains("no data.pkl"));
    assert!(WeightFile::open(dir.path()).unwrap_err().to_string().contains("is a directory"));
    assert!(matches!(WeightFile::open(dir.path().join("none")), Err(WeightError::Io { .. })));
}

/// A file as PyTorch before 1.6 wrote it: one f32 tensor `w`, a view of a storage of 4 elements.
fn legacy_file(offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |values: &[u8]| {
        let items: Vec<u8> = values.iter().flat_map(|v| [b'K', *v]).collect();
        [b"(", &items[..], b"t"].concat()
    };
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    file.extend(b"\x80\x02M\xe9\x03.\x80\x02}.");
    file.extend(b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(");
    file.extend(b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ");
    file.extend([b'K', offset]);
    file.extend(tuple(shape));
    file.extend(tuple(strides));
    file.extend(b"\x89}tRs.");
    file.extend(b"\x80\x02]X\x01\0\0\x000a.");
    file.extend(4u64.to_le_bytes());
    file.extend([1f32, 2.0, 3.0, 4.0].into_iter().flat_map(f32::to_le_bytes));
    file
}

#[test]
fn views_stay_in_their_storage() {
    let dir = tempdir().unwrap();
    let read = |offset, shape: &[u8], strides: &[u8]| {
        let file = open(&dir, &legacy_file(offset, shape, strides))?;
        file.read_f32("w").map(|(_, values)| values)
    };
    assert_eq!(read(0, &[2, 2], &[2, 1]).unwrap(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(read(1, &[2], &[2]).unwrap(), [2.0, 4.0]);
    for (offset, shape, strides, says) in [
        (1, &[4][..], &[1][..], "w reaches beyond its storage of 4 elements"),
        (0, &[4], &[2], "w reaches beyond its storage of 4 elements"),
        (4, &[1], &[1], "w reaches beyond its storage of 4 elements"),
        (0, &[255; 8], &[0; 8], "elements made of 4"),
        (0, &[2, 2], &[1], "more or fewer strides than axes"),
        (0, &[1; 9], &[1; 9], "at most 8 axes"),
    ] {
        let error = read(offset, shape, strides).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// One wrong bit: no panic; and where there are checksums, an error or the right values.
    #[test]
    fn a_flipped_bit(kind in 0usize..4, place in 0f64..1.0, bit in 0u8..8) {
        let dir = tempdir().unwrap();
        let (name, mut bytes) = good_files().swap_remove(kind);
        let expected = read_all(&open(&dir, &bytes).unwrap());
        let at = (place * bytes.len() as f64) as usize;
        bytes[at] ^= 1 << bit;
        if let Ok(file) = open(&dir, &bytes) {
            let found = read_all(&file);
            if matches!(name, "zip" | "deflated") {
                prop_assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    prop_assert_eq!(&found.0, &expected.0);
                    prop_assert!(found.1.is_err() || found.1 == expected.1);
                }
            }
        }
    }

    /// Any bytes after any plausible start.
    #[test]
    fn noise(start in 0usize..5, noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let starts: [&[u8]; 5] = [
            b"", b"PK\x03\x04", b"{", b"\x40\0\0\0\0\0\0\0{",
            b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
        ];
        let dir = tempdir().unwrap();
        let bytes = [starts[start], &noise].concat();
        if let Ok(file) = open(&dir, &bytes) {
            read_all(&file);
        }
    }
}

/// A flipped bit in a tensor's own bytes, in an archive that has its checksum.
#[test]
fn a_flipped_bit_in_the_elements_is_named() {
    let dir = tempdir().unwrap();
    let mut bytes = fixture("weights_zip.ckpt");
    let value = ldm_test_support::seeded_weight("f32.weight", &[3, 4, 2])[5].to_le_bytes();
    let at = bytes.windows(4).position(|window| window == value).unwrap();
    bytes[at] ^= 1;
    let file = open(&dir, &bytes).unwrap();
    let error = file.read_f32("f32.weight").unwrap_err();
    assert!(matches!(error, WeightError::Damaged { .. }));
    assert!(error.to_string().contains("f32.weight: its bytes have the CRC-32"), "{error}");
    assert!(file.read_f32("f64.weight").is_ok());
}

#[derive(Module, Debug)]
struct Two {
    a: Linear,
    b: Linear,
}

fn two() -> Two {
    let device = Device::default();
    Two { a: LinearConfig::new(2, 3).init(&device), b: LinearConfig::new(3, 2).init(&device) }
}

fn same(path: &str) -> Option<Entry> {
    Some(Entry::same(path))
}

fn problems(path: &Path) -> Vec<TensorProblem> {
    match Loader::new(&same).load(two(), &WeightFile::open(path).unwrap()) {
        Err(WeightError::Tensors { problems, .. }) => problems,
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_and_mis_shaped_tensors_are_listed_at_once() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("two.safetensors");
    let shapes = [("a.bias", vec![3]), ("b.weight", vec![3, 2]), ("b.bias", vec![1])];
    write_weights(&path, &shapes.map(|(name, shape)| (name.to_owned(), shape)));
    let shape = |key: &str, expected: &[usize], found: &[usize]| TensorProblem::Shape {
        key: key.into(),
        expected: expected.into(),
        found: found.into(),
    };
    let expected = [
        TensorProblem::Missing { key: "a.weight".into(), shape: Some(vec![3, 2]) },
        shape("b.weight", &[2, 3], &[3, 2]),
        shape("b.bias", &[2], &[1]),
    ];
    assert_eq!(problems(&path), expected);
    let error = Loader::new(&same).load(two(), &WeightFile::open(&path).unwrap()).unwrap_err().to_string();
    for text in [
        "two.safetensors: 3 tensors",
        "a.weight [3, 2] is missing",
        "has shape [3, 2], the model needs [2, 3]",
    ] {
        assert!(error.contains(text), "{error}");
    }
}

/// Writes a file for [`Two`] with these values at the start of `a.weight` and `b.bias`.
fn write_two(path: &Path, dtype: Dtype, first: &[u8]) {
    let size = dtype.bitsize() / 8;
    let shapes =
        [("a.weight", vec![3, 2]), ("a.bias", vec![3]), ("b.weight", vec![2, 3]), ("b.bias", vec![2])];
    let data = shapes.map(|(name, shape)| {
        let mut bytes = vec![0; shape.iter().product::<usize>() * size];
        if name == "a.weight" || name == "b.bias" {
            bytes[..first.len()].copy_from_slice(first);
        }
        (name, shape, bytes)
    });
    let views = data
        .iter()
        .map(|(name, shape, bytes)| (*name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

#[test]
fn nan_and_infinity_are_named() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("two.safetensors");
    let found = |key: &str, count| TensorProblem::NotFinite { key: key.into(), count };
    for (dtype, values) in [
        (Dtype::F32, [f32::NAN.to_le_bytes(), f32::NEG_INFINITY.to_le_bytes()].concat()),
        (Dtype::F64, [f64::NAN.to_le_bytes(), f64::INFINITY.to_le_bytes()].concat()),
        (Dtype::F16, vec![0x00, 0x7c, 0x01, 0xfe]),
        (Dtype::BF16, vec![0x80, 0x7f, 0xc0, 0xff]),
    ] {
        write_two(&path, dtype, &values);
        assert_eq!(problems(&path), [found("a.weight", 2), found("b.bias", 2)], "{dtype:?}");
        let error = WeightFile::open(&path).unwrap().read_f32("b.bias").unwrap_err().to_string();
        assert!(error.contains("b.bias holds 2 values that are NaN or infinite"), "{error}");
    }
}

#[test]
fn types_that_do_not_fit() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("two.safetensors");
    write_two(&path, Dtype::F64, &1e39f64.to_le_bytes());
    assert_eq!(problems(&path)[0], TensorProblem::Overflow { key: "a.weight".into(), dtype: DType::F32 });

    write_two(&path, Dtype::I32, &[]);
    let found = problems(&path);
    assert_eq!(found.len(), 4);
    assert_eq!(found[0], TensorProblem::Type { key: "a.weight".into(), found: ElementType::I32 });
    write_two(&path, Dtype::F8_E4M3, &[]);
    let other = ElementType::Other("F8_E4M3".into());
    assert_eq!(problems(&path)[0], TensorProblem::Type { key: "a.weight".into(), found: other });

    let file = WeightFile::open(&path).unwrap();
    let device = Device::default();
    for dtype in [DType::I32, DType::F64, DType::F16, DType::BF16] {
        if dtype == DType::I32 || !device.supports_dtype(dtype) {
            let error = Loader::new(&same).dtype(dtype).load(two(), &file).unwrap_err();
            assert!(matches!(error, WeightError::Device { dtype: d, .. } if d == dtype), "{error}");
        }
    }
}

#[test]
fn a_parameter_that_code_would_make_is_refused() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/weights_code.bin");
    let map = |path: &str| Some(Entry::same(if path == "a.weight" { "good.weight" } else { "bad.weight" }));
    let error = Loader::new(&map).load(two(), &WeightFile::open(path).unwrap()).unwrap_err().to_string();
    assert!(error.contains("bad.weight is made by calling posix.system"), "{error}");
}

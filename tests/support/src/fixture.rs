use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use safetensors::{SafeTensors, tensor::Dtype};
use serde_json::Value;

/// A file of `tests/fixtures`, read whole.
pub struct Fixture {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Fixture {
    /// Opens `tests/fixtures/{name}.safetensors`; panics with the path where it can't be read.
    pub fn open(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { path, bytes }
    }

    /// The float tensor `key`, as f32.
    pub fn tensor<const D: usize>(&self, key: &str, device: &Device) -> Tensor<D> {
        let shape = self.view(key).1;
        Tensor::from_data(TensorData::new(self.floats(key), shape), (device, DType::F32))
    }

    /// The float tensor `key` as f32, all its axes made one.
    pub fn flat(&self, key: &str, device: &Device) -> Tensor<1> {
        let n = self.view(key).1.iter().product::<usize>();
        let values: Vec<f32> = self.floats(key);
        Tensor::from_data(TensorData::new(values, [n]), (device, DType::F32))
    }

    /// The tensors' names.
    pub fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.bytes).expect("a valid fixture");
        file.names().into_iter().map(String::from).collect()
    }

    /// The i64 tensor `key`.
    pub fn int<const D: usize>(&self, key: &str, device: &Device) -> Tensor<D, Int> {
        let shape = self.view(key).1;
        Tensor::from_data(TensorData::new(self.ints(key), shape), device)
    }

    /// The i64 tensor `key` as a flat list.
    pub fn ints(&self, key: &str) -> Vec<i64> {
        let (dtype, _, bytes) = self.view(key);
        assert_eq!(dtype, Dtype::I64, "{}: {key}", self.path.display());
        let value = |b: &[u8]| b.iter().rev().fold(0i64, |v, b| (v << 8) | i64::from(*b));
        bytes.chunks_exact(8).map(value).collect()
    }

    /// The u8 tensor `key` as its shape and a flat list.
    pub fn bytes(&self, key: &str) -> (Vec<usize>, Vec<u8>) {
        let (dtype, shape, bytes) = self.view(key);
        assert_eq!(dtype, Dtype::U8, "{}: {key}", self.path.display());
        (shape, bytes.to_vec())
    }

    /// The JSON value that the file's metadata holds under `key`.
    pub fn json(&self, key: &str) -> Value {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).expect("a valid fixture");
        let text = metadata.metadata().as_ref().and_then(|m| m.get(key).cloned());
        let text = text.unwrap_or_else(|| panic!("{}: no metadata {key}", self.path.display()));
        serde_json::from_str(&text).expect("metadata is JSON")
    }

    /// The reference model's parameter names and shapes, from the metadata `key`
    /// (a JSON object: name to shape).
    pub fn shapes(&self, key: &str) -> Vec<(String, Vec<usize>)> {
        serde_json::from_value::<std::collections::BTreeMap<_, _>>(self.json(key))
            .expect("an object of shapes")
            .into_iter()
            .collect()
    }

    fn floats(&self, key: &str) -> Vec<f32> {
        let (dtype, _, bytes) = self.view(key);
        assert_eq!(dtype, Dtype::F32, "{}: {key}", self.path.display());
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    fn view(&self, key: &str) -> (Dtype, Vec<usize>, &[u8]) {
        let file = SafeTensors::deserialize(&self.bytes).expect("a valid fixture");
        let view = file.tensor(key).unwrap_or_else(|e| panic!("{}: {key}: {e}", self.path.display()));
        (view.dtype(), view.shape().to_vec(), view.data())
    }
}

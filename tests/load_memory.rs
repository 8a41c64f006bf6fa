//! Memory while a U-Net is loaded peaks below 1.3 times its weights. Alone in its file: the peak is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use ldm::nn::weights::{KeyMap, ParameterPath};
use ldm::unet::{PerLevel, UNetConfig};
use ldm::{LoadOptions, load_unet_from_checkpoint};
use serde_json::json;

/// About 118 MB, nearly all of it in 3x3 convolutions.
fn config() -> UNetConfig {
    let mut config = UNetConfig::new(4, 224, 4);
    config.channel_mult = vec![1.0, 2.0];
    config.num_res_blocks = PerLevel::All(1);
    config.num_head_channels = Some(PerLevel::All(32));
    config.use_spatial_transformer = true;
    config.context_dim = Some(32);
    config
}

/// The names and shapes that a file has for a module, none of whose parameters is made.
struct Shapes<'a> {
    keys: &'a dyn KeyMap,
    path: ParameterPath,
    found: BTreeMap<String, Vec<usize>>,
}

impl ModuleVisitor for Shapes<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let entry = self.keys.entry(&self.path.joined()).unwrap();
        let shape = entry.layout.file_shape(param.lazy_shape().as_slice()).unwrap();
        self.found.insert(entry.key, shape);
    }
}

/// Writes a checkpoint of one value, a little at a time; gives the bytes of its tensors.
fn write(path: &Path, shapes: &BTreeMap<String, Vec<usize>>) -> u64 {
    let mut at = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in shapes {
        let end = at + 4 * shape.iter().product::<usize>() as u64;
        let tensor = json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]});
        header.insert(format!("model.diffusion_model.{name}"), tensor);
        at = end;
    }
    let header = json!(header).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let values: Vec<u8> = 0.01f32.to_le_bytes().repeat(1 << 14);
    let mut left = at as usize;
    while left > 0 {
        let n = left.min(values.len());
        file.write_all(&values[..n]).unwrap();
        left -= n;
    }
    at
}

/// A figure of /proc/self/status, in bytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn loading_a_unet_needs_its_weights_and_one_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let [file, yaml] = ["unet.safetensors", "unet.yaml"].map(|name| folder.path().join(name));
    // On the CPU backend, whose tensors are the process's own memory.
    let device = Device::flex();
    let config = config();
    let keys = config.compvis_keys().unwrap();
    let mut shapes = Shapes { keys: &keys, path: ParameterPath::default(), found: BTreeMap::new() };
    config.init(&device).unwrap().visit(&mut shapes);
    let total = write(&file, &shapes.found);
    let unet = json!({"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": config});
    let model =
        json!({"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": {"unet_config": unet}});
    fs::write(&yaml, json!({ "model": model }).to_string()).unwrap();

    let before = status("VmRSS");
    let unet = load_unet_from_checkpoint(&file, &LoadOptions::new(device).config(&yaml)).unwrap();
    let grown = status("VmHWM") - before;
    println!("{total} bytes of weights, memory grew by {grown}: {:.3} times", grown as f64 / total as f64);
    assert!(total > 100 << 20, "{total} bytes");
    assert!(grown as f64 > 0.9 * total as f64, "the measurement must see the weights");
    assert!((grown as f64) < 1.3 * total as f64);
    assert_eq!(unet.parameter_count() as u64 * 4, total);
    let last = unet.conv_out.weight.val().into_data().try_into_vec::<f32>().unwrap();
    assert!(last.iter().all(|v| *v == 0.01));
}

//! A U-Net's weights in a file, and how far the process grows while it is loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use ldm::nn::weights::{KeyMap, ParameterPath};
use ldm::unet::{PerLevel, UNetConfig};
use ldm::{LoadOptions, load_unet_from_checkpoint};
use serde_json::json;

/// What every element of the file is.
pub const VALUE: f32 = 0.01;

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
        self.found.insert(format!("model.diffusion_model.{}", entry.key), shape);
    }
}

/// A figure of /proc/self/status, in bytes.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Loads a U-Net from the checkpoint that `write` writes, a little at a time, with these tensors, all [`VALUE`]; panics
/// where memory grows by 1.3 times its weights.
pub fn measure(name: &str, write: impl FnOnce(&Path, &BTreeMap<String, Vec<usize>>)) {
    let folder = tempfile::tempdir().unwrap();
    let [file, yaml] = [name, "unet.yaml"].map(|name| folder.path().join(name));
    // On the CPU backend, whose tensors are the process's own memory.
    let device = Device::flex();
    let config = config();
    let keys = config.compvis_keys().unwrap();
    let mut shapes = Shapes { keys: &keys, path: ParameterPath::default(), found: BTreeMap::new() };
    config.init(&device).unwrap().visit(&mut shapes);
    let total: usize = shapes.found.values().map(|shape| 4 * shape.iter().product::<usize>()).sum();
    write(&file, &shapes.found);
    let unet = json!({"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": config});
    let model =
        json!({"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": {"unet_config": unet}});
    fs::write(&yaml, json!({ "model": model }).to_string()).unwrap();

    let before = status("VmRSS");
    let unet = load_unet_from_checkpoint(&file, &LoadOptions::new(device).config(&yaml)).unwrap();
    let grown = (status("VmHWM") - before) as f64;
    println!("{total} bytes of weights, memory grew by {grown}: {:.3} times", grown / total as f64);
    assert!(total > 100 << 20, "{total} bytes");
    assert!(grown > 0.9 * total as f64, "the measurement must see the weights");
    assert!(grown < 1.3 * total as f64);
    assert_eq!(unet.parameter_count() * 4, total);
    let last = unet.conv_out.weight.val().into_data().try_into_vec::<f32>().unwrap();
    assert!(last.iter().all(|v| *v == VALUE));
}

//! What the measurements of memory share: a file's weights, and how far the process grows while they are loaded. The
//! peak is the process's, so each measurement is alone in its test program.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use ldm_nn::weights::{Entry, Loader, WeightFile};
use ldm_nn::{Linear, LinearConfig};

pub const LAYERS: usize = 12;
pub const WIDTH: usize = 2048;
/// Of a layer.
pub const BYTES: usize = WIDTH * WIDTH * 4;

#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Linear>,
}

pub fn name(layer: usize) -> String {
    format!("layers.{layer}.weight")
}

/// One row of every layer's weight, as bytes.
pub fn row() -> Vec<u8> {
    (0..WIDTH).flat_map(|i| (i as f32 / WIDTH as f32).to_le_bytes()).collect()
}

/// A figure of /proc/self/status, in bytes.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Loads all layers from a file; panics where memory grows by 1.3 times their size.
pub fn measure(path: &Path) {
    // On the CPU backend, whose tensors are the process's own memory.
    let device = Device::flex();
    let layer = || LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(&device);
    let stack = Stack { layers: (0..LAYERS).map(|_| layer()).collect() };
    let before = status("VmRSS");
    let file = WeightFile::open(path).unwrap();
    let (stack, _) = Loader::new(&|path: &str| Some(Entry::same(path))).load(stack, &file).unwrap();
    let grown = status("VmHWM") - before;

    let total = (LAYERS * BYTES) as u64;
    println!("{total} bytes of weights, memory grew by {grown}: {:.3} times", grown as f64 / total as f64);
    assert!(grown as f64 > 0.9 * total as f64, "the measurement must see the weights");
    assert!((grown as f64) < 1.3 * total as f64);
    let last = stack.layers[LAYERS - 1].weight.val().into_data().try_into_vec::<f32>().unwrap();
    assert_eq!(last[WIDTH * WIDTH - 1], (WIDTH - 1) as f32 / WIDTH as f32);
}

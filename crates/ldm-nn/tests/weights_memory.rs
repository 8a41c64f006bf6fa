//! Memory while loading peaks below 1.3 times the weights. Alone in its file: the peak is the process's.
#![allow(clippy::unwrap_used)] // also in the helpers of tests
#![cfg(target_os = "linux")]

use std::io::Write;

use burn::module::Module;
use burn::tensor::Device;
use ldm_nn::weights::{Entry, Loader, WeightFile};
use ldm_nn::{Linear, LinearConfig};

const LAYERS: usize = 12;
const WIDTH: usize = 2048;

#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Linear>,
}

/// A figure of /proc/self/status, in bytes.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn loading_needs_the_weights_and_one_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stack.safetensors");
    let bytes = (WIDTH * WIDTH * 4) as u64;
    let mut file = std::fs::File::create(&path).unwrap();
    let tensors: Vec<String> = (0..LAYERS as u64)
        .map(|i| {
            let (from, to) = (i * bytes, (i + 1) * bytes);
            format!(r#""layers.{i}.weight":{{"dtype":"F32","shape":[{WIDTH},{WIDTH}],"data_offsets":[{from},{to}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", tensors.join(","));
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let row: Vec<u8> = (0..WIDTH).flat_map(|i| (i as f32 / WIDTH as f32).to_le_bytes()).collect();
    (0..LAYERS * WIDTH).for_each(|_| file.write_all(&row).unwrap());
    drop(file);

    // On the CPU backend, whose tensors are the process's own memory.
    let device = Device::flex();
    let layer = || LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(&device);
    let stack = Stack { layers: (0..LAYERS).map(|_| layer()).collect() };
    let before = status("VmRSS");
    let file = WeightFile::open(&path).unwrap();
    let (stack, _) = Loader::new(&|path: &str| Some(Entry::same(path))).load(stack, &file).unwrap();
    let grown = status("VmHWM") - before;

    let total = LAYERS as u64 * bytes;
    println!("{total} bytes of weights, memory grew by {grown}: {:.3} times", grown as f64 / total as f64);
    assert!(grown as f64 > 0.9 * total as f64, "the measurement must see the weights");
    assert!((grown as f64) < 1.3 * total as f64);
    let last = stack.layers[LAYERS - 1].weight.val().into_data().try_into_vec::<f32>().unwrap();
    assert_eq!(last[WIDTH * WIDTH - 1], (WIDTH - 1) as f32 / WIDTH as f32);
}

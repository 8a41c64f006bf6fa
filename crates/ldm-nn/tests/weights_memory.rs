//! Memory while loading peaks below 1.3 times the weights. Alone in its file: the peak is the process's.
#![allow(clippy::unwrap_used)] // also in the helpers of tests
#![cfg(target_os = "linux")]

mod memory;

use std::io::Write;

use memory::{BYTES, LAYERS, WIDTH, measure, name, row};

#[test]
fn loading_needs_the_weights_and_one_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stack.safetensors");
    let mut file = std::fs::File::create(&path).unwrap();
    let tensors: Vec<String> = (0..LAYERS)
        .map(|i| {
            let (name, from, to) = (name(i), i * BYTES, (i + 1) * BYTES);
            format!(r#""{name}":{{"dtype":"F32","shape":[{WIDTH},{WIDTH}],"data_offsets":[{from},{to}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", tensors.join(","));
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let row = row();
    (0..LAYERS * WIDTH).for_each(|_| file.write_all(&row).unwrap());
    drop(file);
    measure(&path);
}

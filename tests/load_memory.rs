//! Memory while a U-Net is loaded peaks below 1.3 times its weights. Alone in its file: the peak is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]
#![cfg(target_os = "linux")]

#[path = "common/memory.rs"]
mod memory;

use std::fs::File;
use std::io::Write;

use memory::{VALUE, measure};
use serde_json::json;

#[test]
fn loading_a_unet_needs_its_weights_and_one_tensor() {
    measure("unet.safetensors", |path, shapes| {
        let mut at = 0;
        let mut header = serde_json::Map::new();
        for (name, shape) in shapes {
            let end = at + 4 * shape.iter().product::<usize>();
            header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]}));
            at = end;
        }
        let header = json!(header).to_string();
        let mut file = File::create(path).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        let values: Vec<u8> = VALUE.to_le_bytes().repeat(1 << 14);
        let mut left = at;
        while left > 0 {
            let n = left.min(values.len());
            file.write_all(&values[..n]).unwrap();
            left -= n;
        }
    });
}

//! A compressed entry needs no more memory than safetensors. Alone in its file: the peak is the process's.
#![allow(clippy::unwrap_used)] // also in the helpers of tests
#![cfg(target_os = "linux")]

mod memory;

use ldm_test_support::{pickled_state_dict, write_torch_deflated};
use memory::{BYTES, LAYERS, WIDTH, measure, name, row};

#[test]
fn loading_what_is_compressed_needs_the_weights_and_one_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stack.ckpt");
    let shapes: Vec<_> = (0..LAYERS).map(|i| (name(i), vec![WIDTH, WIDTH])).collect();
    let row = row();
    write_torch_deflated(&path, &pickled_state_dict(&shapes), shapes.iter().map(|_| row.repeat(WIDTH)));
    let written = std::fs::metadata(&path).unwrap().len();
    assert!(written < (LAYERS * BYTES / 2) as u64, "{written} bytes are not compressed");
    measure(&path);
}

//! A `.ckpt` needs no more memory than safetensors. Alone in its file: the peak is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]
#![cfg(target_os = "linux")]

#[path = "common/memory.rs"]
mod memory;

use ldm_test_support::{pickled_state_dict, write_torch};
use memory::{VALUE, measure};

#[test]
fn loading_a_pickled_unet_needs_its_weights_and_one_tensor() {
    measure("unet.ckpt", |path, shapes| {
        let shapes: Vec<_> = shapes.clone().into_iter().collect();
        let storages = shapes.iter().map(|(_, shape)| VALUE.to_le_bytes().repeat(shape.iter().product()));
        write_torch(path, &pickled_state_dict(&shapes), storages);
    });
}

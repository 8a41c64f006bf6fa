//! What `use_checkpoint` saves, counted at the allocator: flex keeps its tensors on the heap.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod tiny;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use ldm_train::config::ModelConfig;
use ldm_train::run::{At, Batches, DiffusionTraining, Latents, LoadedBatches, Stage};
use serde_json::json;

/// The system's allocator, with the bytes that are live and the most that there were.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's contract is this one's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes beyond those of model, moments and data that a training step needs at its peak.
fn peak_of_a_step(use_checkpoint: bool) -> usize {
    let root = tempfile::tempdir().unwrap();
    let unet = |key: &str| format!("/model/params/unet_config/params/{key}");
    let changes = [
        (unet("model_channels"), json!(32)),
        (unet("channel_mult"), json!([1, 2, 2])),
        (unet("attention_resolutions"), json!([4])),
        (unet("dropout"), json!(0.0)),
        (unet("use_checkpoint"), json!(use_checkpoint)),
        ("/data/loader".into(), json!({ "batch_size": 4, "transform": { "size": 64 } })),
    ];
    let changes: Vec<_> = changes.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let config = tiny::config(root.path(), "diffusion", &changes);
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    let device = Device::default();
    let first_stage = model.first_stage.init(&device).unwrap();
    let loader = config.data.open().unwrap();
    let latents = Latents::open(&root.path().join("latents"), &loader, &first_stage, &device).unwrap();
    let mut batches = LoadedBatches::new(loader, latents.cache());
    let tau = model.tau(&device).unwrap();
    let mut training = DiffusionTraining::new(model, &config, first_stage, latents, tau, &device).unwrap();
    let batch = batches.next_batch().unwrap();
    let mut step = |step| {
        let at = At { step, micro: step, rate: 1e-4 };
        training.step(&at, std::slice::from_ref(&batch)).unwrap();
    };
    // What is made once is made before counting.
    step(0);
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    step(1);
    PEAK.load(Ordering::Relaxed) - before
}

/// On flex alone: a GPU's memory is not the heap.
mod on_flex {
    use super::peak_of_a_step;

    #[test]
    fn blocks_computed_anew_need_less_memory() {
        let (kept, anew) = (peak_of_a_step(false), peak_of_a_step(true));
        println!("peak of a step: {kept} bytes with activations kept, {anew} with blocks computed anew");
        assert!(10 * anew < 8 * kept, "{anew} bytes, {kept} with all activations kept");
    }
}

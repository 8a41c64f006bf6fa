//! How fast the emoji are decoded, and how much of a training step the device waits for them.
//!
//! `cargo bench -p ldm --bench data`

#![allow(clippy::expect_used, reason = "a benchmark that can't start says why")]

use std::path::Path;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ldm_train::data::{DataConfig, Loader, LoaderConfig, Transform};
use ldm_vae::AutoencoderKlConfig;

const BATCH: u64 = 32;
/// Training steps that the waiting is measured over.
const STEPS: u64 = 5;

fn loader(workers: usize, batch_size: u64) -> Loader {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/emoji.tar");
    let source = DataConfig::new(path).split("train").open().expect("the emoji are in assets/");
    let transform = Transform { flip: true, ..Transform::new(64) };
    let config = LoaderConfig { batch_size: batch_size as usize, workers, transform, ..Default::default() };
    Loader::new(source, config).expect("the config is right")
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("emoji 64x64");
    group.throughput(Throughput::Elements(BATCH));
    for workers in [1, 2] {
        let mut batches = loader(workers, BATCH).batches_from(0).expect("threads start");
        group.bench_function(BenchmarkId::new("threads", workers), |bencher| {
            bencher.iter(|| batches.next().map(|batch| batch.expect("a batch").len()));
        });
    }
    group.finish();
}

/// Not a benchmark of criterion's: a share, printed once.
fn waiting(_: &mut Criterion) {
    let config = serde_json::json!({
        "embed_dim": 4,
        "ddconfig": {
            "double_z": true, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
            "ch_mult": [1, 2, 3], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
        },
    });
    let config: AutoencoderKlConfig = serde_json::from_value(config).expect("a config");
    let device = Device::default().autodiff();
    let model = config.init(&device).expect("a model");
    for workers in [1, 2] {
        let mut batches = loader(workers, 16).batches_from(0).expect("threads start");
        // The first batch is waited for by any run, once.
        batches.next();
        let (started, before) = (Instant::now(), batches.waited());
        for batch in batches.by_ref().take(STEPS as usize) {
            let x = batch.expect("a batch").to_tensor(&device);
            let z = model.encode(x.clone()).expect("latents").mode();
            let loss = (model.decode(z).expect("pictures") - x).abs().mean();
            std::hint::black_box(loss.backward());
        }
        let (whole, waited): (Duration, _) = (started.elapsed(), batches.waited() - before);
        println!(
            "a step of the first stage, 16 pictures, {workers} decoding threads: {:.3} s, of which {:.3} % waiting for data",
            whole.as_secs_f64() / STEPS as f64,
            100.0 * waited.as_secs_f64() / whole.as_secs_f64(),
        );
    }
}

criterion_group!(benches, decoding, waiting);
criterion_main!(benches);

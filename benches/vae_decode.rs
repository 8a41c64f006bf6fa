//! Stable Diffusion 1.5's decoder and vq-f8's at 256 pixels, batch 1, f32, on every device of the build.

#[allow(dead_code)]
mod models;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};

fn bench(criterion: &mut Criterion) {
    for workload in ["vae_decode", "vq_decode"] {
        let mut group = criterion.benchmark_group(workload);
        group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(30));
        for (name, device) in models::devices() {
            let workload = models::Workload::new(workload, &device);
            group.bench_function(name, |bencher| bencher.iter(|| workload.run()));
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);

//! Stable Diffusion 1.5's decoder at 256 pixels, batch 1, f32, on every device of the build.

#[allow(dead_code)]
mod models;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("vae_decode");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_secs(30));
    for (name, device) in models::devices() {
        let workload = models::Workload::new("vae_decode", &device);
        group.bench_function(name, |bencher| bencher.iter(|| workload.run()));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

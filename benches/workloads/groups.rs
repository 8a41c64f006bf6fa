//! Criterion groups of work that takes long.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode};

use super::{Pass, Place, places};

/// A group of ten samples, each of as few runs as may be.
pub fn slow<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group
}

/// One benchmark on every place; what a filter leaves out is not made.
pub fn everywhere(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, make: impl Fn(&Place) -> Pass) {
    for (backend, place) in places() {
        let mut pass: Option<Pass> = None;
        group.bench_function(BenchmarkId::new(backend, name), |bencher| {
            bencher.iter(pass.get_or_insert_with(|| make(place)));
        });
    }
}

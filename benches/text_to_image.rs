//! Prompt to picture with the shipped model (`random`: where assets/ has none, one of its shape), on every backend of the
//! build.

mod workloads;

use criterion::{Criterion, criterion_group, criterion_main};
use workloads::{EMOJI_STEPS, emoji_picture, groups, shipped};

fn bench(criterion: &mut Criterion) {
    let mut group = groups::slow(criterion, "text_to_image");
    let model = if shipped().is_some() { "shipped" } else { "random" };
    groups::everywhere(&mut group, &format!("{model}, {EMOJI_STEPS} steps"), emoji_picture);
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

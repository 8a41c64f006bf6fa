//! Prompt to picture with a random model of the emoji's shape, on every backend of the build.

mod workloads;

use criterion::{Criterion, criterion_group, criterion_main};
use workloads::{EMOJI_STEPS, emoji_picture, groups};

fn bench(criterion: &mut Criterion) {
    let mut group = groups::slow(criterion, "text_to_image");
    groups::everywhere(&mut group, &format!("emoji, {EMOJI_STEPS} steps"), emoji_picture);
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

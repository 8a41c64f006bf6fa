//! Training steps on every backend of the build: loss and gradients of a small U-Net; whole steps of the emoji's
//! U-Net, at the batch of its config.

mod workloads;

use criterion::{Criterion, criterion_group, criterion_main};
use workloads::{Size, emoji_unet, groups, train, train_small};

fn bench(criterion: &mut Criterion) {
    let mut group = groups::slow(criterion, "training_step");
    groups::everywhere(&mut group, "small", train_small);
    let size = Size { side: 16, batch: 32, steps: 1, replay: false };
    groups::everywhere(&mut group, "emoji", |place| train(&emoji_unet(), 24, size, place));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

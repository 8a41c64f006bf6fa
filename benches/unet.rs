//! Stable Diffusion 1.5's U-Net, one step at batch 1, on every backend of the build:
//! `cargo bench --bench unet -- flex/256px` for one of them.

mod workloads;

use criterion::{Criterion, criterion_group, criterion_main};
use workloads::{Size, groups, unet};

fn bench(criterion: &mut Criterion) {
    let mut group = groups::slow(criterion, "unet");
    for pixels in [128, 256, 512] {
        let size = Size { side: pixels / 8, batch: 1, steps: 1, replay: false };
        groups::everywhere(&mut group, &format!("{pixels}px"), |place| unet(size, place));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

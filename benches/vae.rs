//! Stable Diffusion's encoder and decoder and vq-f8's decoder, batch 1, on every backend of the build:
//! `cargo bench --bench vae -- vae_decode/flex/256px` for one of them.

mod workloads;

use criterion::{Criterion, criterion_group, criterion_main};
use workloads::{Make, Size, groups, vae_decode, vae_encode, vq_decode};

fn bench(criterion: &mut Criterion) {
    let all: [(&str, &[usize], Make); 3] = [
        ("vae_encode", &[128, 256, 512], vae_encode),
        ("vae_decode", &[128, 256, 512], vae_decode),
        ("vq_decode", &[256], vq_decode),
    ];
    for (name, sizes, make) in all {
        let mut group = groups::slow(criterion, name);
        for pixels in sizes {
            let size = Size { side: pixels / 8, batch: 1, steps: 1, replay: false };
            groups::everywhere(&mut group, &format!("{pixels}px"), |place| make(size, place));
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);

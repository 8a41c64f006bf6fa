//! The layers where the networks spend their time, at the shapes of Stable Diffusion 1.5 for 256 pixels, f32, on
//! every device of the build.

#[allow(dead_code)]
mod models;

use burn::tensor::Device;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ldm_nn::{AttentionOptions, Conv2dConfig, GroupNormConfig, LinearConfig, attention, geglu};
use models::{devices, finish, values};

/// Channels and side of the U-Net's levels, then of the decoder's.
const MAPS: [[usize; 2]; 8] =
    [[320, 32], [640, 16], [1280, 8], [1280, 4], [512, 32], [512, 64], [256, 128], [128, 256]];
/// Heads, queries, keys, width of a head: the U-Net's self- and cross-attention, the decoder's middle.
const ATTENTION: [[usize; 4]; 5] =
    [[8, 1024, 1024, 40], [8, 256, 256, 80], [8, 64, 64, 160], [8, 1024, 77, 40], [1, 1024, 1024, 512]];
/// Tokens, inputs, outputs.
const LINEAR: [[usize; 3]; 5] =
    [[1024, 320, 320], [1024, 320, 2560], [1024, 1280, 320], [256, 640, 5120], [64, 1280, 10240]];

type Pass = Box<dyn Fn() -> f32>;

fn bench(criterion: &mut Criterion) {
    type Make<const N: usize> = fn([usize; N], &Device) -> Pass;
    group(criterion, "group_norm_silu", &MAPS, group_norm_silu as Make<2>);
    group(criterion, "conv3x3", &MAPS, conv3x3 as Make<2>);
    group(criterion, "attention", &ATTENTION, attend as Make<4>);
    group(criterion, "linear", &LINEAR, linear as Make<3>);
    group(criterion, "geglu", &[[1024, 1280], [256, 2560]], gated as Make<2>);
}

fn group<const N: usize>(
    criterion: &mut Criterion,
    name: &str,
    shapes: &[[usize; N]],
    make: fn([usize; N], &Device) -> Pass,
) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    for (device_name, device) in devices() {
        for shape in shapes {
            let pass = make(*shape, &device);
            let shape = shape.map(|n| n.to_string()).join("x");
            group.bench_function(BenchmarkId::new(device_name, shape), |bencher| bencher.iter(&pass));
        }
    }
    group.finish();
}

fn group_norm_silu([c, side]: [usize; 2], device: &Device) -> Pass {
    let (norm, x) = (GroupNormConfig::new(32, c, 1e-5).init(device), values([1, c, side, side], 1.0, device));
    Box::new(move || finish(norm.forward_silu(x.clone())))
}

fn conv3x3([c, side]: [usize; 2], device: &Device) -> Pass {
    let (conv, x) = (Conv2dConfig::new([c, c], 3).init(device), values([1, c, side, side], 1.0, device));
    Box::new(move || finish(conv.forward(x.clone())))
}

fn attend([heads, n, m, d]: [usize; 4], device: &Device) -> Pass {
    let q = values([1, heads, n, d], 1.0, device);
    let [k, v] = [values([1, heads, m, d], 1.0, device), values([1, heads, m, d], 0.5, device)];
    Box::new(move || finish(attention(q.clone(), k.clone(), v.clone(), AttentionOptions::default())))
}

fn linear([n, d_input, d_output]: [usize; 3], device: &Device) -> Pass {
    let (layer, x) =
        (LinearConfig::new(d_input, d_output).init(device), values([1, 1, n, d_input], 1.0, device));
    Box::new(move || finish(layer.forward(x.clone())))
}

fn gated([n, c]: [usize; 2], device: &Device) -> Pass {
    let x = values([1, 1, n, 2 * c], 2.0, device);
    Box::new(move || finish(geglu(x.clone())))
}

criterion_group!(benches, bench);
criterion_main!(benches);

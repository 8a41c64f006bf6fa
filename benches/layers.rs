//! The layers where the networks spend their time, at the shapes of Stable Diffusion 1.5 for 256 and 512 pixels, on every
//! backend of the build: `cargo bench --bench layers -- conv3x3/flex/320x32` for one of them.

mod workloads;

use burn::module::Module;
use criterion::{Criterion, criterion_group, criterion_main};
use ldm_nn::{
    AttentionOptions, Conv2dConfig, GroupNormConfig, LayerNormConfig, LinearConfig, attention, geglu,
};
use workloads::{Cheap, Pass, Place, finish, groups, values};

/// Channels and side: the U-Net's levels, then the decoder's.
const MAPS: [[usize; 2]; 10] = [
    [320, 64],
    [320, 32],
    [640, 16],
    [1280, 8],
    [1280, 4],
    [512, 32],
    [512, 64],
    [256, 128],
    [128, 256],
    [128, 512],
];
/// Heads, queries, keys, width of a head: the U-Net's self- and cross-attention, the decoder's middle.
const ATTENTION: [[usize; 4]; 7] = [
    [8, 4096, 4096, 40],
    [8, 1024, 1024, 40],
    [8, 256, 256, 80],
    [8, 64, 64, 160],
    [8, 1024, 77, 40],
    [1, 1024, 1024, 512],
    [1, 4096, 4096, 512],
];
/// Tokens, inputs, outputs.
const LINEAR: [[usize; 3]; 5] =
    [[1024, 320, 320], [1024, 320, 2560], [1024, 1280, 320], [256, 640, 5120], [64, 1280, 10240]];

fn bench(criterion: &mut Criterion) {
    type Make<const N: usize> = fn([usize; N], &Place) -> Pass;
    group(criterion, "group_norm_silu", &MAPS, group_norm_silu as Make<2>);
    group(criterion, "conv3x3", &MAPS, conv3x3 as Make<2>);
    group(criterion, "attention", &ATTENTION, attend as Make<4>);
    group(criterion, "linear", &LINEAR, linear as Make<3>);
    group(criterion, "layer_norm", &[[1024, 320], [256, 640], [64, 1280]], layer_norm as Make<2>);
    group(criterion, "geglu", &[[1024, 1280], [256, 2560]], gated as Make<2>);
}

fn group<const N: usize>(
    criterion: &mut Criterion,
    name: &str,
    shapes: &[[usize; N]],
    make: fn([usize; N], &Place) -> Pass,
) {
    let mut group = groups::slow(criterion, name);
    for shape in shapes {
        groups::everywhere(&mut group, &shape.map(|n| n.to_string()).join("x"), |place| make(*shape, place));
    }
    group.finish();
}

fn group_norm_silu([c, side]: [usize; 2], place: &Place) -> Pass {
    let norm = GroupNormConfig::new(32, c, 1e-5).init(&place.device).map(&mut Cheap(place.dtype));
    let x = values([1, c, side, side], 1.0, place);
    Box::new(move || finish(norm.forward_silu(x.clone())))
}

fn conv3x3([c, side]: [usize; 2], place: &Place) -> Pass {
    let conv = Conv2dConfig::new([c, c], 3).init(&place.device).map(&mut Cheap(place.dtype));
    let x = values([1, c, side, side], 1.0, place);
    Box::new(move || finish(conv.forward(x.clone())))
}

fn attend([heads, n, m, d]: [usize; 4], place: &Place) -> Pass {
    let q = values([1, heads, n, d], 1.0, place);
    let [k, v] = [values([1, heads, m, d], 1.0, place), values([1, heads, m, d], 0.5, place)];
    Box::new(move || finish(attention(q.clone(), k.clone(), v.clone(), AttentionOptions::default())))
}

fn linear([n, d_input, d_output]: [usize; 3], place: &Place) -> Pass {
    let layer = LinearConfig::new(d_input, d_output).init(&place.device).map(&mut Cheap(place.dtype));
    let x = values([1, 1, n, d_input], 1.0, place);
    Box::new(move || finish(layer.forward(x.clone())))
}

fn layer_norm([n, c]: [usize; 2], place: &Place) -> Pass {
    let norm = LayerNormConfig::new(c).init(&place.device).map(&mut Cheap(place.dtype));
    let x = values([1, 1, n, c], 1.0, place);
    Box::new(move || finish(norm.forward(x.clone())))
}

fn gated([n, c]: [usize; 2], place: &Place) -> Pass {
    let x = values([1, 1, n, 2 * c], 2.0, place);
    Box::new(move || finish(geglu(x.clone())))
}

criterion_group!(benches, bench);
criterion_main!(benches);

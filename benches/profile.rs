//! Where the time of one step of Stable Diffusion 1.5's U-Net goes, by kind of layer, beside the least it could take:
//!
//! ```sh
//! cargo bench --bench profile -- run                                  # flex, f32, 512 pixels
//! cargo bench --features cuda --bench profile -- run --device cuda --dtype f16 --batch 2
//! ```
//!
//! The U-Net is run layer by layer, the device is waited for after each, and the result is compared with the U-Net's own:
//! what that takes as a whole is printed last. The floor is operations over this machine's rate on a large matrix product,
//! and bytes (each tensor read or written once) over its bandwidth, whichever is longer. Winograd's convolutions do fewer
//! operations than are counted.

#![allow(clippy::expect_used, reason = "a bench ends where its model cannot be made")]

mod workloads;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use clap::Parser;
use ldm_nn::{
    AttentionOptions, Conv2d, GroupNorm, LayerNorm, Linear, LinearConfig, ResnetBlock, attention, geglu,
    join_channels, merge_heads, split_heads, to_tokens, upsample_nearest,
};
use ldm_unet::{BasicTransformerBlock, Conditioning, CrossAttention, SpatialAttention, UNet};
use workloads::{Cheap, Place, finish, sd1, timestep, unet_of, values};

/// Of Stable Diffusion 1.5.
const HEADS: usize = 8;
const PASSES: usize = 3;

/// Times a U-Net's layers by kind.
#[derive(Parser)]
#[command(name = "profile")]
struct Arguments {
    /// `run`; without it nothing is done
    command: Option<String>,
    /// Of the picture, in pixels
    #[arg(long, default_value_t = 512)]
    pixels: usize,
    /// Items
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// flex, cuda, vulkan, ...
    #[arg(long, default_value = "flex")]
    device: String,
    /// f32, f16, bf16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Convolution3x3,
    Linear,
    Attention,
    Norm,
    Geglu,
    Other,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Convolution3x3 => "convolution 3x3",
            Self::Linear => "convolution 1x1, linear",
            Self::Attention => "attention",
            Self::Norm => "norms",
            Self::Geglu => "GEGLU",
            Self::Other => "sums, joins, layout",
        }
    }
}

/// Of one kind, over all passes.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    calls: usize,
    seconds: f64,
    operations: f64,
    bytes: f64,
    /// The layers' own floors, summed.
    floor: f64,
}

/// What the machine can do, a second.
struct Rates {
    operations: f64,
    bytes: f64,
}

struct Profile<'a> {
    place: &'a Place,
    rates: Rates,
    tallies: BTreeMap<Kind, Tally>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.command.as_deref() != Some("run") {
        println!("usage: profile run, see --help");
        return ExitCode::SUCCESS;
    }
    match Place::named(&arguments.device, &arguments.dtype) {
        Ok(place) => run(&arguments, &place),
        Err(error) => {
            eprintln!("skipped: {error}");
            ExitCode::SUCCESS
        }
    }
}

fn run(arguments: &Arguments, place: &Place) -> ExitCode {
    let &Arguments { pixels, batch, .. } = arguments;
    let unet = unet_of(&sd1(), place);
    let x = values([batch, 4, pixels / 8, pixels / 8], 1.0, place);
    let conditioning = Conditioning::context(values([batch, 77, 768], 1.0, place));
    let t = || timestep(500.0, &place.device);

    let rates = Rates::measured(place);
    println!("product\t{:.1} GFLOP/s", rates.operations / 1e9);
    println!("bandwidth\t{:.1} GB/s", rates.bytes / 1e9);
    let mut profile = Profile { place, rates, tallies: BTreeMap::new() };
    let mut output = profile.forward(&unet, x.clone(), t(), &conditioning);
    profile.tallies.clear();
    for _ in 0..PASSES {
        output = profile.forward(&unet, x.clone(), t(), &conditioning);
    }
    profile.print();

    let own = || unet.forward(x.clone(), t(), &conditioning).expect("fitting inputs");
    let expected = own();
    let whole = fastest(place, PASSES, || {
        std::hint::black_box(finish(own()));
    });
    println!("the U-Net's own forward\t\t{:.2}", whole * 1e3);
    let difference: f32 = (output - expected.clone()).abs().max().into_scalar();
    let largest: f32 = expected.abs().max().into_scalar();
    // A GPU may take TF32 for f32.
    let tolerance = if place.dtype == DType::F32 { 1e-3 } else { 2e-2 };
    if difference > tolerance * largest {
        eprintln!("the layers gave another result than the U-Net: {difference:e} of {largest:e}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The fastest of some runs after one that isn't counted, in seconds.
fn fastest(place: &Place, runs: usize, mut work: impl FnMut()) -> f64 {
    let mut timed = || {
        place.sync();
        let start = Instant::now();
        work();
        place.sync();
        start.elapsed().as_secs_f64()
    };
    timed();
    (0..runs).map(|_| timed()).fold(f64::INFINITY, f64::min)
}

impl Rates {
    fn measured(place: &Place) -> Self {
        let n = if place.is_cpu() { 2048 } else { 8192 };
        let layer = LinearConfig::new(n, n).with_bias(false).init(&place.device).map(&mut Cheap(place.dtype));
        let x = values([1, n, n], 1.0, place);
        let product = fastest(place, 5, || {
            std::hint::black_box(layer.forward(x.clone()));
        });
        Self { operations: 2.0 * (n as f64).powi(3) / product, bytes: bandwidth(place) }
    }
}

/// Reads and writes together, on tensors larger than any cache.
fn bandwidth(place: &Place) -> f64 {
    const BYTES: usize = 256 << 20;
    if !place.is_cpu() {
        let x = values([BYTES / place.dtype.size()], 1.0, place);
        let seconds = fastest(place, 5, || {
            std::hint::black_box(x.clone() * 2.0);
        });
        return 2.0 * BYTES as f64 / seconds;
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (from, mut to) = (vec![1u8; BYTES], vec![0u8; BYTES]);
    let seconds = fastest(place, 5, || {
        let part = BYTES.div_ceil(threads);
        std::thread::scope(|scope| {
            for (to, from) in to.chunks_mut(part).zip(from.chunks(part)) {
                scope.spawn(|| to.copy_from_slice(from));
            }
        });
        std::hint::black_box(&to);
    });
    2.0 * BYTES as f64 / seconds
}

impl Profile<'_> {
    /// `UNet::forward` of a model with Stable Diffusion 1.5's parts, a layer at a time.
    fn forward(&mut self, unet: &UNet, x: Tensor<4>, t: Tensor<1>, given: &Conditioning) -> Tensor<4> {
        let entry = self.other(0, || unet.enter(x, t, given).expect("fitting inputs"));
        let (time, context) = (entry.time, entry.context.expect("a context"));
        let mut x = self.conv(&unet.conv_in, entry.x);
        let mut skips = vec![x.clone()];
        for block in &unet.down_blocks {
            for (i, resnet) in block.resnets.iter().enumerate() {
                x = self.resnet(resnet, x, &time);
                x = self.attention(block.attentions.get(i), x, &context);
                skips.push(x.clone());
            }
            if let Some(downsample) = &block.downsample {
                let [_, _, h, w] = x.dims();
                let conv = downsample.conv.as_ref().expect("a convolution halves the size");
                x = self.conv_to([h, w].map(|side| downsample.size(side)), conv, x);
                skips.push(x.clone());
            }
        }
        if let Some(mid) = &unet.mid_block {
            for (i, resnet) in mid.resnets.iter().enumerate() {
                x = self.resnet(resnet, x, &time);
                x = self.attention(mid.attention.as_ref().filter(|_| i == 0), x, &context);
            }
        }
        for block in &unet.up_blocks {
            for (i, resnet) in block.resnets.iter().enumerate() {
                let skip = skips.pop().expect("a skip for each block");
                let moved = 2 * (elements(&x) + elements(&skip));
                x = self.other(moved, || join_channels(x, skip));
                x = self.resnet(resnet, x, &time);
                x = self.attention(block.attentions.get(i), x, &context);
            }
            if let Some(conv) = block.upsample.as_ref().and_then(|up| up.conv.as_ref()) {
                let [_, _, h, w] = skips.last().expect("a finer level").dims();
                let moved = 5 * elements(&x);
                x = self.other(moved, || upsample_nearest(x, [h, w]));
                x = self.conv(conv, x);
            }
        }
        let x = self.group_norm(&unet.conv_norm_out, x, true);
        self.conv(&unet.conv_out, x)
    }

    fn resnet(&mut self, block: &ResnetBlock, x: Tensor<4>, time: &Tensor<2>) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let h = self.group_norm(&block.norm1, x.clone(), true);
        let time = self.linear(block.time_emb_proj.as_ref().expect("a time embedding"), time.clone());
        let h = self.conv_by([height, width], &block.conv1, h, |h| block.conv1.forward_shift(h, time));
        let h = self.group_norm(&block.norm2, h, true);
        let x = match &block.conv_shortcut {
            Some(conv) => self.conv(conv, x),
            None => x,
        };
        self.conv_by([height, width], &block.conv2, h, |h| block.conv2.forward_add(h, x))
    }

    fn attention(&mut self, part: Option<&SpatialAttention>, x: Tensor<4>, context: &Tensor<3>) -> Tensor<4> {
        let Some(SpatialAttention::Transformer(transformer)) = part else { return x };
        let tokens = self.group_norm(&transformer.norm, x.clone(), false);
        let tokens = self.other(0, || to_tokens(tokens));
        let mut tokens = self.linear(&transformer.proj_in, tokens);
        for block in &transformer.transformer_blocks {
            tokens = self.transformer_block(block, tokens, context);
        }
        let layer = &transformer.proj_out;
        self.linear_by(layer, tokens, |tokens| layer.forward_to_map(tokens, x))
    }

    fn transformer_block(
        &mut self,
        block: &BasicTransformerBlock,
        x: Tensor<3>,
        context: &Tensor<3>,
    ) -> Tensor<3> {
        let normed = self.layer_norm(&block.norm1, x.clone());
        let x = self.cross_attention(&block.attn1, normed.clone(), normed, x);
        let normed = self.layer_norm(&block.norm2, x.clone());
        let x = self.cross_attention(&block.attn2, normed, context.clone(), x);
        let hidden = self.layer_norm(&block.norm3, x.clone());
        let hidden = self.linear(&block.ff.proj_in, hidden);
        let moved = 3 * elements(&hidden) / 2;
        let hidden = self.time(Kind::Geglu, 0, moved, || geglu(hidden));
        let layer = &block.ff.proj_out;
        self.linear_by(layer, hidden, |hidden| layer.forward_add(hidden, x))
    }

    fn cross_attention(
        &mut self,
        layer: &CrossAttention,
        x: Tensor<3>,
        source: Tensor<3>,
        addend: Tensor<3>,
    ) -> Tensor<3> {
        let q = self.linear(&layer.to_q, x);
        let k = self.linear(&layer.to_k, source.clone());
        let v = self.linear(&layer.to_v, source);
        let ([b, n, c], m) = (q.dims(), k.dims()[1]);
        let merged = self.time(Kind::Attention, 4 * b * n * m * c, 2 * b * (n + m) * c, || {
            let [q, k, v] = [q, k, v].map(|x| split_heads(x, HEADS));
            merge_heads(attention(q, k, v, AttentionOptions::default()))
        });
        self.linear_by(&layer.to_out, merged, |merged| layer.to_out.forward_add(merged, addend))
    }

    fn conv(&mut self, layer: &Conv2d, x: Tensor<4>) -> Tensor<4> {
        let [_, _, h, w] = x.dims();
        self.conv_to([h, w], layer, x)
    }

    /// `size` is the result's.
    fn conv_to(&mut self, size: [usize; 2], layer: &Conv2d, x: Tensor<4>) -> Tensor<4> {
        self.conv_by(size, layer, x, |x| layer.forward(x))
    }

    /// Run by `run`, which adds something to it.
    fn conv_by(
        &mut self,
        size: [usize; 2],
        layer: &Conv2d,
        x: Tensor<4>,
        run: impl FnOnce(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<4> {
        let weight = layer.weight.val();
        let ([c_out, c_in, k, _], b) = (weight.dims(), x.dims()[0]);
        let pixels = size[0] * size[1];
        let kind = if k == 1 { Kind::Linear } else { Kind::Convolution3x3 };
        let operations = 2 * b * c_out * c_in * k * k * pixels;
        let moved = elements(&x) + elements(&weight) + b * c_out * pixels;
        self.time(kind, operations, moved, || run(x))
    }

    fn linear<const D: usize>(&mut self, layer: &Linear, x: Tensor<D>) -> Tensor<D> {
        self.linear_by(layer, x, |x| layer.forward(x))
    }

    /// Run by `run`, which adds something to it.
    fn linear_by<const D: usize, R>(
        &mut self,
        layer: &Linear,
        x: Tensor<D>,
        run: impl FnOnce(Tensor<D>) -> R,
    ) -> R {
        let [d_output, d_input] = layer.weight.lazy_shape().dims();
        let rows = elements(&x) / d_input;
        let moved = rows * (d_input + d_output) + d_input * d_output;
        self.time(Kind::Linear, 2 * rows * d_input * d_output, moved, || run(x))
    }

    fn group_norm(&mut self, norm: &GroupNorm, x: Tensor<4>, silu: bool) -> Tensor<4> {
        let moved = 2 * elements(&x);
        self.time(Kind::Norm, 0, moved, || if silu { norm.forward_silu(x) } else { norm.forward(x) })
    }

    fn layer_norm(&mut self, norm: &LayerNorm, x: Tensor<3>) -> Tensor<3> {
        let moved = 2 * elements(&x);
        self.time(Kind::Norm, 0, moved, || norm.forward(x))
    }

    fn other<R>(&mut self, moved: usize, work: impl FnOnce() -> R) -> R {
        self.time(Kind::Other, 0, moved, work)
    }

    /// Runs and counts one layer: its operations, and the elements that it reads and writes.
    fn time<R>(&mut self, kind: Kind, operations: usize, moved: usize, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        self.place.sync();
        let (operations, bytes) = (operations as f64, (moved * self.place.dtype.size()) as f64);
        let tally = self.tallies.entry(kind).or_default();
        tally.calls += 1;
        tally.seconds += start.elapsed().as_secs_f64();
        tally.operations += operations;
        tally.bytes += bytes;
        tally.floor += (operations / self.rates.operations).max(bytes / self.rates.bytes);
        result
    }

    /// A line a kind, for one pass; then their sum.
    fn print(&self) {
        println!("kind\tcalls\tms\tshare\tGFLOP\tGFLOP/s\tMB\tfloor_ms");
        let whole: f64 = self.tallies.values().map(|tally| tally.seconds).sum();
        let mut sum = Tally::default();
        let line = |name: &str, tally: &Tally| {
            let per_pass = |total: f64| total / PASSES as f64;
            println!(
                "{name}\t{}\t{:.2}\t{:.3}\t{:.2}\t{:.1}\t{:.1}\t{:.2}",
                tally.calls / PASSES,
                per_pass(tally.seconds) * 1e3,
                tally.seconds / whole,
                per_pass(tally.operations) / 1e9,
                tally.operations / tally.seconds / 1e9,
                per_pass(tally.bytes) / 1e6,
                per_pass(tally.floor) * 1e3,
            );
        };
        for (kind, tally) in &self.tallies {
            line(kind.name(), tally);
            sum.calls += tally.calls;
            sum.seconds += tally.seconds;
            sum.operations += tally.operations;
            sum.bytes += tally.bytes;
            sum.floor += tally.floor;
        }
        line("all layers", &sum);
    }
}

fn elements<const D: usize>(x: &Tensor<D>) -> usize {
    x.shape().num_elements()
}

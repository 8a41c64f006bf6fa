//! The ways in which our GPU kernel can divide the attentions of Stable Diffusion, timed: what the order of
//! `ldm-kernels`' `gpu/attention/plan.rs` is to follow.
//!
//! ```sh
//! cargo bench --features cuda,autotune,gpu-kernels --bench attentions -- run > attentions.tsv
//! ```
//!
//! Tab-separated: attention, cube, microseconds, TFLOP/s, whether it is the way that is taken. Launches are recorded and
//! replayed where the device can, so that the host's time does not count.

mod workloads;

use clap::Parser;
use ldm::nn::gpu_kernels::attention_ways;
use workloads::{Place, fastest, values};

/// Times every division of a U-Net's attentions.
#[derive(Parser)]
#[command(name = "attentions")]
struct Arguments {
    /// `run`; without it nothing is done
    command: Option<String>,
    /// cuda, vulkan, ...
    #[arg(long, default_value = "cuda")]
    device: String,
    /// f16, bf16
    #[arg(long, default_value = "f16")]
    dtype: String,
    /// Only attentions whose line has this
    #[arg(long, default_value = "")]
    only: String,
    /// Items: two for a guided picture
    #[arg(long, default_value_t = 2)]
    batch: usize,
    /// Runs that are recorded together
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// Heads, queries, keys, width of a head: those of 1.5 at 512 pixels, then of SDXL at 1024.
const LAYERS: [[usize; 4]; 12] = [
    [8, 4096, 4096, 40],
    [8, 4096, 77, 40],
    [8, 1024, 1024, 80],
    [8, 1024, 77, 80],
    [8, 256, 256, 160],
    [8, 256, 77, 160],
    [8, 64, 64, 160],
    [8, 64, 77, 160],
    [10, 4096, 4096, 64],
    [10, 4096, 77, 64],
    [20, 1024, 1024, 64],
    [20, 1024, 77, 64],
];

fn main() {
    let arguments = Arguments::parse();
    if arguments.command.as_deref() != Some("run") {
        println!("usage: attentions run");
        return;
    }
    let place = match Place::named(&arguments.device, &arguments.dtype) {
        Ok(place) => place,
        Err(reason) => {
            eprintln!("attentions: skipped, {reason}");
            return;
        }
    };
    println!("attention\tcube\tus\ttflops\ttaken");
    for [heads, queries, keys, width] in LAYERS {
        let layer = format!("{heads} heads of {width}, {queries} queries, {keys} keys");
        if !layer.contains(&arguments.only) {
            continue;
        }
        let batch = arguments.batch;
        let rows = |n: usize| values([batch, n, heads, width], 1.0, &place).swap_dims(1, 2);
        let [q, k, v] = [queries, keys, keys].map(rows);
        let operations = 4.0 * (batch * heads * queries * keys * width) as f64;
        let ways = attention_ways(&q, &k, &v);
        if ways.is_empty() {
            let Place { device, dtype } = &place;
            eprintln!("{layer}: skipped, the kernel does not take it on {device:?} in {dtype:?}");
        }
        for way in ways {
            let (cube, taken) = (way.cube.clone(), way.taken);
            let (q, k, v) = (q.clone(), k.clone(), v.clone());
            let Some(seconds) = fastest(move || way.run(&q, &k, &v), arguments.runs, &place) else {
                continue;
            };
            let rate = operations / seconds / 1e12;
            println!("{layer}\t{cube}\t{:.2}\t{rate:.1}\t{taken}", seconds * 1e6);
        }
    }
}

//! The ways in which our GPU kernel can divide a convolution or linear layer of Stable Diffusion 1.5's U-Net, timed, beside the
//! estimate by which it chooses (`ldm-kernels`, `gpu/conv2d/plan.rs`):
//!
//! ```sh
//! cargo bench --features cuda,autotune,gpu-kernels --bench products -- run > products.tsv
//! ```
//!
//! Tab-separated: layer, tile, splits, microseconds, TFLOP/s, estimated clocks, whether it is the way that is taken. Launches
//! are recorded and replayed where the device can, so that the host's time does not count.

mod workloads;

use burn::tensor::Tensor;
use clap::Parser;
use ldm::nn::gpu_kernels::{Way, upsample_ways, ways};
use ldm::nn::{Conv2dOptions, laid_out};
use workloads::{Place, fastest, values};

/// Times every division of a U-Net's products.
#[derive(Parser)]
#[command(name = "products")]
struct Arguments {
    /// `run`; without it nothing is done
    command: Option<String>,
    /// cuda, vulkan, ...
    #[arg(long, default_value = "cuda")]
    device: String,
    /// f16, bf16
    #[arg(long, default_value = "f16")]
    dtype: String,
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

/// Kernel, input and output channels, side of the map: those of a 512-pixel picture that take most of the time.
const LAYERS: [(usize, usize, usize, usize); 24] = [
    (3, 320, 320, 64),
    (3, 640, 320, 64),
    (3, 960, 320, 64),
    (3, 320, 640, 32),
    (3, 640, 640, 32),
    (3, 960, 640, 32),
    (3, 1280, 640, 32),
    (3, 1920, 640, 32),
    (3, 640, 1280, 16),
    (3, 1280, 1280, 16),
    (3, 1920, 1280, 16),
    (3, 2560, 1280, 16),
    (3, 1280, 1280, 8),
    (3, 2560, 1280, 8),
    (1, 320, 320, 64),
    (1, 320, 2560, 64),
    (1, 1280, 320, 64),
    (1, 640, 640, 32),
    (1, 640, 5120, 32),
    (1, 2560, 640, 32),
    (1, 1280, 1280, 16),
    (1, 1280, 10240, 16),
    (1, 5120, 1280, 16),
    (1, 1280, 1280, 8),
];

/// Channels and side of the maps that are enlarged before a convolution, by the U-Net and then by the decoder.
const ENLARGED: [(usize, usize); 6] = [(1280, 8), (1280, 16), (640, 32), (512, 64), (512, 128), (256, 256)];

fn main() {
    let arguments = Arguments::parse();
    if arguments.command.as_deref() != Some("run") {
        println!("usage: products run");
        return;
    }
    let place = match Place::named(&arguments.device, &arguments.dtype) {
        Ok(place) => place,
        Err(reason) => {
            eprintln!("products: skipped, {reason}");
            return;
        }
    };
    println!("layer\ttile\tsplits\tus\ttflops\tclocks\ttaken");
    for (kernel, inputs, outputs, side) in LAYERS {
        let x = values([arguments.batch, side, side, inputs], 1.0, &place).permute([0, 3, 1, 2]);
        let weight = laid_out(values([outputs, inputs, kernel, kernel], 0.05, &place));
        let options = Conv2dOptions { stride: [1, 1], padding: [[kernel / 2; 2]; 2] };
        let layer = format!("{kernel}x{kernel}, {inputs} to {outputs} at {side}x{side}");
        measure(&layer, [x.clone(), weight.clone()], ways(&x, &weight, options), &arguments, &place);
    }
    for (channels, side) in ENLARGED {
        let x = values([arguments.batch, side, side, channels], 1.0, &place).permute([0, 3, 1, 2]);
        let taps = laid_out(values([4 * channels, channels, 2, 2], 0.05, &place));
        let layer = format!("3x3 of enlarged maps, {channels} to {channels} at {side}x{side}");
        measure(&layer, [x.clone(), taps.clone()], upsample_ways(&x, &taps), &arguments, &place);
    }
}

/// Prints what every way takes.
fn measure(layer: &str, [x, weight]: [Tensor<4>; 2], ways: Vec<Way>, arguments: &Arguments, place: &Place) {
    if ways.is_empty() {
        eprintln!("{layer}: skipped, the kernel does not take it on {:?} in {:?}", place.device, place.dtype);
    }
    let [_, _, height, width] = x.dims();
    let products = arguments.batch * height * width * weight.shape().num_elements();
    for way in ways {
        let shown = (way.tile.clone(), way.splits, way.estimate, way.taken);
        let (x, weight) = (x.clone(), weight.clone());
        let run = move || way.run(&x, &weight);
        let Some(seconds) = fastest(run, arguments.runs, place) else { continue };
        let (tile, splits, estimate, taken) = shown;
        let rate = 2.0 * products as f64 / seconds / 1e12;
        println!("{layer}\t{tile}\t{splits}\t{:.2}\t{rate:.1}\t{estimate}\t{taken}", seconds * 1e6);
    }
}

//! How time and memory grow with a picture's size, with the batch and with the steps, for Stable Diffusion 1.5:
//!
//! ```sh
//! cargo bench --bench growth -- size batch steps > growth.tsv      # tab-separated: axis, value, seconds, peak_mib
//! python3 benches/plot_growth.py growth.tsv docs/growth.svg
//! ```
//!
//! `size` (pixels) and `batch` (at 256 pixels) run the U-Net once, `steps` draws a guided 256-pixel picture. Every point has
//! a process of its own, so that its peak of memory is its own.

#![allow(clippy::expect_used, reason = "a bench ends where it can't start itself")]

mod workloads;

use std::process::{Command, Stdio};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use workloads::{Pass, Place, Size, memory, text_to_image, unet};

/// Prints axis, value, seconds and peak MiB.
#[derive(Parser)]
#[command(name = "growth")]
struct Arguments {
    /// What grows
    axes: Vec<Axis>,
    /// flex, cuda, vulkan, ...
    #[arg(long, default_value = "flex")]
    device: String,
    /// f32, f16, bf16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// An axis ends before a run that would take longer, in seconds
    #[arg(long, default_value_t = 120.0)]
    limit: f64,
    /// Measure this one value here
    #[arg(long, hide = true)]
    value: Option<usize>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Axis {
    Size,
    Batch,
    Steps,
}

/// A value with its seconds and its peak of memory in MiB, where known.
type Point = (usize, f64, Option<f64>);

impl Axis {
    fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Batch => "batch",
            Self::Steps => "steps",
        }
    }

    fn values(self) -> &'static [usize] {
        match self {
            Self::Size => &[256, 384, 512, 768, 1024, 1536, 2048],
            Self::Batch => &[1, 2, 4, 8, 16, 32],
            Self::Steps => &[1, 2, 5, 10, 20, 50],
        }
    }

    /// The work of a value, if all of it were convolution.
    fn work(self, value: usize) -> f64 {
        if self == Self::Size { (value * value) as f64 } else { value as f64 }
    }

    fn workload(self, value: usize, place: &Place) -> Pass {
        match self {
            Self::Size => unet(Size { side: value / 8, batch: 1, steps: 1, replay: false }, place),
            Self::Batch => unet(Size { side: 32, batch: value, steps: 1, replay: false }, place),
            Self::Steps => text_to_image(Size { side: 32, batch: 1, steps: value, replay: false }, place),
        }
    }
}

fn main() {
    let arguments = Arguments::parse();
    if arguments.axes.is_empty() {
        println!("usage: growth size|batch|steps..., see --help");
    } else if let Some(value) = arguments.value {
        measure(&arguments, arguments.axes[0], value);
    } else {
        println!("axis\tvalue\tseconds\tpeak_mib");
        arguments.axes.iter().for_each(|axis| grow(&arguments, *axis));
    }
}

fn grow(arguments: &Arguments, axis: Axis) {
    let mut points: Vec<Point> = Vec::new();
    for value in axis.values() {
        let next = match beyond(arguments, axis, &points, *value) {
            Some(reason) => Err(reason),
            None => apart(arguments, axis, *value),
        };
        match next {
            Ok(point) => {
                let (value, seconds, mib) = point;
                let mib = mib.map_or(String::new(), |mib| format!("{mib:.0}"));
                println!("{}\t{value}\t{seconds:.4}\t{mib}", axis.name());
                points.push(point);
            }
            Err(reason) => {
                eprintln!("{}: stopped before {value}: {reason}", axis.name());
                return;
            }
        }
    }
}

/// Why the next value is not tried, as far as the last two points tell.
fn beyond(arguments: &Arguments, axis: Axis, points: &[Point], value: usize) -> Option<String> {
    let &(last, seconds, mib) = points.last()?;
    let work = |value| axis.work(value);
    let more = work(value) / work(last);
    let before = points.len().checked_sub(2).and_then(|i| points.get(i));
    let exponent = before.map_or(1.0, |(v, s, _)| (seconds / s).ln() / (work(last) / work(*v)).ln());
    let expected = seconds * more.powf(exponent.max(1.0));
    if expected > arguments.limit {
        return Some(format!("it would take about {expected:.0} s, the limit is {:.0} s", arguments.limit));
    }
    // A GPU says by itself what does not fit.
    let (Some(mib), Some((v, _, Some(m))), true) = (mib, before, arguments.device == "flex") else {
        return None;
    };
    let expected = mib + (mib - m) / (work(last) - work(*v)) * (work(value) - work(last));
    let available = memory::available()?;
    let short = expected > 0.95 * available;
    short.then(|| format!("it would take about {expected:.0} MiB, of which the machine has {available:.0}"))
}

/// One point, in a process of its own.
fn apart(arguments: &Arguments, axis: Axis, value: usize) -> Result<Point, String> {
    let program = std::env::current_exe().expect("this program is a file");
    let Arguments { device, dtype, .. } = arguments;
    let value_text = value.to_string();
    let output = Command::new(program)
        .args([axis.name(), "--value", &value_text, "--device", device, "--dtype", dtype])
        .stderr(Stdio::inherit())
        .output()
        .expect("this program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match numbers.next() {
        Some(Ok(seconds)) if output.status.success() => {
            Ok((value, seconds, numbers.next().and_then(Result::ok)))
        }
        _ => Err(format!("its process ended with {}", output.status)),
    }
}

/// The fastest of up to three runs after the first, as many as fit into twenty seconds.
fn measure(arguments: &Arguments, axis: Axis, value: usize) {
    let place = Place::named(&arguments.device, &arguments.dtype).unwrap_or_else(|e| refuse(&e));
    let mut run = axis.workload(value, &place);
    let mut timed = || {
        let start = Instant::now();
        std::hint::black_box(run());
        start.elapsed().as_secs_f64()
    };
    timed();
    let started = Instant::now();
    let mut fastest = timed();
    for _ in 0..2 {
        if started.elapsed().as_secs_f64() < 20.0 {
            fastest = fastest.min(timed());
        }
    }
    let peak = match place.is_cpu() {
        true => memory::peak_resident(),
        false => memory::peak_on_device(&place.device, || {
            timed();
        }),
    };
    println!("{fastest} {}", peak.map_or(String::new(), |mib| mib.to_string()));
}

fn refuse<T>(error: &ldm::Error) -> T {
    eprintln!("{error}");
    std::process::exit(1)
}

//! Our side of `benches/compare.sh`: makes the workload named on the command line, then runs it once for every line on
//! standard input and answers with what that took.
//!
//! The first line is `ready`, or `skip` and why.

mod workloads;

use std::io::{BufRead, Write};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use ldm::GpuKernels;
use workloads::{NAMED, Pass, Place, Size, memory};

/// Runs a workload once for each line on standard input.
#[derive(Parser)]
#[command(name = "turns")]
struct Arguments {
    /// Which
    workload: Option<String>,
    /// Of the latent
    #[arg(long, default_value_t = 64)]
    side: usize,
    /// Pictures
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Denoising steps
    #[arg(long, default_value_t = 50)]
    steps: usize,
    /// Records a step's launches once and replays them
    #[arg(long)]
    replay: bool,
    /// flex, cuda, vulkan, ...
    #[arg(long, default_value = "flex")]
    device: String,
    /// f32, f16, bf16
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Which kernels run on a GPU
    #[arg(long, value_enum, default_value_t = Kernels::All)]
    kernels: Kernels,
    /// What is answered
    #[arg(long, value_enum, default_value_t = Measure::Seconds)]
    measure: Measure,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kernels {
    /// burn's.
    Burns,
    /// Ours, but for those with one vendor's instructions.
    Portable,
    /// Ours.
    All,
}

#[derive(Clone, Copy, ValueEnum)]
enum Measure {
    /// How long the run took.
    Seconds,
    /// The process's peak of resident memory, MiB.
    Resident,
    /// The peak of the device's allocations during the run, MiB.
    Device,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let Some(name) = &arguments.workload else {
        let names: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
        println!("usage: turns WORKLOAD; one of {}", names.join(", "));
        return Ok(());
    };
    let (place, mut run) = match made(name, &arguments) {
        Ok(made) => made,
        Err(reason) => {
            println!("skip {reason}");
            return Ok(());
        }
    };
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        let measured = match arguments.measure {
            Measure::Seconds => {
                std::hint::black_box(run());
                Some(start.elapsed().as_secs_f64())
            }
            Measure::Resident => {
                std::hint::black_box(run());
                memory::peak_resident()
            }
            Measure::Device => memory::peak_on_device(&place.device, || {
                std::hint::black_box(run());
            }),
        };
        match measured {
            Some(measured) => println!("{measured}"),
            None => println!("skip this machine or device doesn't tell"),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn made(name: &str, arguments: &Arguments) -> Result<(Place, Pass), String> {
    let &Arguments { side, batch, steps, replay, .. } = arguments;
    let (_, make) = NAMED.iter().find(|(known, _)| *known == name).ok_or(format!("there is no {name}"))?;
    let place = Place::named(&arguments.device, &arguments.dtype).map_err(|e| e.to_string())?;
    ldm::set_gpu_kernels(match arguments.kernels {
        Kernels::Burns => GpuKernels::Off,
        Kernels::Portable => GpuKernels::Portable,
        Kernels::All => GpuKernels::All,
    });
    let run = make(Size { side, batch, steps, replay }, &place);
    Ok((place, run))
}

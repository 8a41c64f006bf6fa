//! Our side of `benches/compare.py`: makes the workload named on the command line, then runs it once for every line
//! on standard input and answers with the seconds it took.

#[allow(dead_code)]
mod models;

use std::io::{BufRead, Write};
use std::time::Instant;

use burn::tensor::Device;

fn main() -> std::io::Result<()> {
    // `cargo bench` adds `--bench`.
    let Some(name) = std::env::args().skip(1).find(|arg| !arg.starts_with("--")) else {
        println!("usage: turns NAME; a line on standard input runs it once");
        return Ok(());
    };
    let workload = models::Workload::new(&name, &Device::default());
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        std::hint::black_box(workload.run());
        println!("{}", start.elapsed().as_secs_f64());
        std::io::stdout().flush()?;
    }
    Ok(())
}

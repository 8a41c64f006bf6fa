//! Networks at full width against the code that they come from: of the paper's a U-Net of each family, two first stages
//! and the largest text encoder; Stable Diffusion's U-Nets, first stage and text encoders.
//! `cargo bench --bench full_width -- cin256 kl-f8`, or `all` (sdxl takes 11 GB of memory, rdm768x768 5.3, the others under 3.5).
//!
//! Weights are drawn by name as in the tests; tests/reference/full_width.py and full_width_diffusers.py made the numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench ends where its model cannot be made")]

mod drawn;
mod paper;
mod stable_diffusion;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use ldm_test_support::Fixture;

const TOLERANCE: f64 = 1e-4;

/// How many parameters a network has, and the largest difference of what it gives.
type Compare = fn(&Fixture, &str) -> (usize, f64);

fn main() -> ExitCode {
    let sides: [(&str, Compare); 2] =
        [("full_width", paper::compare), ("full_width_diffusers", stable_diffusion::compare)];
    let fixtures = sides.map(|(name, compare)| (Fixture::open(name), compare));
    let counts: Vec<BTreeMap<String, usize>> =
        fixtures.iter().map(|(fixture, _)| serde_json::from_value(fixture.json("counts")).unwrap()).collect();
    let known: Vec<&String> = counts.iter().flat_map(BTreeMap::keys).collect();
    // `cargo bench` adds `--bench`.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let unknown = named.iter().find(|name| *name != "all" && !known.contains(name));
    if named.is_empty() || unknown.is_some() {
        unknown.into_iter().for_each(|name| println!("`{name}` is not among them"));
        println!("usage: full_width NAME..., all or some of {known:?}");
        // `cargo bench` alone stays within an ordinary machine's memory.
        return if unknown.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let all = named.iter().any(|name| name == "all");
    let mut wrong = Vec::new();
    for ((fixture, compare), counts) in fixtures.iter().zip(&counts) {
        for (name, count) in counts.iter().filter(|(name, _)| all || named.contains(name)) {
            let start = Instant::now();
            let (found, difference) = compare(fixture, name);
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "{name}: {found} parameters, difference {difference:.2e}, {seconds:.0} s with its weights"
            );
            if found != *count || difference.is_nan() || difference > TOLERANCE {
                wrong.push(name);
            }
        }
    }
    if wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("differ: {wrong:?}");
    ExitCode::FAILURE
}

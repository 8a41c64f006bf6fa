//! What the examples share: arguments, a progress bar, pictures and latents in and out.
#![allow(dead_code, reason = "each example takes what it needs")]

pub mod emoji;
pub mod latent;
pub mod model;
pub mod output;
pub mod progress;
pub mod sampling;
pub mod training;

use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;

/// What goes wrong here is told to a person, not matched on.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Shows warnings, runs an example and tells what went wrong, with all its causes.
pub fn report(example: impl FnOnce() -> Result<()>) -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    let Err(error) = example() else { return ExitCode::SUCCESS };
    let mut told = error.to_string();
    eprintln!("error: {told}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Most errors already quote their cause.
        if !told.contains(&text) {
            eprintln!("  because: {text}");
            told = text;
        }
        cause = error.source();
    }
    ExitCode::FAILURE
}

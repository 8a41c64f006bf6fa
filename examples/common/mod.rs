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

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What goes wrong here is told to a person, not matched on.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Shows warnings, runs an example and tells what went wrong, with all its causes.
pub fn report(example: impl FnOnce() -> Result<()>) -> ExitCode {
    show_warnings();
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

fn show_warnings() {
    // hf-hub logs a failure before it returns it, and what it returns is told with what to do about it.
    let shown = Targets::new().with_default(LevelFilter::WARN).with_target("hf_hub", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false);
    tracing_subscriber::registry().with(shown).with(lines).init();
}

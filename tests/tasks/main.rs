//! The paper's models and tasks against the original code (tests/reference/tasks.py).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod diffusers;
mod faults;
mod guided;
mod larger;
mod mechanisms;
mod models;
mod pixels;
mod prepared;
mod retrieved;
mod runs;

#[path = "../common/latent.rs"]
mod latent;

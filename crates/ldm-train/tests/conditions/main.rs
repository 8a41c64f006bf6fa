//! Every mechanism and every encoder through the diffusion model's training.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../tiny/clip.rs"]
mod clip;
mod data;
mod encoders;
mod faults;
mod made;
mod matter;

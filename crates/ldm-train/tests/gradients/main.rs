//! Training against PyTorch with the original code (tests/reference/training.py): one step's losses and every gradient,
//! the losses of 20 steps, for both stages and both first-stage regularisers.
//!
//! Everything in `on_flex` needs burn's flex backend: elsewhere the gradient of GELU is the tanh approximation's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod discriminator;
mod lpips;
mod on_flex;
mod support;

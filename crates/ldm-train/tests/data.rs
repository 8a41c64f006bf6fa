//! Data sets in all their forms, whole and broken; order, resuming and threads; the cache of latents.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "data/broken.rs"]
mod broken;
#[path = "data/formats.rs"]
mod formats;
#[path = "data/latents.rs"]
mod latents;
#[path = "data/made.rs"]
mod made;
#[path = "data/order.rs"]
mod order;
#[path = "data/transform.rs"]
mod transform;

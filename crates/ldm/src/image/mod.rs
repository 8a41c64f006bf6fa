//! Pictures: files in and out, and the way between 8-bit pixels and tensors in [-1, 1].

mod file;
mod pixels;
mod resize;

pub use file::{open, save_png};
pub use pixels::{Mask, from_tensor, from_tensor_truncated, to_rgb8, to_tensor};
pub use resize::{resize, resize_mask};

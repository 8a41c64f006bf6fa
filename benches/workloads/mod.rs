//! What the benches run: the published networks on inputs and weights that cost nothing to make.
//!
//! A workload is a closure that does all its work, to the end of the device's, each time it is called.

#![allow(dead_code, unused_imports, reason = "each bench takes what it needs")]
#![allow(clippy::expect_used, reason = "a bench ends where its model cannot be made")]

pub mod groups;
pub mod memory;
mod networks;
mod picture;
mod place;
mod recorded;
mod training;
mod values;

pub use networks::{sd1, timestep, unet, unet_and_vae, unet_of, vae_decode, vae_encode, vq_decode};
pub use picture::{EMOJI_STEPS, emoji_picture, sdxl, text_to_image};
pub use place::{Place, places};
pub use recorded::fastest;
pub use training::{emoji_unet, train, train_small, unet_of_66m};
pub use values::{Cheap, finish, values};

/// Runs a workload once; gives one value of the result.
pub type Pass = Box<dyn FnMut() -> f32>;

/// How large a workload is, where its name leaves that open.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Of the latent; a picture's is eight times that.
    pub side: usize,
    /// Pictures.
    pub batch: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Whether these are recorded once and replayed.
    pub replay: bool,
}

/// Makes a workload.
pub type Make = fn(Size, &Place) -> Pass;

/// The workloads that `turns` knows.
pub const NAMED: [(&str, Make); 11] = [
    ("unet", unet),
    ("vae_decode", vae_decode),
    ("vae_encode", vae_encode),
    ("vq_decode", vq_decode),
    ("unet_and_vae", unet_and_vae),
    ("text_to_image", text_to_image),
    ("sdxl", sdxl),
    ("train_small", |_, place| train_small(place)),
    ("train_sd1", |size, place| train(&sd1(), 77, size, place)),
    ("train_emoji", |size, place| train(&emoji_unet(), 24, size, place)),
    ("train_66m", |size, place| train(&unet_of_66m(), 77, size, place)),
];

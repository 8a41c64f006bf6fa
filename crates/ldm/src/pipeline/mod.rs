//! Text to image, image to image and inpainting, and the pieces they are made of.
//!
//! The short way is [`StableDiffusion::text_to_image`](crate::StableDiffusion::text_to_image) and its siblings.
//! The pieces can be taken apart: [`TextStage`] encodes prompts, [`Denoiser`] is the guided U-Net as a function,
//! [`denoise`] is the loop, and none of them knows the others' rooms.

mod denoise;
mod denoiser;
mod evaluator;
mod guidance;
mod observer;
mod prompt;
mod recorder;
mod replay;
mod request;
mod start;

pub use denoise::{Blend, denoise};
pub use denoiser::{Denoiser, SizeConditioning};
pub(crate) use evaluator::Evaluator;
pub use guidance::Guidance;
pub use observer::{Observer, Progress, Silent};
pub use prompt::{PromptConditioning, TextEncoder, TextStage};
pub(crate) use recorder::Passes;
pub use recorder::Recorder;
pub(crate) use request::{LARGEST_BATCH, LARGEST_SIDE};
pub use request::{Output, Request, Rng};

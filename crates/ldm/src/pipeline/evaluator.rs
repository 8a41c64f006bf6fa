//! The evaluations of one run: launched, or recorded once and replayed.

use burn::tensor::Tensor;
use ldm_unet::{Entry, Prepared, UNet};

use super::replay::{Replay, is_supported};
use crate::Error;

/// epsilon_theta under the conditions of a run, evaluated again and again on latents of one shape.
pub(crate) struct Evaluator<'a> {
    unet: &'a UNet,
    prepared: &'a Prepared,
    mode: Mode<'a>,
}

enum Mode<'a> {
    /// Every evaluation is launched.
    Launch,
    /// The first one is, which compiles and tunes the kernels.
    First,
    /// The next one is recorded.
    Record,
    Replay(Box<Replay<'a>>),
}

impl<'a> Evaluator<'a> {
    /// `replay`: records the second evaluation and replays it from then on, where the device can.
    pub fn new(unet: &'a UNet, prepared: &'a Prepared, replay: bool) -> Self {
        Self { unet, prepared, mode: if replay { Mode::First } else { Mode::Launch } }
    }

    /// As [`UNet::forward_prepared`].
    ///
    /// # Errors
    /// [`Error::UNet`] where the latent doesn't fit the conditions or the U-Net.
    pub fn evaluate(&mut self, x: Tensor<4>, timesteps: Tensor<1>) -> Result<Tensor<4>, Error> {
        let outer = x.dtype();
        let Entry { x, time, .. } = self.unet.enter_prepared(x, timesteps, self.prepared)?;
        Ok(self.blocks(x, time).cast(outer))
    }

    /// The blocks, in whatever way is next.
    fn blocks(&mut self, x: Tensor<4>, time: Tensor<2>) -> Tensor<4> {
        match std::mem::replace(&mut self.mode, Mode::Launch) {
            Mode::Launch => self.launched(x, time),
            Mode::First => {
                let device = x.device();
                let y = self.launched(x, time);
                if is_supported(&device) {
                    self.mode = Mode::Record;
                }
                y
            }
            Mode::Record => {
                let replay = Box::new(Replay::record(self.unet, self.prepared, &x, &time));
                if replay.is_hardware() {
                    return self.replayed(replay, x, time);
                }
                tracing::warn!("the device could not record the U-Net; the other steps are launched");
                self.launched(x, time)
            }
            Mode::Replay(replay) => self.replayed(replay, x, time),
        }
    }

    fn launched(&self, x: Tensor<4>, time: Tensor<2>) -> Tensor<4> {
        self.unet.run_blocks(x, &time, self.prepared)
    }

    fn replayed(&mut self, mut replay: Box<Replay<'a>>, x: Tensor<4>, time: Tensor<2>) -> Tensor<4> {
        match replay.run(&x, &time) {
            Some(y) => {
                self.mode = Mode::Replay(replay);
                y
            }
            None => {
                tracing::warn!("the recorded inputs can't be written in place; the other steps are launched");
                self.launched(x, time)
            }
        }
    }
}

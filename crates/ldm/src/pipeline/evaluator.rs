//! The evaluations of one run: launched, or recorded once and replayed.

use burn::tensor::{DType, Tensor};
use ldm_unet::{Entry, Prepared, PreparedTimesteps, UNet};

use super::recorder::Passes;
use super::replay::is_supported;
use crate::Error;

/// The most timesteps and items that are embedded ahead: a few MB.
const MOST_ROWS: usize = 4096;

/// epsilon_theta under the conditions of a run, evaluated again and again on latents of one shape.
pub(crate) struct Evaluator<'a> {
    unet: &'a UNet,
    prepared: &'a Prepared,
    /// Those of the run.
    timesteps: Option<PreparedTimesteps>,
    /// Where a pass is or will be recorded, with the run's number there.
    recorder: Option<(&'a dyn Passes, u64)>,
    /// Whether a pass has been launched, which compiles and tunes the kernels.
    launched: bool,
}

impl<'a> Evaluator<'a> {
    /// With a recorder, what it has recorded is replayed; else the second evaluation is recorded, where the device can.
    ///
    /// # Errors
    /// [`Error::Argument`] where the recorder is for another U-Net.
    pub fn new(
        unet: &'a UNet,
        prepared: &'a Prepared,
        recorder: Option<&'a dyn Passes>,
    ) -> Result<Self, Error> {
        if recorder.is_some_and(|recorder| !recorder.is_for(unet)) {
            return Err(Error::argument("recorder", "it is for another model"));
        }
        let recorder = recorder.map(|recorder| (recorder, recorder.enter()));
        Ok(Self { unet, prepared, timesteps: None, recorder, launched: false })
    }

    /// Embeds the timesteps of a run for so many items at once; others are embedded when they come.
    ///
    /// # Errors
    /// [`Error::UNet`] where the conditions are those of another number of items.
    pub fn embed_ahead(&mut self, timesteps: &[f32], items: usize) -> Result<(), Error> {
        if timesteps.len() * items <= MOST_ROWS {
            self.timesteps = Some(self.unet.prepare_timesteps(timesteps, items, self.prepared)?);
        }
        Ok(())
    }

    /// As [`UNet::forward_prepared`], with all items at one timestep.
    ///
    /// # Errors
    /// [`Error::UNet`] where the latent doesn't fit the conditions or the U-Net.
    pub fn evaluate(&mut self, x: Tensor<4>, timestep: f32) -> Result<Tensor<4>, Error> {
        let outer = x.dtype();
        let items = x.dims()[0];
        let known = self.timesteps.as_ref().and_then(|timesteps| timesteps.at(timestep, items));
        let Entry { x, time, .. } = match known {
            Some(time) => self.unet.enter_embedded(x, time, self.prepared)?,
            None => {
                let timesteps = Tensor::full([items], timestep, (&x.device(), DType::F32));
                self.unet.enter_prepared(x, timesteps, self.prepared)?
            }
        };
        Ok(self.blocks(x, time).cast(outer))
    }

    /// The blocks, in whatever way is next.
    fn blocks(&mut self, x: Tensor<4>, time: Tensor<2>) -> Tensor<4> {
        let Some((recorder, run)) = self.recorder else { return self.launch(x, time) };
        if let Some(y) = recorder.replay(run, self.prepared, &x, &time) {
            return y;
        }
        if !self.launched {
            if !is_supported(&x.device()) {
                self.recorder = None;
            }
            return self.launch(x, time);
        }
        if recorder.record(run, self.prepared, &x, &time) {
            if let Some(y) = recorder.replay(run, self.prepared, &x, &time) {
                return y;
            }
            tracing::warn!("the recorded inputs can't be written in place; the other steps are launched");
        } else {
            tracing::warn!("the device could not record the U-Net; the other steps are launched");
        }
        self.recorder = None;
        self.launch(x, time)
    }

    fn launch(&mut self, x: Tensor<4>, time: Tensor<2>) -> Tensor<4> {
        self.launched = true;
        self.unet.run_blocks(x, &time, self.prepared)
    }
}

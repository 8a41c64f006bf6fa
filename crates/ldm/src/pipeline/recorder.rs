//! A recorded pass that runs share.

use std::cell::{Cell, RefCell};
use std::fmt;

use burn::tensor::Tensor;
use ldm_unet::{Prepared, UNet};

use super::replay::Replay;

/// Keeps a U-Net's recorded pass from one run to the next.
///
/// A run of its own records anew: three passes more, and the recording. With a recorder only the first run does, and
/// others replay from their first step on, whatever their prompts, steps and sampler, if their pictures have the same
/// size and number, they too are guided or not, and their contexts have as many tokens; another run records anew, and its
/// recording takes the last one's place. The device memory that a pass needs stays allocated as long as the recorder.
///
/// ```no_run
/// # fn main() -> Result<(), ldm::Error> {
/// # let model = ldm::StableDiffusion::load("v1-5", &ldm::LoadOptions::new(ldm::device("cuda")?))?;
/// let recorder = model.recorder();
/// for prompt in ["a lighthouse", "a windmill"] {
///     let output = model.text_to_image(prompt).run_recorded(&recorder, &mut ldm::pipeline::Silent)?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Recorder<'a> {
    unet: &'a UNet,
    kept: RefCell<Option<Replay<'a>>>,
    /// How many runs have come by.
    runs: Cell<u64>,
    /// The run whose conditions the recording has.
    holder: Cell<u64>,
}

impl<'a> Recorder<'a> {
    /// For this U-Net, nothing recorded yet.
    pub fn new(unet: &'a UNet) -> Self {
        Self { unet, kept: RefCell::new(None), runs: Cell::new(0), holder: Cell::new(0) }
    }
}

impl fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("runs", &self.runs).finish_non_exhaustive()
    }
}

/// What an evaluator asks of a recorder, whatever it borrows.
pub(crate) trait Passes: fmt::Debug {
    /// Whether it is for this U-Net.
    fn is_for(&self, unet: &UNet) -> bool;

    /// A number for a run.
    fn enter(&self) -> u64;

    /// The recorded pass on these inputs under the run's conditions; `None` where there is none that fits.
    fn replay(&self, run: u64, prepared: &Prepared, x: &Tensor<4>, time: &Tensor<2>) -> Option<Tensor<4>>;

    /// Records the pass in the place of the last one; false where the device did not.
    fn record(&self, run: u64, prepared: &Prepared, x: &Tensor<4>, time: &Tensor<2>) -> bool;
}

impl Passes for Recorder<'_> {
    fn is_for(&self, unet: &UNet) -> bool {
        std::ptr::eq(self.unet, unet)
    }

    fn enter(&self) -> u64 {
        self.runs.set(self.runs.get() + 1);
        self.runs.get()
    }

    fn replay(&self, run: u64, prepared: &Prepared, x: &Tensor<4>, time: &Tensor<2>) -> Option<Tensor<4>> {
        if !self.kept.borrow().as_ref().is_some_and(|replay| replay.fits(x, time)) {
            return None;
        }
        // Put back when it has worked: what panics halfway leaves nothing that is half written.
        let mut replay = self.kept.borrow_mut().take()?;
        // Another run may have been here since, within a step of this one too.
        if self.holder.get() != run && !replay.condition(prepared) {
            return None;
        }
        let y = replay.run(x, time)?;
        self.holder.set(run);
        *self.kept.borrow_mut() = Some(replay);
        Some(y)
    }

    fn record(&self, run: u64, prepared: &Prepared, x: &Tensor<4>, time: &Tensor<2>) -> bool {
        // What the last one holds is let go of first.
        *self.kept.borrow_mut() = None;
        let replay = Replay::record(self.unet, prepared, x, time);
        let recorded = replay.is_hardware();
        self.holder.set(run);
        *self.kept.borrow_mut() = recorded.then_some(replay);
        recorded
    }
}

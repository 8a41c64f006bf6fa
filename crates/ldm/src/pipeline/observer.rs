use std::ops::ControlFlow;

use burn::tensor::Tensor;

/// What an [`Observer`] is shown after each step: a step is a call of the denoiser, so Heun's method counts about two
/// for each of the steps asked for, and PLMS one more.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Steps done, from 1.
    pub step: usize,
    /// Steps of the run: calls of the denoiser.
    pub of: usize,
    /// The latents as they are now, `[b, z, h, w]`: decode them for a preview.
    pub latents: &'a Tensor<4>,
}

/// Watches a run, and may end it.
///
/// Every `FnMut(Progress) -> ControlFlow<()>` is one; `ControlFlow::Break(())` cancels the run, which then
/// gives [`Error::Cancelled`](crate::Error::Cancelled).
pub trait Observer {
    /// Called after each step.
    fn step(&mut self, progress: Progress<'_>) -> ControlFlow<()>;
}

impl<F: FnMut(Progress<'_>) -> ControlFlow<()>> Observer for F {
    fn step(&mut self, progress: Progress<'_>) -> ControlFlow<()> {
        self(progress)
    }
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn step(&mut self, _: Progress<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

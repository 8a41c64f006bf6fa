use std::borrow::Cow;
use std::ops::ControlFlow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ldm::pipeline::{Observer, Progress};

/// A spinner on stderr, for work whose length isn't known.
pub fn spinner(message: impl Into<Cow<'static, str>>) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// A bar on stderr over the tensors of a file, then of the next.
pub fn tensor_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} tensors of {msg}") {
        bar.set_style(style);
    }
    bar
}

/// A bar on stderr that moves a notch a step.
pub struct Bar(ProgressBar);

impl Bar {
    /// Empty; its length comes with the first step.
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} step {pos}/{len}, {elapsed} of about {duration}")
        {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Observer for Bar {
    fn step(&mut self, progress: Progress<'_>) -> ControlFlow<()> {
        self.0.set_length(progress.of as u64);
        self.0.set_position(progress.step as u64);
        if progress.step == progress.of {
            self.0.finish();
        }
        // Break(()) here would cancel the run; progress.latents could be decoded for a preview.
        ControlFlow::Continue(())
    }
}

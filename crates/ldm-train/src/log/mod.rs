//! What a run leaves for people to look at: numbers as CSV, JSON lines and TensorBoard events, pictures as PNG.

mod grid;
mod table;
mod tensorboard;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use burn::tensor::Tensor;

pub use grid::{grid, png};
pub use tensorboard::EventWriter;

use crate::RunError;
use table::{Csv, JsonLines};

/// Named numbers of one step.
pub type Metrics = Vec<(String, f64)>;

/// The logs of one run: `metrics.csv`, `metrics.jsonl`, `events.out.tfevents.*` and `images/`.
#[derive(Debug)]
pub struct Log {
    csv: Csv,
    lines: JsonLines,
    events: EventWriter,
    images: PathBuf,
}

impl Log {
    /// The logs in `folder`; `step` steps are done, and what was logged of later ones (by a process that was
    /// killed after its last checkpoint) is dropped.
    ///
    /// # Errors
    ///
    /// Files that can't be read or written.
    pub fn open(folder: &Path, step: u64) -> Result<Self, RunError> {
        let images = folder.join("images");
        std::fs::create_dir_all(&images).map_err(RunError::io(&images))?;
        let seconds = now() as u64;
        let events = folder.join(format!("events.out.tfevents.{seconds:010}.ldm.{}", std::process::id()));
        let mut writer = EventWriter::create(&events, now())?;
        // TensorBoard drops what it has of that step and later ones.
        writer.session_start(now(), step + 1)?;
        Ok(Self {
            csv: Csv::open(folder.join("metrics.csv"), step)?,
            lines: JsonLines::open(folder.join("metrics.jsonl"), step)?,
            events: writer,
            images,
        })
    }

    /// Writes the numbers of the step after which `step` steps are done.
    ///
    /// # Errors
    ///
    /// Files that can't be written.
    pub fn metrics(&mut self, step: u64, metrics: &Metrics) -> Result<(), RunError> {
        self.csv.write(step, metrics)?;
        self.lines.write(step, metrics)?;
        self.events.scalars(now(), step, metrics)
    }

    /// Writes pictures `[n, 3, h, w]` in [-1, 1] as one PNG, `columns` in a row: `images/NAME_STEP.png`.
    ///
    /// # Errors
    ///
    /// A file that can't be written.
    pub fn images(
        &mut self,
        step: u64,
        name: &str,
        pictures: Tensor<4>,
        columns: usize,
    ) -> Result<(), RunError> {
        let path = self.images.join(format!("{name}_{step:010}.png"));
        let picture = grid(pictures, columns);
        let bytes = png(&picture).map_err(|e| RunError::io(&path)(std::io::Error::other(e)))?;
        std::fs::write(&path, &bytes).map_err(RunError::io(&path))?;
        self.events.image(now(), step, name, [picture.width(), picture.height()], &bytes)
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

//! TensorBoard's event files: protocol buffers (`Event`, `Summary`) in TFRecord frames.
//!
//! Sources: tensorboard/compat/proto/event.proto and summary.proto, tensorflow/core/lib/io/record_writer.cc.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Metrics;
use crate::RunError;

/// Writes an event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Begins a file; times are seconds since 1970.
    ///
    /// # Errors
    ///
    /// A file that can't be made.
    pub fn create(path: &Path, time: f64) -> Result<Self, RunError> {
        let file = File::create(path).map_err(RunError::io(path))?;
        let mut writer = Self { path: path.into(), file };
        writer.event(time, 0, &bytes(3, b"brain.Event:2"))?;
        Ok(writer)
    }

    /// Says that a process begins at this step: TensorBoard then drops what an earlier one wrote of later steps.
    ///
    /// # Errors
    ///
    /// As for all events: a file that can't be written.
    pub fn session_start(&mut self, time: f64, step: u64) -> Result<(), RunError> {
        const START: u64 = 1;
        self.event(time, step, &bytes(7, &number(1, START)))
    }

    /// Named numbers of a step.
    ///
    /// # Errors
    ///
    /// A file that can't be written.
    pub fn scalars(&mut self, time: f64, step: u64, metrics: &Metrics) -> Result<(), RunError> {
        let summary: Vec<u8> = metrics
            .iter()
            .flat_map(|(name, value)| {
                let mut entry = bytes(1, name.as_bytes());
                entry.push(2 << 3 | FIXED_32);
                entry.extend((*value as f32).to_le_bytes());
                bytes(1, &entry)
            })
            .collect();
        self.event(time, step, &bytes(5, &summary))
    }

    /// A picture of `size` (`[width, height]`), as the bytes of a PNG file.
    ///
    /// # Errors
    ///
    /// A file that can't be written.
    pub fn image(
        &mut self,
        time: f64,
        step: u64,
        name: &str,
        size: [u32; 2],
        png: &[u8],
    ) -> Result<(), RunError> {
        const RGB: u64 = 3;
        let [width, height] = size.map(u64::from);
        let image = [number(1, height), number(2, width), number(3, RGB), bytes(4, png)].concat();
        let entry = [bytes(1, name.as_bytes()), bytes(4, &image)].concat();
        self.event(time, step, &bytes(5, &bytes(1, &entry)))
    }

    /// `Event { wall_time = 1, step = 2, what }` in a frame.
    fn event(&mut self, time: f64, step: u64, what: &[u8]) -> Result<(), RunError> {
        let mut event = vec![1 << 3 | FIXED_64];
        event.extend(time.to_le_bytes());
        if step > 0 {
            event.extend(number(2, step));
        }
        event.extend(what);
        let length = (event.len() as u64).to_le_bytes();
        let frame =
            [&length[..], &masked_crc(&length).to_le_bytes(), &event, &masked_crc(&event).to_le_bytes()];
        self.file.write_all(&frame.concat()).map_err(RunError::io(&self.path))
    }
}

/// Wire types of protocol buffers.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED_32: u8 = 5;

fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3 | VARINT], varint(value)].concat()
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    [vec![field << 3 | LENGTH], varint(value.len() as u64), value.to_vec()].concat()
}

/// The checksum of TFRecord: CRC-32C, rotated and shifted so that a checksum of checksums stays good.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

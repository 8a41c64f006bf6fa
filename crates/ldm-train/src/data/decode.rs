//! From a place in a file to a picture.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::{Location, Transform, View};

/// What reading one picture may take: sides, memory, file.
const LARGEST_SIDE: u32 = 16_384;
const LARGEST_ALLOCATION: u64 = 1 << 30;
const LARGEST_FILE: u64 = 1 << 30;

/// Reads pictures; keeps the last file open, as many pictures may lie in one.
#[derive(Debug, Default)]
pub(super) struct Reader {
    open: Option<(Arc<Path>, File)>,
}

impl Reader {
    /// The planes of one view of a picture; the error says what is wrong with it.
    pub fn planes(
        &mut self,
        place: &Location,
        transform: &Transform,
        view: View,
    ) -> Result<Vec<f32>, String> {
        let bytes = self.bytes(place).map_err(|e| e.to_string())?;
        // A decoder that panics on a broken file must not take the other pictures along.
        catch_unwind(AssertUnwindSafe(|| transform.apply(&decode(&bytes)?, view)))
            .unwrap_or_else(|_| Err("the decoder panicked".into()))
    }

    fn bytes(&mut self, place: &Location) -> std::io::Result<Vec<u8>> {
        let Some((offset, length)) = place.range else {
            let mut bytes = Vec::new();
            File::open(&place.file)?.take(LARGEST_FILE).read_to_end(&mut bytes)?;
            return Ok(bytes);
        };
        let mut file = match self.open.take() {
            Some((path, file)) if path == place.file => file,
            _ => File::open(&place.file)?,
        };
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        (&mut file).take(length.min(LARGEST_FILE)).read_to_end(&mut bytes)?;
        self.open = Some((place.file.clone(), file));
        Ok(bytes)
    }
}

/// Decodes a PNG, JPEG, WebP or BMP, whatever its name says, turned as its EXIF data asks.
pub(super) fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    let text = |e: image::ImageError| e.to_string();
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    if reader.format().is_none() {
        return Err("neither PNG, JPEG, WebP nor BMP".into());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(LARGEST_ALLOCATION);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(text)?;
    let orientation = decoder.orientation().map_err(text)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(text)?;
    picture.apply_orientation(orientation);
    if picture.width() == 0 || picture.height() == 0 {
        return Err("no pixels".into());
    }
    Ok(picture)
}

//! From a place in a file to a picture.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use ldm_conditioning::BoundingBox;

use super::jpeg::is_whole;
use super::{Item, Location, MapConfig, Transform, View};

/// What reading one picture may take: sides, memory, file.
const LARGEST_SIDE: u32 = 16_384;
const LARGEST_ALLOCATION: u64 = 1 << 30;
const LARGEST_FILE: u64 = 1 << 30;

/// What is made of one item.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// `[3, size, size]` in [-1, 1].
    pub planes: Vec<f32>,
    /// `[channels, side, side]`; empty without a second picture.
    pub map: Vec<f32>,
    /// The part of the picture that the planes show, before they are mirrored.
    pub crop: BoundingBox,
}

impl Default for Seen {
    fn default() -> Self {
        Self { planes: Vec::new(), map: Vec::new(), crop: BoundingBox::FULL }
    }
}

/// Reads pictures; keeps the last file open, as many pictures may lie in one.
#[derive(Debug, Default)]
pub(super) struct Reader {
    open: Option<(Arc<Path>, File)>,
}

impl Reader {
    /// One view of a picture, and of its second picture where there is one; the error says what is wrong with them.
    pub fn see(
        &mut self,
        item: &Item,
        transform: &Transform,
        map: &MapConfig,
        view: View,
    ) -> Result<Seen, String> {
        let bytes = self.bytes(&item.picture).map_err(|e| e.to_string())?;
        let second =
            item.map.as_ref().map(|place| self.bytes(place)).transpose().map_err(|e| e.to_string())?;
        let see = || {
            let picture = decode(&bytes)?;
            let (planes, crop) = transform.see(&picture, view)?;
            let map = match second {
                None => Vec::new(),
                Some(bytes) => {
                    let second = decode(&bytes).map_err(|e| format!("its second picture: {e}"))?;
                    map.apply(&second, transform, view, [picture.width(), picture.height()])?
                }
            };
            Ok(Seen { planes, map, crop })
        };
        // A decoder that panics on a broken file must not take the other pictures along.
        catch_unwind(AssertUnwindSafe(see)).unwrap_or_else(|_| Err("the decoder panicked".into()))
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
    if reader.format() == Some(ImageFormat::Jpeg) && !is_whole(bytes) {
        return Err("the JPEG is cut off".into());
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

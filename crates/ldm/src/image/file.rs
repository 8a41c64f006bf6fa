use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use image::{DynamicImage, ImageReader, Limits, RgbImage};

use crate::Error;

/// The widest or highest picture that is read: beyond it no model of this family can go.
const LARGEST_SIDE: u32 = 16_384;
/// What decoding one picture may allocate.
const LARGEST_ALLOCATION: u64 = 1 << 30;

/// Reads a PNG, JPEG, WebP or BMP, whatever its extension says.
///
/// # Errors
/// [`Error::Image`] names the file for one that is no picture, is broken, or is larger than 16384 a side.
pub fn open(path: &Path) -> Result<DynamicImage, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let error = |e: &dyn std::fmt::Display| Error::Image { path: path.into(), reason: e.to_string() };
    let mut reader = ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(Error::io(path))?;
    if reader.format().is_none() {
        return Err(error(&"neither PNG, JPEG, WebP nor BMP"));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(LARGEST_ALLOCATION);
    reader.limits(limits);
    reader.decode().map_err(|e| error(&e))
}

/// Writes a PNG that carries `parameters` (keyword, text) as UTF-8 text chunks.
///
/// The file is whole or absent: it is written beside its place and renamed.
///
/// # Errors
/// [`Error::Io`] or [`Error::Image`] names the file.
pub fn save_png(picture: &RgbImage, path: &Path, parameters: &[(&str, String)]) -> Result<(), Error> {
    let beside = path.with_extension("png.part");
    let file = File::create(&beside).map_err(Error::io(&beside))?;
    let written = encode(picture, BufWriter::new(file), parameters)
        .map_err(|e| Error::Image { path: path.into(), reason: e.to_string() })
        .and_then(|()| std::fs::rename(&beside, path).map_err(Error::io(path)));
    if written.is_err() {
        // The part file is of no use to anyone; failing to remove it changes nothing.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn encode(
    picture: &RgbImage,
    mut file: impl Write,
    parameters: &[(&str, String)],
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(&mut file, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in parameters {
        encoder.add_itxt_chunk((*keyword).to_string(), text.clone())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture.as_raw())?;
    writer.finish()?;
    file.flush()?;
    Ok(())
}

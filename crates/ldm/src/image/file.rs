use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader, ImageResult, Limits, RgbImage};

use crate::Error;

/// The widest or highest picture that is read: beyond it no model of this family can go.
const LARGEST_SIDE: u32 = 16_384;
/// What decoding one picture may allocate.
const LARGEST_ALLOCATION: u64 = 1 << 30;

/// Reads a PNG, JPEG, WebP or BMP, whatever its extension says, turned as its EXIF data asks: as diffusers' `load_image`
/// does, and viewers show it.
///
/// # Errors
/// [`Error::Image`] names the file for one that is no picture, is broken, or is larger than 16384 a side.
pub fn open(path: &Path) -> Result<DynamicImage, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let error = |e: &dyn std::fmt::Display| Error::Image { path: path.into(), reason: e.to_string() };
    let reader = ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(Error::io(path))?;
    if reader.format().is_none() {
        return Err(error(&"neither PNG, JPEG, WebP nor BMP"));
    }
    decode(reader).map_err(|e| error(&e))
}

fn decode(mut reader: ImageReader<BufReader<File>>) -> ImageResult<DynamicImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(LARGEST_ALLOCATION);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    // The pixels count too, which a decoder by itself leaves out.
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
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

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;

    use super::*;

    const W: u32 = 16;
    const H: u32 = 8;

    /// A JPEG of `W` x `H` pixels whose EXIF data says how it is to be turned.
    fn jpeg(orientation: Option<u8>) -> Vec<u8> {
        let picture =
            RgbImage::from_fn(W, H, |x, y| image::Rgb([x * 16, y * 32, 255 - x * y].map(|v| v as u8)));
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 100).encode_image(&picture).unwrap();
        if let Some(orientation) = orientation {
            // A TIFF header, and a directory of one entry: the tag, its type (a short), their number, the value.
            let mut exif = b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
            exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
            let length = [0, exif.len() as u8 + 2];
            // Behind the marker that every JPEG starts with.
            drop(bytes.splice(2..2, [&[0xff, 0xe1][..], &length, &exif].concat()));
        }
        bytes
    }

    /// As Pillow's `exif_transpose` turns them.
    #[test]
    fn pictures_are_turned_as_their_exif_data_asks() {
        let folder = tempfile::tempdir().unwrap();
        let read = |orientation| {
            let path = folder.path().join("photo.jpg");
            std::fs::write(&path, jpeg(orientation)).unwrap();
            open(&path).unwrap().to_rgb8()
        };
        let plain = read(None);
        assert_eq!(plain.dimensions(), (W, H));
        // Which pixel of the file comes to (x, y).
        type Source = fn(u32, u32) -> (u32, u32);
        let cases: [(u8, (u32, u32), Source); 9] = [
            (1, (W, H), |x, y| (x, y)),
            (2, (W, H), |x, y| (W - 1 - x, y)),
            (3, (W, H), |x, y| (W - 1 - x, H - 1 - y)),
            (4, (W, H), |x, y| (x, H - 1 - y)),
            (5, (H, W), |x, y| (y, x)),
            (6, (H, W), |x, y| (y, H - 1 - x)),
            (7, (H, W), |x, y| (W - 1 - y, H - 1 - x)),
            (8, (H, W), |x, y| (W - 1 - y, x)),
            // No orientation at all.
            (9, (W, H), |x, y| (x, y)),
        ];
        for (orientation, (w, h), source) in cases {
            let expected = RgbImage::from_fn(w, h, |x, y| {
                let (x, y) = source(x, y);
                *plain.get_pixel(x, y)
            });
            assert!(read(Some(orientation)) == expected, "{orientation}");
            assert_eq!(expected == plain, [1, 9].contains(&orientation), "{orientation}");
        }
    }
}

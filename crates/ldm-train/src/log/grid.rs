use std::io::Cursor;

use burn::tensor::{DType, Tensor};
use image::{ImageError, ImageFormat, Rgb, RgbImage};

/// White between the pictures, in pixels.
const GAP: usize = 2;

/// Pictures `[n, 3, h, w]` in [-1, 1] as one, `columns` in a row (the last row may be shorter).
pub fn grid(pictures: Tensor<4>, columns: usize) -> RgbImage {
    let [n, channels, h, w] = pictures.dims();
    let columns = columns.clamp(1, n.max(1));
    let rows = n.div_ceil(columns).max(1);
    let values: Vec<f32> = pictures.inner().cast(DType::F32).into_data().iter::<f32>().collect();
    let side = |count: usize, length: usize| (count * (length + GAP) + GAP) as u32;
    let mut sheet = RgbImage::from_pixel(side(columns, w), side(rows, h), Rgb([255; 3]));
    for i in 0..n {
        let (left, top) = (GAP + i % columns * (w + GAP), GAP + i / columns * (h + GAP));
        for y in 0..h {
            for x in 0..w {
                let pixel = [0, 1, 2].map(|c| {
                    let value = values[((i * channels + c.min(channels - 1)) * h + y) * w + x];
                    ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
                });
                sheet.put_pixel((left + x) as u32, (top + y) as u32, Rgb(pixel));
            }
        }
    }
    sheet
}

/// A picture as the bytes of a PNG file.
///
/// # Errors
///
/// None that is known: the encoder's own.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

//! Pictures in 8 bits.

use std::borrow::Cow;

use image::{DynamicImage, ImageBuffer, Pixel};

/// A picture of 16 bits by the upper eight of each, alpha's too, as Pillow reads colours; any other as it is. (`image`
/// itself rounds. `ldm::image::to_rgb8` does as this does, and the fixture `pictures` holds both.)
pub(crate) fn upper_bytes(picture: &DynamicImage) -> Cow<'_, DynamicImage> {
    Cow::Owned(match picture {
        DynamicImage::ImageLuma16(deep) => DynamicImage::ImageLuma8(upper(deep)),
        DynamicImage::ImageLumaA16(deep) => DynamicImage::ImageLumaA8(upper(deep)),
        DynamicImage::ImageRgb16(deep) => DynamicImage::ImageRgb8(upper(deep)),
        DynamicImage::ImageRgba16(deep) => DynamicImage::ImageRgba8(upper(deep)),
        flat => return Cow::Borrowed(flat),
    })
}

fn upper<P, Q>(deep: &ImageBuffer<P, Vec<u16>>) -> ImageBuffer<Q, Vec<u8>>
where
    P: Pixel<Subpixel = u16>,
    Q: Pixel<Subpixel = u8>,
{
    let bytes = deep.as_raw().iter().map(|v| (v >> 8) as u8).collect();
    // Both pixels have as many channels, so the bytes are never too few.
    ImageBuffer::from_raw(deep.width(), deep.height(), bytes).unwrap_or_default()
}

//! Lanczos with Pillow's fixed-point arithmetic: diffusers resizes with Pillow, and one seed must give one picture.

use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer, images::Image};
use image::RgbImage;

use super::Mask;
use crate::Error;

/// Resizes to exactly `width` x `height`, without keeping the aspect ratio.
///
/// # Errors
/// [`Error::Argument`] where a side is zero.
pub fn resize(picture: &RgbImage, width: u32, height: u32) -> Result<RgbImage, Error> {
    if picture.dimensions() == (width, height) {
        return Ok(picture.clone());
    }
    let pixels = lanczos(picture.as_raw().clone(), picture.dimensions(), (width, height), PixelType::U8x3)?;
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| Error::argument("size", "too large"))
}

/// Resizes a mask to exactly `width` x `height`; it is split at half afterwards.
///
/// # Errors
/// [`Error::Argument`] where a side is zero.
pub fn resize_mask(mask: &Mask, width: u32, height: u32) -> Result<Mask, Error> {
    if mask.dimensions() == (width, height) {
        return Ok(mask.clone());
    }
    let luma = lanczos(mask.luma.clone(), mask.dimensions(), (width, height), PixelType::U8)?;
    Ok(Mask::from_luma(luma, width, height))
}

fn lanczos(pixels: Vec<u8>, from: (u32, u32), to: (u32, u32), kind: PixelType) -> Result<Vec<u8>, Error> {
    let error = |e: String| Error::argument("size", format!("can't resize {from:?} to {to:?}: {e}"));
    if from.0 == 0 || from.1 == 0 || to.0 == 0 || to.1 == 0 {
        return Err(error("a side is zero".into()));
    }
    let source = Image::from_vec_u8(from.0, from.1, pixels, kind).map_err(|e| error(e.to_string()))?;
    let mut target = Image::new(to.0, to.1, kind);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new().resize(&source, &mut target, &options).map_err(|e| error(e.to_string()))?;
    Ok(target.into_vec())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::Fixture;

    use super::*;

    #[test]
    fn pictures_and_masks_come_out_as_pillow_makes_them() {
        let fixture = Fixture::open("resize");
        let sizes: Vec<[u32; 4]> = serde_json::from_value(fixture.json("sizes")).unwrap();
        let pixels = |key: &str| -> Vec<u8> {
            fixture.tensor::<3>(key, &Device::default()).to_data().iter::<f32>().map(|v| v as u8).collect()
        };
        let mut compared = 0;
        for (i, [w, h, to_w, to_h]) in sizes.into_iter().enumerate() {
            let picture = RgbImage::from_raw(w, h, pixels(&format!("RGB{i}.from"))).unwrap();
            let resized = resize(&picture, to_w, to_h).unwrap().into_raw();
            assert_eq!(resized, pixels(&format!("RGB{i}.to")), "picture {i}");
            let mask = Mask::from_luma(pixels(&format!("L{i}.from")), w, h);
            let resized = resize_mask(&mask, to_w, to_h).unwrap();
            assert_eq!(resized.luma, pixels(&format!("L{i}.to")), "mask {i}");
            compared += resized.luma.len();
        }
        assert!(compared > 10_000);
    }

    #[test]
    fn no_side_may_be_zero() {
        let picture = RgbImage::new(3, 3);
        assert!(resize(&picture, 0, 8).unwrap_err().to_string().contains("zero"));
    }
}

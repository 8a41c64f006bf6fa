//! What JPEG does to a picture, without the file: colour transform, chroma at half size, cosine transform, rounding.
//!
//! The entropy coding between is lossless, so it is left out. With libjpeg's own integer arithmetic and sampling the
//! result is OpenCV's.

mod colour;
mod cosine;
mod plane;
mod tables;

use image::RgbImage;

use colour::{join, split};

/// The picture as a JPEG of `quality` (1 to 100, cut off there) gives it back: baseline, 4:2:0.
///
/// Source: `add_JPEG_noise`, which is OpenCV's `imencode` and `imdecode` (libjpeg-turbo, integer transform, smooth
/// enlarging of chroma).
pub fn compressed(picture: &RgbImage, quality: u8) -> RgbImage {
    let (w, h) = picture.dimensions();
    if w == 0 || h == 0 {
        return picture.clone();
    }
    let [y, cb, cr] = split(picture);
    let [luma, chroma] = tables::quantisation(quality);
    let [cb, cr] = [cb, cr].map(|plane| plane.halved().coded(&chroma).doubled(w as usize, h as usize));
    join(&y.coded(&luma), &cb, &cr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_quality_keeps_grey_and_the_worst_does_not() {
        let picture = RgbImage::from_fn(19, 21, |x, y| image::Rgb([(x * 11 + y * 3) as u8; 3]));
        let worst = |quality| {
            let coded = compressed(&picture, quality);
            assert_eq!(coded.dimensions(), picture.dimensions());
            coded.iter().zip(picture.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
        };
        assert!(worst(100) <= 2, "{}", worst(100));
        assert!(worst(1) > 20, "{}", worst(1));
        assert_eq!(compressed(&RgbImage::new(0, 3), 50).dimensions(), (0, 3));
    }
}

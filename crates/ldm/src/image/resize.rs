//! Lanczos with Pillow's fixed-point arithmetic: diffusers resizes with Pillow, and one seed must give one picture.
//!
//! Source: Pillow, src/libImaging/Resample.c.

use std::f64::consts::PI;
use std::ops::Range;

use image::RgbImage;

use super::Mask;
use crate::Error;

/// Half the filter's width, in pixels of the smaller picture.
const LOBES: f64 = 3.0;
/// Fraction bits of a coefficient: 8 bits of a pixel and 2 of headroom are left of 32.
const PRECISION: u32 = 22;

/// Resizes to exactly `width` x `height`, without keeping the aspect ratio.
///
/// # Errors
/// [`Error::Argument`] where a side is zero.
pub fn resize(picture: &RgbImage, width: u32, height: u32) -> Result<RgbImage, Error> {
    let pixels = lanczos(picture.as_raw(), 3, picture.dimensions(), (width, height))?;
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| Error::argument("size", "too large"))
}

/// Resizes a mask to exactly `width` x `height`; it is split at half afterwards.
///
/// # Errors
/// [`Error::Argument`] where a side is zero.
pub fn resize_mask(mask: &Mask, width: u32, height: u32) -> Result<Mask, Error> {
    let luma = lanczos(&mask.luma, 1, mask.dimensions(), (width, height))?;
    Ok(Mask::from_luma(luma, width, height))
}

/// Rows first, then columns; each pass rounds to 8 bits.
///
/// Pillow 13.0 turns the passes round for some pictures that are taller than wide and become lower: there it differs by
/// 2 of 255 here and there.
fn lanczos(pixels: &[u8], channels: usize, from: (u32, u32), to: (u32, u32)) -> Result<Vec<u8>, Error> {
    if [from.0, from.1, to.0, to.1].contains(&0) {
        return Err(Error::argument("size", format!("can't resize {from:?} to {to:?}: a side is zero")));
    }
    let (w, h) = (from.0 as usize, from.1 as usize);
    let (to_w, to_h) = (to.0 as usize, to.1 as usize);
    let rows = along(pixels, w, channels, to_w);
    Ok(along(&rows, h, to_w * channels, to_h))
}

/// Resizes the middle axis of `[outer, n, inner]` to `to`.
fn along(pixels: &[u8], n: usize, inner: usize, to: usize) -> Vec<u8> {
    if n == to {
        return pixels.to_vec();
    }
    let taps: Vec<_> = (0..to).map(|i| taps(i, n, to)).collect();
    let mut out = Vec::with_capacity(pixels.len() / n * to);
    let mut sums = vec![0i64; inner];
    for slab in pixels.chunks_exact(n * inner) {
        for (range, coefficients) in &taps {
            sums.fill(1 << (PRECISION - 1));
            for (line, k) in
                slab[range.start * inner..range.end * inner].chunks_exact(inner).zip(coefficients)
            {
                for (sum, v) in sums.iter_mut().zip(line) {
                    *sum += i64::from(*v) * k;
                }
            }
            out.extend(sums.iter().map(|sum| (sum >> PRECISION).clamp(0, 255) as u8));
        }
    }
    out
}

/// Which of the `n` pixels make pixel `i` of `to`, and how much of each.
fn taps(i: usize, n: usize, to: usize) -> (Range<usize>, Vec<i64>) {
    let scale = n as f64 / to as f64;
    // A larger picture is interpolated, a smaller one averaged.
    let width = scale.max(1.0);
    let center = (i as f64 + 0.5) * scale;
    let reach = LOBES * width;
    let start = (center - reach + 0.5).max(0.0) as usize;
    let end = ((center + reach + 0.5) as usize).min(n);
    let weights: Vec<f64> = (start..end).map(|x| filter((x as f64 - center + 0.5) / width)).collect();
    let total: f64 = weights.iter().sum();
    let fixed = |w: f64| (w / total * f64::from(1u32 << PRECISION)).round() as i64;
    (start..end, weights.into_iter().map(fixed).collect())
}

/// `sinc(x) sinc(x / 3)` within three pixels.
fn filter(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    if (-LOBES..LOBES).contains(&x) { sinc(x) * sinc(x / LOBES) } else { 0.0 }
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

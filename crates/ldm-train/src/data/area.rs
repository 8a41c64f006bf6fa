//! OpenCV's `INTER_AREA` of 8-bit pictures, byte for byte. (`ldm::degradation::resize` has that of f32 ones, which rounds nothing.)
//!
//! Source: `cv::resize` (modules/imgproc/src/resize.cpp).

use std::iter::Sum;
use std::ops::Mul;

use image::RgbImage;

/// The source pixels that make one pixel of an axis, and how much of each.
type Taps<T> = Vec<(usize, T)>;

/// Fraction bits of a share, where a side grows.
const BITS: u32 = 11;

/// Resizes to `width` x `height`, which are at least 1. Where neither side grows, a pixel is the mean of the area that it
/// covers; else a linear ramp between whole pixels.
pub(super) fn resize(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let [w, h] = [picture.width() as usize, picture.height() as usize];
    let [to_w, to_h] = [width as usize, height as usize];
    let source = picture.as_raw();
    let pixels = if w < to_w || h < to_h {
        ramps(source, [w, h], [to_w, to_h])
    } else if w.is_multiple_of(to_w) && h.is_multiple_of(to_h) {
        blocks(source, w, [to_w, to_h], [w / to_w, h / to_h])
    } else {
        means(source, [w, h], [to_w, to_h])
    };
    RgbImage::from_raw(width, height, pixels).unwrap_or_default()
}

/// Means of blocks of whole pixels.
fn blocks(source: &[u8], w: usize, [to_w, to_h]: [usize; 2], [wide, high]: [usize; 2]) -> Vec<u8> {
    let share = 1.0 / (wide * high) as f32;
    let mean = |sum: u32| match [wide, high] {
        // For these alone OpenCV rounds halves up; else to even.
        [2, 2] => ((sum + 2) >> 2) as u8,
        _ => (sum as f32 * share).round_ties_even() as u8,
    };
    let mut sums = vec![0u32; 3 * to_w * to_h];
    for (y, line) in source.chunks_exact(3 * w).enumerate() {
        let sums = &mut sums[3 * to_w * (y / high)..][..3 * to_w];
        for (x, pixel) in line.chunks_exact(3).enumerate() {
            let sums = &mut sums[3 * (x / wide)..][..3];
            sums.iter_mut().zip(pixel).for_each(|(sum, v)| *sum += u32::from(*v));
        }
    }
    sums.into_iter().map(mean).collect()
}

/// Means of areas whose edges lie within pixels.
fn means(source: &[u8], [w, h]: [usize; 2], [to_w, to_h]: [usize; 2]) -> Vec<u8> {
    let taps = |from: usize, to: usize| (0..to).map(|i| covered(i, from, to)).collect::<Vec<_>>();
    let narrow = across(source, w, &taps(w, to_w));
    down(&narrow, 3 * to_w, &taps(h, to_h), |v, k| v * k, |sum: f32| sum.round_ties_even() as u8)
}

fn ramps(source: &[u8], [w, h]: [usize; 2], [to_w, to_h]: [usize; 2]) -> Vec<u8> {
    let taps = |from: usize, to: usize| (0..to).map(|i| ramp(i, from, to)).collect::<Vec<_>>();
    let narrow: Vec<i32> = across(source, w, &taps(w, to_w));
    // Bits are dropped on the way, as OpenCV multiplies numbers of 16.
    let part = |v: i32, k: i32| ((v >> 4) * k) >> 16;
    down(&narrow, 3 * to_w, &taps(h, to_h), part, |sum: i32| ((sum + 2) >> 2).clamp(0, 255) as u8)
}

/// Each line of three channels, resized.
fn across<T: Copy + From<u8> + Mul<Output = T> + Sum>(
    source: &[u8],
    w: usize,
    columns: &[Taps<T>],
) -> Vec<T> {
    let mut narrow = Vec::with_capacity(source.len() / w * columns.len());
    for line in source.chunks_exact(3 * w) {
        for taps in columns {
            narrow.extend((0..3).map(|c| taps.iter().map(|(x, k)| T::from(line[3 * x + c]) * *k).sum::<T>()));
        }
    }
    narrow
}

/// Each column of lines of `line` values, resized.
fn down<T: Copy + Sum>(
    narrow: &[T],
    line: usize,
    rows: &[Taps<T>],
    part: impl Fn(T, T) -> T,
    byte: impl Fn(T) -> u8,
) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(line * rows.len());
    for taps in rows {
        let value = |i: usize| taps.iter().map(|(y, k)| part(narrow[y * line + i], *k)).sum::<T>();
        pixels.extend((0..line).map(|i| byte(value(i))));
    }
    pixels
}

/// The pixels that pixel `i` of `to` covers, by their shares of it.
fn covered(i: usize, from: usize, to: usize) -> Taps<f32> {
    const LEAST: f64 = 1e-3;
    let scale = 1.0 / (to as f64 / from as f64);
    let start = i as f64 * scale;
    let end = start + scale;
    let cell = scale.min(from as f64 - start);
    let last = (end.floor() as usize).min(from - 1);
    let first = (start.ceil() as usize).min(last);
    let mut taps = Vec::with_capacity(last - first + 2);
    if first as f64 - start > LEAST {
        taps.push((first - 1, ((first as f64 - start) / cell) as f32));
    }
    taps.extend((first..last).map(|x| (x, (1.0 / cell) as f32)));
    if end - last as f64 > LEAST {
        taps.push((last, ((end - last as f64).min(1.0).min(cell) / cell) as f32));
    }
    taps
}

/// Where a side grows: the share of the next pixel only rises over the part that reaches into it.
fn ramp(i: usize, from: usize, to: usize) -> Taps<i32> {
    let inverse = to as f64 / from as f64;
    let low = (i as f64 * (1.0 / inverse)).floor();
    let t = ((i as f64 + 1.0) - (low + 1.0) * inverse) as f32;
    let t = if t <= 0.0 { 0.0 } else { t - t.floor() };
    let fixed = |k: f32| (k * (1 << BITS) as f32).round_ties_even() as i32;
    let last = from - 1;
    let low = low as usize;
    vec![(low.min(last), fixed(1.0 - t)), ((low + 1).min(last), fixed(t))]
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// One channel of a grey picture, resized.
    fn resized(w: u32, h: u32, grey: &[u8], to: (u32, u32)) -> Vec<u8> {
        let picture = RgbImage::from_fn(w, h, |x, y| Rgb([grey[(y * w + x) as usize]; 3]));
        let resized = resize(&picture, to.0, to.1);
        assert_eq!(resized.dimensions(), to);
        assert!(resized.pixels().all(|p| p.0 == [p.0[0]; 3]));
        resized.pixels().map(|p| p.0[0]).collect()
    }

    /// A pixel one and a half wide and high: a corner whole, halves of its neighbours, a quarter of the middle.
    #[test]
    fn a_smaller_picture_is_the_mean_of_what_its_pixels_cover() {
        let grey = [0, 90, 180, 30, 120, 210, 60, 150, 240];
        let corner = |whole: u32, a: u32, b: u32| ((4 * whole + 2 * a + 2 * b + 120) / 9) as u8;
        let expected = [corner(0, 90, 30), corner(180, 90, 210), corner(60, 150, 30), corner(240, 150, 210)];
        assert_eq!(expected, [40, 160, 80, 200]);
        assert_eq!(resized(3, 3, &grey, (2, 2)), expected);
    }

    #[test]
    fn whole_pixels_are_averaged_and_halves_rounded_as_opencv_rounds_them() {
        assert_eq!(resized(2, 2, &[0, 1, 1, 0], (1, 1)), [1]);
        assert_eq!(resized(4, 1, &[0, 1, 1, 2], (2, 1)), [0, 2]);
        assert_eq!(resized(3, 3, &[10, 20, 30, 40, 50, 60, 70, 80, 90], (1, 1)), [50]);
    }

    #[test]
    fn a_larger_picture_keeps_whole_pixels() {
        assert_eq!(resized(2, 1, &[0, 100], (3, 1)), [0, 50, 100]);
        assert_eq!(resized(2, 1, &[0, 100], (4, 2)), [0, 0, 100, 100, 0, 0, 100, 100]);
    }

    /// What OpenCV 5.0 makes of one picture: smaller, larger, and wider but lower.
    #[test]
    fn pictures_are_resized_as_opencv_resizes_them() {
        let grey: Vec<u8> =
            (0..35).map(|i| (i % 7, i / 7)).map(|(x, y)| (x * x * 37 + y * 91 + x * y * 13) as u8).collect();
        let smaller = [54, 101, 132, 118, 158, 137, 153, 146, 108, 152, 152, 108];
        assert_eq!(resized(7, 5, &grey, (4, 3)), smaller);
        let larger = [
            0, 26, 85, 138, 77, 80, 124, 127, 52, 36, 66, 85, 97, 129, 136, 126, 118, 119, 91, 127, 84, 37,
            207, 221, 128, 104, 221, 164, 207, 172, 103, 106, 129, 161, 173, 151, 149, 196, 186, 143, 107,
            134, 170, 171, 116, 17, 71, 157, 238, 211, 247, 173, 94, 47, 72, 131, 157, 156, 135, 178, 109,
            80, 148, 108, 172, 157, 101, 85, 132, 67, 71, 216,
        ];
        assert_eq!(resized(7, 5, &grey, (9, 8)), larger);
        let lower = [
            18, 52, 102, 110, 105, 117, 130, 86, 127, 175, 92, 113, 166, 161, 129, 186, 83, 144, 184, 175,
            175, 184, 143, 82, 90, 164, 144, 119, 133, 125, 54, 182,
        ];
        assert_eq!(resized(7, 5, &grey, (8, 4)), lower);
    }
}

//! OpenCV's `resize` of f32 pictures: bilinear, bicubic, by area.

use image::Rgb32FImage;

/// How a pixel is made of those around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// `INTER_LINEAR`: no antialiasing.
    Linear,
    /// `INTER_CUBIC`: a = -0.75, no antialiasing.
    Cubic,
    /// `INTER_AREA`: the mean of the area that a pixel covers; enlarging, a linear ramp between whole pixels.
    Area,
}

/// For each pixel of one axis: the source pixels that make it, and how much of each.
type Taps = Vec<Vec<(usize, f32)>>;

/// Resizes to `(width, height)`, which are at least 1.
///
/// Source: `cv::resize` (modules/imgproc/src/resize.cpp).
pub fn resize(picture: &Rgb32FImage, size: (u32, u32), interpolation: Interpolation) -> Rgb32FImage {
    let (w, h) = picture.dimensions();
    if (w, h) == size {
        return picture.clone();
    }
    let (to_w, to_h) = (size.0.max(1) as usize, size.1.max(1) as usize);
    let (w, h) = (w as usize, h as usize);
    // An area is averaged only where neither side grows.
    let shrinks = w >= to_w && h >= to_h;
    let taps = |from: usize, to: usize| -> Taps {
        match interpolation {
            Interpolation::Area if shrinks => (0..to).map(|i| area(i, from, to)).collect(),
            Interpolation::Area => (0..to).map(|i| ramp(i, from, to)).collect(),
            Interpolation::Linear => (0..to).map(|i| linear(i, from, to)).collect(),
            Interpolation::Cubic => (0..to).map(|i| cubic(i, from, to)).collect(),
        }
    };
    let (columns, rows) = (taps(w, to_w), taps(h, to_h));
    let source = picture.as_raw();
    let mut narrow = Vec::with_capacity(h * to_w * 3);
    for line in source.chunks_exact(w * 3) {
        for taps in &columns {
            narrow.extend((0..3).map(|c| taps.iter().map(|(x, k)| line[x * 3 + c] * k).sum::<f32>()));
        }
    }
    let line = to_w * 3;
    let mut resized = vec![0f32; to_h * line];
    for (out, taps) in resized.chunks_exact_mut(line).zip(&rows) {
        for (y, k) in taps {
            let source = &narrow[y * line..(y + 1) * line];
            out.iter_mut().zip(source).for_each(|(out, v)| *out += v * k);
        }
    }
    Rgb32FImage::from_raw(to_w as u32, to_h as u32, resized).unwrap_or_default()
}

/// Where the middle of pixel `i` lies: the whole pixel below, and the way on to the next, in f32 as OpenCV has it.
fn middle(i: usize, from: usize, to: usize) -> (isize, f32) {
    let scale = 1.0 / (to as f64 / from as f64);
    let x = ((i as f64 + 0.5) * scale - 0.5) as f32;
    let low = x.floor();
    (low as isize, x - low)
}

fn clamped(i: isize, n: usize) -> usize {
    i.clamp(0, n as isize - 1) as usize
}

fn between(low: isize, t: f32, n: usize) -> Vec<(usize, f32)> {
    vec![(clamped(low, n), 1.0 - t), (clamped(low + 1, n), t)]
}

fn linear(i: usize, from: usize, to: usize) -> Vec<(usize, f32)> {
    let (low, t) = middle(i, from, to);
    between(low, t, from)
}

fn cubic(i: usize, from: usize, to: usize) -> Vec<(usize, f32)> {
    const A: f32 = -0.75;
    let (low, t) = middle(i, from, to);
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let (a, b, c) = (far(t + 1.0), near(t), near(1.0 - t));
    let weights = [a, b, c, 1.0 - a - b - c];
    (low - 1..).zip(weights).map(|(x, k)| (clamped(x, from), k)).collect()
}

/// Area, where a side grows: the share of the next pixel only rises over the part that reaches into it.
fn ramp(i: usize, from: usize, to: usize) -> Vec<(usize, f32)> {
    let inverse = to as f64 / from as f64;
    let low = (i as f64 * (1.0 / inverse)).floor();
    let t = ((i as f64 + 1.0) - (low + 1.0) * inverse) as f32;
    let t = if t <= 0.0 { 0.0 } else { t - t.floor() };
    between(low as isize, t, from)
}

fn area(i: usize, from: usize, to: usize) -> Vec<(usize, f32)> {
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

//! Convolution and decimation.

use image::Rgb32FImage;
use rayon::prelude::*;

use super::Kernel;

/// Convolves each channel with `kernel`, in f64, the picture mirrored at its edges (the edge itself not repeated). A
/// kernel of even size has its middle right below the centre.
///
/// Source: `scipy.ndimage.convolve(..., mode="mirror")`, as `add_blur` calls it.
pub fn blur(picture: &Rgb32FImage, kernel: &Kernel) -> Rgb32FImage {
    let (w, h) = picture.dimensions();
    let (width, height, size) = (w as usize, h as usize, kernel.size());
    let source = picture.as_raw();
    // The kernel runs against the picture: pixel `x + size / 2 - k` meets weight `k`.
    let taps = |n: usize| -> Vec<Vec<usize>> {
        let tap = |i: usize, k: usize| mirrored(i as isize + (size / 2) as isize - k as isize, n);
        (0..n).map(|i| (0..size).map(|k| tap(i, k)).collect()).collect()
    };
    let (columns, rows) = (taps(width), taps(height));
    let mut blurred = vec![0f32; source.len()];
    blurred.par_chunks_mut(width * 3).zip(&rows).for_each(|(line, rows)| {
        for (pixel, columns) in line.chunks_exact_mut(3).zip(&columns) {
            let mut sum = [0f64; 3];
            for (row, weights) in rows.iter().zip(kernel.weights().chunks_exact(size)) {
                for (column, weight) in columns.iter().zip(weights) {
                    let at = (row * width + column) * 3;
                    for (sum, v) in sum.iter_mut().zip(&source[at..at + 3]) {
                        *sum += weight * f64::from(*v);
                    }
                }
            }
            for (pixel, sum) in pixel.iter_mut().zip(sum) {
                *pixel = sum as f32;
            }
        }
    });
    Rgb32FImage::from_raw(w, h, blurred).unwrap_or_default()
}

/// Index `i` of an axis of `n`, mirrored as often as needed: `d c b | a b c d | c b a`.
fn mirrored(i: isize, n: usize) -> usize {
    let last = n as isize - 1;
    if last == 0 {
        return 0;
    }
    let i = i.rem_euclid(2 * last);
    (if i > last { 2 * last - i } else { i }) as usize
}

/// Every `sf`-th pixel each way, the first one first. `sf` is at least 1.
pub fn decimate(picture: &Rgb32FImage, sf: usize) -> Rgb32FImage {
    let sf = sf.max(1) as u32;
    let (w, h) = picture.dimensions();
    Rgb32FImage::from_fn(w.div_ceil(sf), h.div_ceil(sf), |x, y| *picture.get_pixel(x * sf, y * sf))
}

//! MATLAB's bicubic `imresize`, with antialiasing.

use image::Rgb32FImage;

/// Scales both sides by `scale` (above 0), rounded up.
///
/// Source: `imresize_np` in the reference's `utils_image.py`.
pub fn imresize(picture: &Rgb32FImage, scale: f64) -> Rgb32FImage {
    let (w, h) = picture.dimensions();
    let side = |n: u32| ((f64::from(n) * scale).ceil() as u32).max(1);
    let (to_w, to_h) = (side(w), side(h));
    let (rows, columns) = (taps(h as usize, to_h as usize, scale), taps(w as usize, to_w as usize, scale));
    let (source, line) = (picture.as_raw(), w as usize * 3);
    let mut low = vec![0f32; to_h as usize * line];
    for (out, taps) in low.chunks_exact_mut(line).zip(&rows) {
        for (y, k) in taps {
            out.iter_mut().zip(&source[y * line..]).for_each(|(out, v)| *out += v * k);
        }
    }
    let mut resized = Vec::with_capacity((to_w * to_h * 3) as usize);
    for line in low.chunks_exact(line) {
        for taps in &columns {
            resized.extend((0..3).map(|c| taps.iter().map(|(x, k)| line[x * 3 + c] * k).sum::<f32>()));
        }
    }
    Rgb32FImage::from_raw(to_w, to_h, resized).unwrap_or_default()
}

/// For each of `to` pixels: which of the `from` make it, mirrored with the edge repeated, and how much of each.
fn taps(from: usize, to: usize, scale: f64) -> Vec<Vec<(usize, f32)>> {
    // Below 1 the kernel is as much wider as the picture gets smaller.
    let stretch = scale.min(1.0);
    let reach = 2.0 / stretch;
    let mirror = |i: isize| {
        let n = from as isize;
        let i = i.rem_euclid(2 * n);
        (if i < n { i } else { 2 * n - 1 - i }) as usize
    };
    (0..to)
        .map(|i| {
            let centre = (i as f64 + 0.5) / scale - 0.5;
            let range = (centre - reach).floor() as isize..=(centre + reach).ceil() as isize;
            let weights: Vec<_> = range
                .map(|x| (mirror(x), cubic((centre - x as f64) * stretch)))
                .filter(|t| t.1 != 0.0)
                .collect();
            let sum: f64 = weights.iter().map(|t| t.1).sum();
            weights.into_iter().map(|(x, k)| (x, (k / sum) as f32)).collect()
        })
        .collect()
}

/// Keys' kernel, a = -0.5.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    match x {
        x if x <= 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x <= 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

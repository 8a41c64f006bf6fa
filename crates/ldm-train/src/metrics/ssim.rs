use burn::tensor::Tensor;
use rayon::prelude::*;

use super::MetricError;
use super::psnr::pair;

/// Taps of the Gaussian window, and its deviation in pixels.
const TAPS: usize = 11;
const SIGMA: f64 = 1.5;

/// Structural similarity of each pair of pictures, 1 for equal ones: the mean over channels and over all places where
/// the 11 x 11 Gaussian window lies inside.
///
/// `a` and `b`: `[n, c, h, w]` in [-1, 1], sides of 11 or more. torchmetrics (1.9) has the same window and counts the
/// borders too, with the pictures reflected beyond them. Sources: Wang et al. 2004; `structural_similarity` of
/// scikit-image with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`.
///
/// # Errors
/// Shapes that differ; a side below 11.
pub fn ssim(a: Tensor<4>, b: Tensor<4>) -> Result<Vec<f64>, MetricError> {
    let [_, channels, h, w] = a.dims();
    let (a, b, size) = pair(a, b)?;
    if h.min(w) < TAPS {
        return Err(MetricError::TooFew { what: "pixels a side for SSIM", got: h.min(w), needed: TAPS });
    }
    let one = |(a, b): (&[f32], &[f32])| {
        let planes = a.chunks(h * w).zip(b.chunks(h * w));
        planes.map(|(a, b)| plane(a, b, w)).sum::<f64>() / channels as f64
    };
    Ok(a.par_chunks(size).zip(b.par_chunks(size)).map(one).collect())
}

/// The mean similarity of two planes of width `w`.
fn plane(a: &[f32], b: &[f32], w: usize) -> f64 {
    // The constants of the definition are for values in [0, 1].
    let unit = |v: &[f32]| v.iter().map(|v| (f64::from(*v) + 1.0) / 2.0).collect::<Vec<_>>();
    let (a, b) = (unit(a), unit(b));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>();
    let [mean_a, mean_b, aa, bb, ab] =
        [a.clone(), b.clone(), product(&a, &a), product(&b, &b), product(&a, &b)].map(|v| blur(&v, w));
    let (c1, c2) = (0.01f64.powi(2), 0.03f64.powi(2));
    let similarity = |i: usize| {
        let (ma, mb) = (mean_a[i], mean_b[i]);
        let (va, vb, cov) = (aa[i] - ma * ma, bb[i] - mb * mb, ab[i] - ma * mb);
        (2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    };
    (0..mean_a.len()).map(similarity).sum::<f64>() / mean_a.len() as f64
}

/// Gaussian means at every place where the window lies inside the plane.
fn blur(plane: &[f64], w: usize) -> Vec<f64> {
    let half = (TAPS / 2) as f64;
    let weights: Vec<f64> = (0..TAPS).map(|i| (-((i as f64 - half) / SIGMA).powi(2) / 2.0).exp()).collect();
    let total: f64 = weights.iter().sum();
    let dot =
        |at: &dyn Fn(usize) -> f64| weights.iter().enumerate().map(|(i, k)| k * at(i)).sum::<f64>() / total;
    let out = w - TAPS + 1;
    let rows: Vec<f64> =
        plane.chunks(w).flat_map(|row| (0..out).map(|x| dot(&|i| row[x + i])).collect::<Vec<_>>()).collect();
    let h = plane.len() / w;
    (0..h - TAPS + 1)
        .flat_map(|y| (0..out).map(|x| dot(&|i| rows[(y + i) * out + x])).collect::<Vec<_>>())
        .collect()
}

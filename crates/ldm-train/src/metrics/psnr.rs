use burn::tensor::Tensor;

use super::MetricError;
use super::features::values;

/// Peak signal-to-noise ratio in dB of each pair of pictures; infinite for equal ones.
///
/// `a` and `b`: `[n, c, h, w]` in [-1, 1] (so the peak is 2). As `peak_signal_noise_ratio` of scikit-image. The figure
/// of a set is usually the mean over its pictures.
///
/// # Errors
/// Shapes that differ.
pub fn psnr(a: Tensor<4>, b: Tensor<4>) -> Result<Vec<f64>, MetricError> {
    let (a, b, size) = pair(a, b)?;
    let one = |(a, b): (&[f32], &[f32])| {
        let square = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
        10.0 * (4.0 / (square.sum::<f64>() / size as f64)).log10()
    };
    Ok(a.chunks(size).zip(b.chunks(size)).map(one).collect())
}

/// The values of two batches of one shape, and how many a picture has.
pub(super) fn pair(a: Tensor<4>, b: Tensor<4>) -> Result<(Vec<f32>, Vec<f32>, usize), MetricError> {
    let (left, right) = (a.dims().to_vec(), b.dims().to_vec());
    let size: usize = left[1..].iter().product();
    if left != right || size == 0 {
        return Err(MetricError::Shapes { what: "pictures", left, right });
    }
    Ok((values(a)?, values(b)?, size))
}

//! Noise: Gaussian in three kinds, speckle, Poisson.

use std::ops::RangeInclusive;

use image::Rgb32FImage;

use super::draws::Draws;

/// How the three channels of a pixel's Gaussian noise hang together; standard deviations are of the range [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise {
    /// Each channel on its own.
    Colour(f64),
    /// All the same.
    Grey(f64),
    /// With this covariance, whose negative eigenvalues count as positive, as numpy has it.
    Correlated([[f64; 3]; 3]),
}

impl Noise {
    /// A level, of 255, and a kind (`add_Gaussian_noise`, `add_speckle_noise`): 40 % colour, 40 % grey, 20 %
    /// correlated at the highest level.
    pub fn draw(levels: &RangeInclusive<usize>, draws: &mut (impl Draws + ?Sized)) -> Self {
        let level = draws.integer(*levels.start(), *levels.end()) as f64 / 255.0;
        match draws.unit() {
            kind if kind > 0.6 => Self::Colour(level),
            kind if kind < 0.4 => Self::Grey(level),
            _ => {
                let mut three = || [draws.unit(), draws.unit(), draws.unit()];
                let d = three();
                let matrix = [three(), three(), three()];
                Self::Correlated(covariance(*levels.end() as f64 / 255.0, d, matrix))
            }
        }
    }

    /// The noise of a picture of this size, three values a pixel, row by row.
    pub fn field(&self, (w, h): (u32, u32), draws: &mut (impl Draws + ?Sized)) -> Vec<f32> {
        let pixels = w as usize * h as usize;
        match self {
            Self::Colour(level) => {
                draws.normals(pixels * 3).into_iter().map(|z| (f64::from(z) * level) as f32).collect()
            }
            Self::Grey(level) => {
                let grey = draws.normals(pixels).into_iter().map(|z| (f64::from(z) * level) as f32);
                grey.flat_map(|v| [v; 3]).collect()
            }
            Self::Correlated(covariance) => {
                let root = root(covariance);
                let normals = draws.normals(pixels * 3);
                let mix = |z: &[f32]| -> [f32; 3] {
                    std::array::from_fn(|j| (0..3).map(|i| f64::from(z[i]) * root[i][j]).sum::<f64>() as f32)
                };
                normals.chunks_exact(3).flat_map(mix).collect()
            }
        }
    }
}

/// `picture + field`, cut off at 0 and 1 (`add_Gaussian_noise`).
pub fn add(picture: &Rgb32FImage, field: &[f32]) -> Rgb32FImage {
    with(picture, field, |v, noise| v + noise)
}

/// `picture (1 + field)`, cut off at 0 and 1 (`add_speckle_noise`).
pub fn speckle(picture: &Rgb32FImage, field: &[f32]) -> Rgb32FImage {
    with(picture, field, |v, noise| {
        let v = v.clamp(0.0, 1.0);
        v + v * noise
    })
}

fn with(picture: &Rgb32FImage, field: &[f32], join: impl Fn(f32, f32) -> f32) -> Rgb32FImage {
    let mut noisy = picture.clone();
    noisy.iter_mut().zip(field).for_each(|(v, noise)| *v = join(*v, *noise).clamp(0.0, 1.0));
    noisy
}

/// The noise of counting `vals` photons at full brightness, in each channel or (`grey`) in the brightness alone; cut
/// off at 0 and 1 (`add_Poisson_noise`, which takes 10^2 to 10^4 photons).
pub fn poisson(
    picture: &Rgb32FImage,
    vals: f64,
    grey: bool,
    draws: &mut (impl Draws + ?Sized),
) -> Rgb32FImage {
    let rounded = |v: f64| (v * 255.0).round_ties_even().clamp(0.0, 255.0) / 255.0;
    let mut noisy = picture.clone();
    noisy.iter_mut().for_each(|v| *v = (*v * 255.0).round_ties_even().clamp(0.0, 255.0) / 255.0);
    // As numpy has it: f32, and f64 where the weights of brightness make it so.
    let vals32 = vals as f32;
    if grey {
        let luma = |p: &[f32]| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]);
        let means: Vec<f64> = noisy.as_raw().chunks_exact(3).map(|p| rounded(luma(p))).collect();
        let counts = draws.poissons(&means.iter().map(|mean| mean * vals).collect::<Vec<_>>());
        for ((pixel, mean), count) in noisy.chunks_exact_mut(3).zip(means).zip(counts) {
            let noise = f64::from(count as f32 / vals32) - mean;
            pixel.iter_mut().for_each(|v| *v = ((f64::from(*v) + noise) as f32).clamp(0.0, 1.0));
        }
        return noisy;
    }
    let means: Vec<f64> = noisy.iter().map(|v| f64::from(*v * vals32)).collect();
    let counts = draws.poissons(&means);
    noisy.iter_mut().zip(counts).for_each(|(v, count)| *v = (count as f32 / vals32).clamp(0.0, 1.0));
    noisy
}

/// `|level^2 U^T D U|`, element by element, where `D` is the diagonal `d` and the columns of `U` are the left singular
/// vectors of `matrix`, the largest singular value first (`orth`).
pub fn covariance(level: f64, d: [f64; 3], matrix: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let gram = std::array::from_fn(|i| {
        std::array::from_fn(|j| (0..3).map(|k| matrix[i][k] * matrix[j][k]).sum::<f64>())
    });
    let (values, vectors) = eigen(gram);
    let mut order = [0, 1, 2];
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    // U[k][i] is element k of the i-th singular vector; its sign cancels in the absolute value.
    let u = |k: usize, i: usize| vectors[k][order[i]];
    std::array::from_fn(|i| {
        std::array::from_fn(|j| (level * level * (0..3).map(|k| u(k, i) * d[k] * u(k, j)).sum::<f64>()).abs())
    })
}

/// The symmetric square root of a symmetric matrix with its eigenvalues made positive.
fn root(matrix: &[[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let (values, vectors) = eigen(*matrix);
    std::array::from_fn(|i| {
        std::array::from_fn(|j| {
            (0..3).map(|k| vectors[i][k] * values[k].abs().sqrt() * vectors[j][k]).sum::<f64>()
        })
    })
}

/// Eigenvalues and eigenvectors (as columns) of a symmetric matrix, by Jacobi's rotations.
fn eigen(mut a: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    let mut v = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for _ in 0..50 {
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            if a[p][q].abs() < 1e-300 {
                continue;
            }
            let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
            let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
            let (cos, sin) = (1.0 / (t * t + 1.0).sqrt(), t / (t * t + 1.0).sqrt());
            for row in &mut a {
                (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
            }
            let (rows_p, rows_q) = (a[p], a[q]);
            a[p] = std::array::from_fn(|k| cos * rows_p[k] - sin * rows_q[k]);
            a[q] = std::array::from_fn(|k| sin * rows_p[k] + cos * rows_q[k]);
            for row in &mut v {
                (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
            }
        }
    }
    ([a[0][0], a[1][1], a[2][2]], v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::degradation::SeededDraws;

    #[test]
    fn correlated_noise_has_its_covariance() {
        let covariance =
            covariance(0.1, [0.9, 0.2, 0.5], [[0.3, 0.8, 0.1], [0.7, 0.4, 0.9], [0.2, 0.6, 0.35]]);
        let root = root(&covariance);
        let (values, _) = eigen(covariance);
        assert!(values.iter().all(|v| v.is_finite()));
        let field = Noise::Correlated(covariance).field((200, 200), &mut SeededDraws::new(1));
        for i in 0..3 {
            for j in 0..3 {
                let expected: f64 = (0..3).map(|k| root[k][i] * root[k][j]).sum();
                let products = field.chunks_exact(3).map(|p| f64::from(p[i]) * f64::from(p[j]));
                let found = products.sum::<f64>() / 4e4;
                assert!((found - expected).abs() < 0.03 * 0.01, "{i} {j}: {found} {expected}");
                if values.iter().all(|v| *v >= 0.0) {
                    assert!((expected - covariance[i][j]).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn kinds_come_as_often_as_they_should() {
        let mut draws = SeededDraws::new(9);
        let mut kinds = [0; 3];
        for _ in 0..2000 {
            match Noise::draw(&(2..=25), &mut draws) {
                Noise::Colour(level) => {
                    assert!((2.0 / 255.0..=25.0 / 255.0).contains(&level));
                    kinds[0] += 1;
                }
                Noise::Grey(_) => kinds[1] += 1,
                Noise::Correlated(_) => kinds[2] += 1,
            }
        }
        assert!((740..860).contains(&kinds[0]) && (740..860).contains(&kinds[1]), "{kinds:?}");
    }
}

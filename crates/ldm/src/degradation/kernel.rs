/// A square blur kernel that sums to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    size: usize,
    weights: Vec<f64>,
}

impl Kernel {
    /// Of these weights, row by row, divided by their sum.
    fn normalised(size: usize, mut weights: Vec<f64>) -> Self {
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
        Self { size, weights }
    }

    /// Of `exp(exponent(x, y))`, scaled so that the largest is 1: a narrow Gaussian between pixels underflows else.
    fn of_exponents(size: usize, exponent: impl Fn(f64, f64) -> f64) -> Vec<f64> {
        let centred = |i: usize| i as f64 - (size as f64 - 1.0) / 2.0;
        let exponents: Vec<f64> =
            (0..size * size).map(|i| exponent(centred(i % size), centred(i / size))).collect();
        let largest = exponents.iter().fold(f64::NEG_INFINITY, |m, e| m.max(*e));
        exponents.iter().map(|e| (e - largest).exp()).collect()
    }

    /// A Gaussian of variances `l1` along the direction `theta` (radians) and `l2` across it.
    ///
    /// Source: `anisotropic_Gaussian`. Variances below 1e-8 are taken as that; `size` is at least 1.
    pub fn anisotropic(size: usize, theta: f64, l1: f64, l2: f64) -> Self {
        let (size, l1, l2) = (size.max(1), l1.max(1e-8), l2.max(1e-8));
        let (sin, cos) = theta.sin_cos();
        let weights = Self::of_exponents(size, |x, y| {
            let (along, across) = (cos * x + sin * y, sin * x - cos * y);
            -0.5 * (along * along / l1 + across * across / l2)
        });
        Self::normalised(size, weights)
    }

    /// A round Gaussian of standard deviation `sigma`; what is below its largest weight times 2^-52 is 0.
    ///
    /// Source: `fspecial_gaussian`. `sigma` below 1e-4 is taken as that; `size` is at least 1.
    pub fn gaussian(size: usize, sigma: f64) -> Self {
        let (size, sigma) = (size.max(1), sigma.max(1e-4));
        let mut weights = Self::of_exponents(size, |x, y| -(x * x + y * y) / (2.0 * sigma * sigma));
        weights.iter_mut().filter(|w| **w < f64::EPSILON).for_each(|w| *w = 0.0);
        Self::normalised(size, weights)
    }

    /// Moved up and left by `(sf - 1) / 2` pixels, so that decimation by `sf` takes the middle of each block.
    ///
    /// Source: `shift_pixel`.
    pub fn shifted(&self, sf: usize) -> Self {
        let last = self.size - 1;
        let shift = (sf.max(1) - 1) as f64 * 0.5;
        let at = |i: usize| {
            let x = (i as f64 + shift).min(last as f64);
            let low = (x as usize).min(last.saturating_sub(1));
            (low, (low + 1).min(last), x - low as f64)
        };
        let value = |y: usize, x: usize| self.weights[y * self.size + x];
        let mut weights = Vec::with_capacity(self.weights.len());
        for y in 0..self.size {
            let (y0, y1, ty) = at(y);
            for x in 0..self.size {
                let (x0, x1, tx) = at(x);
                let row = |y: usize| value(y, x0) * (1.0 - tx) + value(y, x1) * tx;
                weights.push(row(y0) * (1.0 - ty) + row(y1) * ty);
            }
        }
        Self::normalised(self.size, weights)
    }

    /// Pixels a side.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Row by row.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }
}

#[cfg(test)]
mod tests {
    use super::Kernel;

    #[test]
    fn the_narrowest_kernels_still_sum_to_one() {
        for kernel in [
            Kernel::gaussian(6, 0.0),
            Kernel::gaussian(7, 1e-9),
            Kernel::anisotropic(14, 1.0, 0.0, 0.0),
            Kernel::anisotropic(15, 0.3, 1e-12, 4.0),
            Kernel::gaussian(1, 1.0).shifted(4),
        ] {
            let sum: f64 = kernel.weights().iter().sum();
            assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        }
    }
}

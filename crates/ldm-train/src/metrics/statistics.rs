use nalgebra::{DMatrix, DVector};

use super::{Features, MetricError};

/// Mean and covariance of features: what a Fréchet distance compares.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    pub(super) mu: DVector<f64>,
    pub(super) sigma: DMatrix<f64>,
}

impl Statistics {
    /// From a mean `[d]` and a covariance `[d, d]`.
    ///
    /// # Errors
    /// Sizes that don't fit together; values that are not finite.
    pub fn new(mu: Vec<f64>, sigma: Vec<f64>) -> Result<Self, MetricError> {
        let d = mu.len();
        if d == 0 || sigma.len() != d * d {
            let (left, right) = (vec![d], vec![sigma.len()]);
            return Err(MetricError::Shapes { what: "mean and covariance", left, right });
        }
        if mu.iter().chain(&sigma).any(|v| !v.is_finite()) {
            return Err(MetricError::NotFinite("mean and covariance"));
        }
        Ok(Self { mu: DVector::from_vec(mu), sigma: DMatrix::from_vec(d, d, sigma) })
    }

    /// Of features, with the unbiased covariance (numpy's `cov`).
    ///
    /// # Errors
    /// Fewer than 2 rows.
    pub fn of(features: &Features) -> Result<Self, MetricError> {
        let mut moments = Moments::new(features.width());
        moments.push(features)?;
        moments.finish()
    }

    /// The mean, `[d]`.
    pub fn mu(&self) -> &[f64] {
        self.mu.as_slice()
    }

    /// The covariance, `[d, d]`, row after row.
    pub fn sigma(&self) -> &[f64] {
        // Symmetric: nalgebra's columns are its rows.
        self.sigma.as_slice()
    }
}

/// Mean and covariance of features that come in batches and need not be kept.
///
/// Batches are joined by their own means (Chan, Golub and LeVeque 1979): summing raw products would cancel.
#[derive(Debug, Clone)]
pub struct Moments {
    count: usize,
    mean: DVector<f64>,
    /// The sum of `(x - mean)(x - mean)^T`.
    scatter: DMatrix<f64>,
}

/// Rows that are turned into f64 at a time.
const ROWS: usize = 1024;

impl Moments {
    /// Of features of this width, none of them seen yet.
    pub fn new(width: usize) -> Self {
        Self { count: 0, mean: DVector::zeros(width), scatter: DMatrix::zeros(width, width) }
    }

    /// Takes a batch in.
    ///
    /// # Errors
    /// Another width.
    pub fn push(&mut self, batch: &Features) -> Result<(), MetricError> {
        let width = self.mean.len();
        if batch.width() != width {
            let (left, right) = (vec![batch.rows(), batch.width()], vec![self.count, width]);
            return Err(MetricError::Shapes { what: "features", left, right });
        }
        for rows in batch.values().chunks(ROWS * width.max(1)) {
            let n = rows.len() / width;
            // One row of features is one column here.
            let mut x = DMatrix::from_iterator(width, n, rows.iter().map(|v| f64::from(*v)));
            let mean = x.column_mean();
            x.column_iter_mut().for_each(|mut column| column -= &mean);
            let delta = mean - &self.mean;
            let (before, after) = (self.count as f64, (self.count + n) as f64);
            self.scatter.gemm(1.0, &x, &x.transpose(), 1.0);
            self.scatter.ger(before * n as f64 / after, &delta, &delta, 1.0);
            self.mean.axpy(n as f64 / after, &delta, 1.0);
            self.count += n;
        }
        Ok(())
    }

    /// How many rows were seen.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The statistics of all rows, with the unbiased covariance.
    ///
    /// # Errors
    /// Fewer than 2 rows.
    pub fn finish(self) -> Result<Statistics, MetricError> {
        if self.count < 2 {
            return Err(MetricError::TooFew {
                what: "pictures for a covariance",
                got: self.count,
                needed: 2,
            });
        }
        Ok(Statistics { mu: self.mean, sigma: self.scatter / (self.count - 1) as f64 })
    }
}

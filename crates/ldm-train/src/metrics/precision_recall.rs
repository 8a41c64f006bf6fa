use nalgebra::DMatrix;
use rayon::prelude::*;

use super::{Features, MetricError};

/// How much of what is drawn is real, and how much of what is real is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// The share of drawn pictures that lie in the manifold of the real ones.
    pub precision: f64,
    /// The share of real pictures that lie in the manifold of the drawn ones.
    pub recall: f64,
}

impl PrecisionRecall {
    /// The harmonic mean, as torch-fidelity takes it.
    pub fn f_score(&self) -> f64 {
        2.0 * self.precision * self.recall / (self.precision + self.recall).max(1e-5)
    }
}

/// Improved precision and recall: a manifold is the union of balls around its pictures' features, each reaching to the
/// `k`-th nearest of the others (k = 3 in the paper and in the references).
///
/// Distances are f64; torch-fidelity's are `torch.cdist` in f32, so that a picture on the very edge of a ball may
/// fall on the other side. Sources: Kynkäänniemi et al. 2019; torch-fidelity's metric_prc.py.
///
/// # Errors
/// Features of different widths; `k` pictures or fewer in a set.
pub fn precision_recall(
    generated: &Features,
    real: &Features,
    k: usize,
) -> Result<PrecisionRecall, MetricError> {
    if generated.width() != real.width() {
        let shape = |f: &Features| vec![f.rows(), f.width()];
        let (left, right) = (shape(generated), shape(real));
        return Err(MetricError::Shapes { what: "features", left, right });
    }
    let fewest = generated.rows().min(real.rows());
    if fewest <= k {
        let what = "pictures for a nearest neighbour";
        return Err(MetricError::TooFew { what, got: fewest, needed: k + 1 });
    }
    let (generated, real) = (Points::new(generated), Points::new(real));
    Ok(PrecisionRecall {
        precision: generated.share_inside(&real, &real.radii(k)),
        recall: real.share_inside(&generated, &generated.radii(k)),
    })
}

/// Rows whose distances are computed at a time.
const BLOCK: usize = 256;

/// Points as the columns of a matrix, with their squared norms.
struct Points {
    x: DMatrix<f64>,
    norms: Vec<f64>,
}

impl Points {
    fn new(features: &Features) -> Self {
        let values = features.values().iter().map(|v| f64::from(*v));
        let x = DMatrix::from_iterator(features.width(), features.rows(), values);
        let norms = x.column_iter().map(|column| column.norm_squared()).collect();
        Self { x, norms }
    }

    /// `f` of each point's squared distances to all of `others`.
    fn map<T: Send>(&self, others: &Self, f: impl Fn(&mut [f64]) -> T + Sync) -> Vec<T> {
        let blocks = (0..self.norms.len()).step_by(BLOCK).collect::<Vec<_>>();
        let block = |start: usize| {
            let n = BLOCK.min(self.norms.len() - start);
            let mut distances = others.x.tr_mul(&self.x.columns(start, n));
            let one = |(j, mut column): (usize, nalgebra::DVectorViewMut<'_, f64>)| {
                let norm = self.norms[start + j];
                for (v, other) in column.iter_mut().zip(&others.norms) {
                    let square = norm + other - 2.0 * *v;
                    // What is left of equal points is a rounding error.
                    *v = if square > 1e-13 * (norm + other) { square } else { 0.0 };
                }
                f(column.as_mut_slice())
            };
            distances.column_iter_mut().enumerate().map(one).collect::<Vec<_>>()
        };
        blocks.into_par_iter().flat_map_iter(block).collect()
    }

    /// Each point's squared distance to the `k`-th nearest of the others.
    fn radii(&self, k: usize) -> Vec<f64> {
        // The nearest of all is the point itself.
        self.map(self, |distances| *distances.select_nth_unstable_by(k, f64::total_cmp).1)
    }

    /// The share of these points that lie in one of the balls around `centres`.
    fn share_inside(&self, centres: &Self, radii: &[f64]) -> f64 {
        let inside = self.map(centres, |distances| distances.iter().zip(radii).any(|(d, r)| d <= r));
        inside.iter().filter(|inside| **inside).count() as f64 / inside.len() as f64
    }
}

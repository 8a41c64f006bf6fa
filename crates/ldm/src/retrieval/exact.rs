use std::cmp::Ordering;

use burn::tensor::{DType, Tensor, TensorData};

use super::database::normalised;
use super::{Database, Metric, Neighbour, RetrievalError};

/// Scores computed at a time: 64 MiB in f32.
const MAX_SCORES: usize = 1 << 24;
/// Values of the database that are on the device at a time: 256 MiB.
const MAX_VALUES: usize = 1 << 26;

impl Database {
    /// The `k` rows nearest to each query `[queries, d]`, nearest first; of equal ones the first row first.
    ///
    /// Each score is computed, in matrix products over blocks of rows on the queries' device.
    ///
    /// # Errors
    /// A query of another width, `k` of 0 or more than there are rows.
    pub fn nearest(
        &self,
        queries: Tensor<2>,
        k: usize,
        metric: Metric,
    ) -> Result<Vec<Vec<Neighbour>>, RetrievalError> {
        let [n, width] = queries.dims();
        self.check(width, k)?;
        let device = queries.device();
        let queries = queries.inner().cast(DType::F32);
        let queries = match metric {
            Metric::Cosine => {
                let values: Vec<f32> = queries.into_data().iter::<f32>().collect();
                let unit: Vec<f32> = values.chunks_exact(width).flat_map(normalised).collect();
                Tensor::<2>::from_data(TensorData::new(unit, [n, width]), (&device, DType::F32))
            }
            Metric::Dot => queries,
        };
        let queries = queries.transpose();
        let rows = (MAX_SCORES / n.max(1)).min(MAX_VALUES / width).max(1);
        let mut best: Vec<Best> = (0..n).map(|_| Best { k, found: Vec::new() }).collect();
        for (block, values) in self.rows().chunks(rows * width).enumerate() {
            let values: Vec<f32> = match metric {
                Metric::Cosine => values.chunks_exact(width).flat_map(normalised).collect(),
                Metric::Dot => values.to_vec(),
            };
            let count = values.len() / width;
            let values =
                Tensor::<2>::from_data(TensorData::new(values, [count, width]), (&device, DType::F32));
            let scores = values.matmul(queries.clone()).into_data();
            for (i, score) in scores.iter::<f32>().enumerate() {
                best[i % n].offer(Neighbour { index: block * rows + i / n, score });
            }
        }
        Ok(best.into_iter().map(|best| best.found).collect())
    }
}

/// The best so far, best first.
struct Best {
    k: usize,
    found: Vec<Neighbour>,
}

impl Best {
    /// Rows come in order, so an equal one goes behind those that are there.
    fn offer(&mut self, neighbour: Neighbour) {
        let worst = self.found.last().map(|last| last.score);
        if self.found.len() == self.k && worst.is_some_and(|worst| neighbour.score <= worst) {
            return;
        }
        let place = self.found.partition_point(|f| f.score.total_cmp(&neighbour.score) != Ordering::Less);
        self.found.insert(place, neighbour);
        self.found.truncate(self.k);
    }
}

use burn::tensor::{DType, Tensor};
use hnsw_rs::anndists::dist::distances::Distance;
use rayon::prelude::*;

use super::database::normalised;
use super::{Database, Neighbour, RetrievalError};

/// How the graph is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HnswConfig {
    /// Links a node keeps in each layer, at most 256 (`M`).
    pub max_nb_connection: usize,
    /// Candidates looked at while a node is linked.
    pub ef_construction: usize,
}

impl Default for HnswConfig {
    /// 32 links, 400 candidates.
    fn default() -> Self {
        Self { max_nb_connection: 32, ef_construction: 400 }
    }
}

/// An approximate search by cosine: a navigable graph of small worlds (Malkov and Yashunin 2018) through the crate
/// `hnsw_rs`.
///
/// It stands where the reference has ScaNN. The graph holds a copy of the embeddings and lasts as long as the program.
pub struct Hnsw<'a> {
    database: &'a Database,
    graph: hnsw_rs::hnsw::Hnsw<'static, f32, Cosine>,
}

/// 1 - cosine of vectors of length 1. The crate's own asserts that rounding never makes it negative.
struct Cosine;

impl Distance<f32> for Cosine {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        // Sixteen sums side by side, which the compiler makes vectors of.
        let mut sums = [0f32; 16];
        let (blocks_a, rest_a) = a.as_chunks::<16>();
        let (blocks_b, rest_b) = b.as_chunks::<16>();
        for (a, b) in blocks_a.iter().zip(blocks_b) {
            for i in 0..16 {
                sums[i] += a[i] * b[i];
            }
        }
        let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
        (1.0 - sums.iter().sum::<f32>() - rest).max(0.0)
    }
}

/// Layers of the graph, as many as `hnsw_rs` has.
const LAYERS: usize = 16;

impl<'a> Hnsw<'a> {
    /// Links every row of the database, on all cores.
    ///
    /// # Errors
    /// Parameters out of range.
    pub fn build(database: &'a Database, config: HnswConfig) -> Result<Self, RetrievalError> {
        let HnswConfig { max_nb_connection, ef_construction } = config;
        if !(2..=256).contains(&max_nb_connection) {
            let (name, reason) = ("max_nb_connection", "must lie in 2..=256");
            return Err(RetrievalError::Parameter { name, value: max_nb_connection, reason });
        }
        if ef_construction == 0 {
            let (name, reason) = ("ef_construction", "must be at least 1");
            return Err(RetrievalError::Parameter { name, value: 0, reason });
        }
        let graph =
            hnsw_rs::hnsw::Hnsw::new(max_nb_connection, database.len(), LAYERS, ef_construction, Cosine);
        (0..database.len()).into_par_iter().for_each(|index| {
            let unit: Vec<f32> = normalised(database.embedding(index)).collect();
            graph.insert((&unit, index));
        });
        Ok(Self { database, graph })
    }

    /// About the `k` rows nearest to each query `[queries, d]`, nearest first. `ef` candidates are looked at, no fewer
    /// than `k`: more of them miss fewer neighbours and take longer.
    ///
    /// # Errors
    /// A query of another width, `k` of 0 or more than there are rows.
    pub fn nearest(
        &self,
        queries: Tensor<2>,
        k: usize,
        ef: usize,
    ) -> Result<Vec<Vec<Neighbour>>, RetrievalError> {
        let [_, width] = queries.dims();
        self.database.check(width, k)?;
        let values: Vec<f32> = queries.inner().cast(DType::F32).into_data().iter::<f32>().collect();
        let find = |query: &[f32]| {
            let unit: Vec<f32> = normalised(query).collect();
            let found = self.graph.search(&unit, k, ef.max(k));
            found
                .iter()
                .map(|n| Neighbour { index: n.get_origin_id(), score: 1.0 - n.get_distance() })
                .collect()
        };
        Ok(values.par_chunks_exact(width).map(find).collect())
    }
}

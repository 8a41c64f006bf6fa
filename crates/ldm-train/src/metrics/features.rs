use burn::tensor::{DType, Tensor};

use super::MetricError;
use crate::data::random::{Purpose, rng, shuffle};

/// Feature vectors of many pictures, one a row, in the CPU's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    width: usize,
    values: Vec<f32>,
}

impl Features {
    /// No row yet, `width` features each.
    pub fn new(width: usize) -> Self {
        Self { width, values: Vec::new() }
    }

    /// Adds a batch `[b, width]`.
    ///
    /// # Errors
    /// Another width; values that are not finite.
    pub fn push(&mut self, batch: Tensor<2>) -> Result<(), MetricError> {
        let [rows, width] = batch.dims();
        if width != self.width {
            let (left, right) = (vec![rows, width], vec![self.rows(), self.width]);
            return Err(MetricError::Shapes { what: "features", left, right });
        }
        let values = values(batch)?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(MetricError::NotFinite("features"));
        }
        self.values.extend(values);
        Ok(())
    }

    /// How many pictures.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// How many features each.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The same rows in an order that follows from the seed: for figures over parts, where the pictures' own order is that of their
    /// classes.
    pub fn shuffled(&self, seed: u64) -> Self {
        let mut rows: Vec<&[f32]> = self.values.chunks(self.width.max(1)).collect();
        shuffle(&mut rng(seed, Purpose::Order, 0, 0), &mut rows);
        Self { width: self.width, values: rows.concat() }
    }

    /// Row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl TryFrom<Tensor<2>> for Features {
    type Error = MetricError;

    /// The rows of `[n, width]`.
    fn try_from(tensor: Tensor<2>) -> Result<Self, MetricError> {
        let mut features = Self::new(tensor.dims()[1]);
        features.push(tensor)?;
        Ok(features)
    }
}

/// A tensor's values, of any float type, as f32.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, MetricError> {
    let data = tensor.cast(DType::F32).try_into_data().map_err(|e| MetricError::Backend(format!("{e:?}")))?;
    data.try_into_vec::<f32>().map_err(|e| MetricError::Backend(format!("{e:?}")))
}

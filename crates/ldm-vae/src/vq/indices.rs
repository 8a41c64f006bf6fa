use burn::tensor::{Int, Tensor, TensorData};

use crate::VaeError;

/// Which code each pixel of a latent is nearest to, counted among the used codes where the model is remapped.
#[derive(Debug, Clone)]
pub struct CodeIndices {
    flat: Tensor<1, Int>,
    size: [usize; 3],
    shape: Vec<usize>,
}

impl CodeIndices {
    /// `flat` `[b h w]` for a latent of `size` `[b, h, w]`.
    pub(super) fn new(flat: Tensor<1, Int>, size: [usize; 3], sane: bool, remapped: bool) -> Self {
        let n = size.iter().product();
        let shape = match (sane, remapped) {
            (true, _) => size.to_vec(),
            (false, true) => vec![n, 1],
            (false, false) => vec![n],
        };
        Self { flat, size, shape }
    }

    /// `[b h w]`, item by item, row by row.
    pub fn flat(&self) -> Tensor<1, Int> {
        self.flat.clone()
    }

    /// `[b, h, w]`.
    pub fn map(&self) -> Tensor<3, Int> {
        self.flat.clone().reshape(self.size)
    }

    /// The indices as i64 in the shape in which the reference's quantiser gives them: `[b, h, w]` with
    /// `sane_index_shape`, else `[b h w]`, and `[b h w, 1]` where they are remapped.
    pub fn to_data(&self) -> TensorData {
        TensorData::new(to_i64(&self.flat), self.shape.clone())
    }
}

/// A tensor's integers, whatever width the device keeps them in.
pub(super) fn to_i64(indices: &Tensor<1, Int>) -> Vec<i64> {
    indices.to_data().iter::<i64>().collect()
}

/// Every index must be one of `0..codes`.
pub(super) fn check_range(indices: &[i64], codes: usize) -> Result<(), VaeError> {
    let wrong = indices.iter().position(|index| !(0..codes as i64).contains(index));
    wrong.map_or(Ok(()), |position| Err(VaeError::Index { index: indices[position], position, codes }))
}

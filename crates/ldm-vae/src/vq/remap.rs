use burn::tensor::{Distribution, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::indices::check_range;
use crate::VaeError;

/// The index of a code that is not among the used ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownIndex {
    /// Any of the used ones, drawn by the device's generator.
    #[default]
    Random,
    /// One more than there are used ones.
    Extra,
    /// This one.
    #[serde(untagged)]
    Index(i64),
}

/// Indices counted among the codes that are in use.
///
/// Source: `remap_to_used` and `unmap_to_all` of `VectorQuantizer2` in taming's `quantize.py`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remap {
    used: Vec<i64>,
    /// The index among the used codes of every code; -1 where it is not used.
    places: Vec<i64>,
    unknown: UnknownIndex,
}

impl Remap {
    /// The codes `used` out of `n_embed`.
    ///
    /// Errors: [`VaeError::Config`] where there are none, [`VaeError::Index`] where one is no code.
    pub fn new(used: Vec<i64>, n_embed: usize, unknown: UnknownIndex) -> Result<Self, VaeError> {
        if used.is_empty() {
            return Err(VaeError::config("remap", &used, "it must leave at least one code"));
        }
        check_range(&used, n_embed)?;
        let mut places = vec![-1; n_embed];
        // The first place counts where a code is named twice.
        for (place, code) in used.iter().enumerate().rev() {
            places[*code as usize] = place as i64;
        }
        Ok(Self { used, places, unknown })
    }

    /// The used codes.
    pub fn used(&self) -> &[i64] {
        &self.used
    }

    /// The number of indices there are (`re_embed`): the used codes, and the extra one.
    pub fn re_embed(&self) -> usize {
        self.used.len() + usize::from(self.unknown == UnknownIndex::Extra)
    }

    /// From indices in the whole codebook to indices among the used codes; `[n] -> [n]`.
    pub fn to_used(&self, codes: Tensor<1, Int>) -> Tensor<1, Int> {
        let places = look_up(&self.places, codes);
        let unknown = places.clone().lower_elem(0);
        match self.unknown {
            UnknownIndex::Random => {
                let (shape, device, count) = (places.shape(), places.device(), self.used.len());
                let drawn = Tensor::<1>::random(shape, Distribution::Uniform(0.0, count as f64), &device);
                // A float just below `count` may be rounded up to it.
                places.mask_where(unknown, drawn.int().clamp(0, count as i64 - 1))
            }
            UnknownIndex::Extra => places.mask_fill(unknown, self.used.len() as i64),
            UnknownIndex::Index(index) => places.mask_fill(unknown, index),
        }
    }

    /// From indices among the used codes, which must lie in `0..re_embed`, to indices in the whole codebook; the
    /// extra one becomes the first used code. `[n] -> [n]`.
    pub(super) fn to_all(&self, indices: Tensor<1, Int>) -> Tensor<1, Int> {
        let mut codes = self.used.clone();
        if self.unknown == UnknownIndex::Extra {
            codes.push(self.used[0]);
        }
        look_up(&codes, indices)
    }
}

/// `table[indices]`; `[n] -> [n]`.
fn look_up(table: &[i64], indices: Tensor<1, Int>) -> Tensor<1, Int> {
    let data = TensorData::new(table.to_vec(), [table.len()]);
    Tensor::<1, Int>::from_data(data, &indices.device()).select(0, indices)
}

use burn::module::{Initializer, Module};
use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};
use ldm_nn::Embedding;

use super::indices::{check_range, to_i64};
use super::nearest::nearest;
use super::{CodeIndices, CodebookUsage, Remap};
use crate::VaeError;
use crate::input::check;

/// Replaces each pixel of a latent by the nearest of `n_embed` codes; the gradient goes straight through.
///
/// Source: paper, section 3.1; `VectorQuantizer2` (and with `legacy` the loss of `VectorQuantizer`) in taming's
/// `quantize.py`.
#[derive(Module, Debug)]
pub struct VectorQuantizer {
    /// The codebook, `[n_embed, embed_dim]`.
    pub embedding: Embedding,
    #[module(skip)]
    beta: f64,
    #[module(skip)]
    legacy: bool,
    #[module(skip)]
    sane_index_shape: bool,
    #[module(skip)]
    remap: Option<Remap>,
}

/// A latent, quantised.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The nearest codes, `[b, embed_dim, h, w]`; its gradient is the gradient of the latent that came.
    pub z_q: Tensor<4>,
    /// The codebook loss, `[1]`, f32: the mean square between latent and codes, once for the encoder and once
    /// for the codebook, one of them times `beta`.
    pub loss: Tensor<1>,
    /// Indices in the whole codebook, `[b h w]`.
    pub codes: Tensor<1, Int>,
    /// Indices as the reference gives them.
    pub indices: CodeIndices,
}

impl VectorQuantizer {
    /// `n_embed` codes of width `embed_dim`, drawn from U(-1 / n_embed, 1 / n_embed).
    ///
    /// `beta` weighs the codebook's term of the loss (see [`with_legacy`](Self::with_legacy)).
    pub fn new(n_embed: usize, embed_dim: usize, beta: f64, device: &Device) -> Self {
        let max = 1.0 / n_embed as f64;
        let weight = Initializer::Uniform { min: -max, max }.init([n_embed, embed_dim], device);
        let embedding = Embedding { weight };
        Self { embedding, beta, legacy: true, sane_index_shape: false, remap: None }
    }

    /// Whether `beta` weighs the codebook's term (default: true), not the encoder's.
    pub fn with_legacy(mut self, legacy: bool) -> Self {
        self.legacy = legacy;
        self
    }

    /// Whether [`CodeIndices::to_data`] gives `[b, h, w]` (default: false).
    pub fn with_sane_index_shape(mut self, sane: bool) -> Self {
        self.sane_index_shape = sane;
        self
    }

    /// Counts indices among the used codes alone (default: none).
    pub fn with_remap(mut self, remap: Option<Remap>) -> Self {
        self.remap = remap;
        self
    }

    /// The number of codes in the codebook.
    pub fn n_embed(&self) -> usize {
        self.embedding.len()
    }

    /// The number of indices: of codes, or where they are remapped of used ones (`re_embed`).
    pub fn re_embed(&self) -> usize {
        self.remap.as_ref().map_or(self.n_embed(), Remap::re_embed)
    }

    /// The width of a code.
    pub fn embed_dim(&self) -> usize {
        self.embedding.weight.lazy_shape()[1]
    }

    /// How indices are counted among the used codes.
    pub fn remap(&self) -> Option<&Remap> {
        self.remap.as_ref()
    }

    /// Quantises a latent `[b, embed_dim, h, w]`, in the codebook's type.
    ///
    /// Errors: a wrong number of channels, an axis of length zero.
    pub fn forward(&self, z: Tensor<4>) -> Result<Quantized, VaeError> {
        check("latent", &z, self.embed_dim())?;
        let [b, c, h, w] = z.dims();
        let codebook = self.embedding.weight.val();
        let rows = z.cast(codebook.dtype()).permute([0, 2, 3, 1]).reshape([b * h * w, c]);
        let codes = nearest(rows.clone(), codebook.clone());
        let chosen = codebook.select(0, codes.clone());

        let mean_square =
            |a: Tensor<2>, b: Tensor<2>| (a.cast(DType::F32) - b.cast(DType::F32)).square().mean();
        let encoder = mean_square(chosen.clone().detach(), rows.clone());
        let codebook = mean_square(chosen.clone(), rows.clone().detach());
        let loss = if self.legacy { encoder + codebook * self.beta } else { encoder * self.beta + codebook };

        // As the reference writes it: straight through, and rounded as it rounds.
        let z_q = rows.clone() + (chosen - rows).detach();
        let z_q = z_q.reshape([b, h, w, c]).permute([0, 3, 1, 2]);
        let flat = self.remap.as_ref().map_or(codes.clone(), |remap| remap.to_used(codes.clone()));
        let indices = CodeIndices::new(flat, [b, h, w], self.sane_index_shape, self.remap.is_some());
        Ok(Quantized { z_q, loss, codes, indices })
    }

    /// The codes at `indices` `[b, h, w]`: `[b, embed_dim, h, w]`. Where the model is remapped, indices are
    /// those among the used codes, and the extra one gives the first of them.
    ///
    /// Source: `get_codebook_entry`. Errors: an index out of range; the indices are read to know.
    pub fn codebook_entry(&self, indices: Tensor<3, Int>) -> Result<Tensor<4>, VaeError> {
        let [b, h, w] = indices.dims();
        if b * h * w == 0 {
            let (expected, actual) = ("no axis of length 0".into(), vec![b, h, w]);
            return Err(VaeError::Shape { what: "indices", expected, actual });
        }
        let flat = indices.reshape([b * h * w]);
        check_range(&to_i64(&flat), self.re_embed())?;
        let codes = self.remap.as_ref().map_or(flat.clone(), |remap| remap.to_all(flat));
        let chosen = self.embedding.weight.val().select(0, codes);
        Ok(chosen.reshape([b, h, w, self.embed_dim()]).permute([0, 3, 1, 2]))
    }

    /// Gives every code that `usage` never saw the value of a pixel of `z` `[b, embed_dim, h, w]`; `pick(n)`
    /// draws the pixel, a number below n. Returns the quantiser and the codes that were re-seeded.
    ///
    /// A code far from all latents is never chosen, so it gets no gradient and stays dead; moved to where
    /// latents are, it is chosen again. An optimiser's moments of these rows should be forgotten with them.
    /// Errors: a wrong number of channels, an axis of length zero.
    pub fn reseed(
        mut self,
        usage: &CodebookUsage,
        z: Tensor<4>,
        mut pick: impl FnMut(usize) -> usize,
    ) -> Result<(Self, Vec<usize>), VaeError> {
        check("latent", &z, self.embed_dim())?;
        let mut dead = usage.dead();
        dead.retain(|code| *code < self.n_embed());
        if dead.is_empty() {
            return Ok((self, dead));
        }
        let [b, c, h, w] = z.dims();
        let rows = z.inner().permute([0, 2, 3, 1]).reshape([b * h * w, c]);
        let drawn: Vec<i64> = dead.iter().map(|_| pick(b * h * w).min(b * h * w - 1) as i64).collect();
        let ints = |values: Vec<i64>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), &rows.device())
        };
        let drawn = rows.clone().select(0, ints(drawn));
        let places = ints(dead.iter().map(|code| *code as i64).collect());
        self.embedding.weight = self.embedding.weight.map(|weight| {
            let (autodiff, tracked) = (weight.is_autodiff(), weight.is_require_grad());
            let plain = weight.inner();
            let put =
                |into: Tensor<2>, rows| into.select_assign(0, places.clone(), rows, IndexingUpdateOp::Add);
            // Backends can add rows, not replace them: the old ones become zero first, which is exact.
            let ones = Tensor::ones_like(&drawn).cast(plain.dtype());
            let kept = put(Tensor::ones_like(&plain), -ones);
            let seeded = put(Tensor::zeros_like(&plain), drawn.cast(plain.dtype()));
            let weight = plain * kept + seeded;
            let weight = if autodiff { weight.autodiff() } else { weight };
            if tracked { weight.require_grad() } else { weight }
        });
        Ok((self, dead))
    }
}

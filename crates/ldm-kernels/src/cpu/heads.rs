//! Tensors of attention, a head at a time.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::bridge;
use super::panels::{Panels, fill_straight, fill_transposed};
use super::product::Rows;
use super::simd::Level;

/// A tensor `[b, heads, n, width]` whose last axis lies in order; the others may be views.
#[derive(Debug, Clone)]
pub struct Heads {
    tensor: FlexTensor,
}

impl Heads {
    /// `None` where `x` is not plain f32 on flex.
    pub fn new(x: &Tensor<4>) -> Option<Self> {
        bridge::flex(x).map(Self::of)
    }

    /// Copies an f32 tensor where its last axis doesn't lie in order.
    pub fn of(tensor: FlexTensor) -> Self {
        let strides = tensor.layout().strides();
        let plain = strides[3] == 1 && strides.iter().all(|s| *s >= 0);
        Self { tensor: if plain { tensor } else { tensor.to_contiguous() } }
    }

    /// `[b, heads, n, width]`.
    pub fn dims(&self) -> [usize; 4] {
        self.tensor.layout().shape().dims()
    }

    /// One head of one member of the batch.
    pub fn head(&self, [b, head]: [usize; 2]) -> Head<'_> {
        let layout = self.tensor.layout();
        let stride = |axis: usize| layout.strides()[axis].unsigned_abs();
        let start = layout.start_offset() + b * stride(0) + head * stride(1);
        let [_, _, count, width] = self.dims();
        Head { data: &self.tensor.storage()[start..], count, width, stride: stride(2) }
    }
}

/// A matrix `[count, width]`; row i begins at `data[i * stride]`.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    data: &'a [f32],
    /// How many rows: queries or keys.
    pub count: usize,
    /// Values in a row.
    pub width: usize,
    stride: usize,
}

impl<'a> Head<'a> {
    /// Everything.
    pub fn all(&self) -> Range<usize> {
        0..self.count
    }

    /// One row.
    #[cfg(feature = "autodiff")]
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.stride..][..self.width]
    }

    /// `rows` as the left-hand matrix of a product.
    pub fn left(&self, rows: Range<usize>) -> Rows<'a> {
        Rows {
            data: &self.data[rows.start * self.stride..],
            count: rows.len(),
            stride: self.stride,
            tiles: false,
        }
    }

    /// `rows` as the right-hand matrix.
    pub fn right(&self, rows: Range<usize>) -> Panels {
        let data = &self.data[rows.start * self.stride..];
        let mut panels = Panels::whole(Level::best(), rows.len(), self.width);
        panels.fill(1, |panel, k, values| fill_straight(panel, k, values, data, self.stride));
        panels
    }

    /// `rows`, transposed, as the right-hand matrix.
    pub fn right_transposed(&self, rows: Range<usize>) -> Panels {
        let data = &self.data[rows.start * self.stride..];
        let mut panels = Panels::whole(Level::best(), self.width, rows.len());
        panels.fill(1, |panel, k, values| fill_transposed(panel, k, values, data, self.stride));
        panels
    }
}

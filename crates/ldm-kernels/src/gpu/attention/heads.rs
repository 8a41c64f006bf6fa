//! Tensors of heads as the kernels see them, wherever their elements lie.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

use super::super::known::or_known;
use super::super::waiting::NUMBERS;

/// A tensor `[b, heads, n, d]`; split heads are views and stay so.
#[derive(Debug, Clone)]
pub struct Heads {
    /// The tensor itself.
    pub tensor: CubeTensor,
    /// Batch, heads, rows, elements of a row.
    pub shape: [usize; 4],
    /// From one to the next, in elements; 0 for an axis of 1.
    pub strides: [usize; 4],
}

impl Heads {
    /// Of a tensor of rank 4.
    pub fn new(tensor: CubeTensor) -> Self {
        let tensor = if tensor.meta.is_tiled() { into_contiguous(tensor) } else { tensor };
        let (mut shape, mut strides) = ([1; 4], [0; 4]);
        let axes = tensor.meta.shape().as_slice().iter().zip(&tensor.meta.strides()[..]);
        for (axis, (extent, stride)) in axes.enumerate().take(4) {
            shape[axis] = *extent;
            strides[axis] = if *extent == 1 { 0 } else { *stride };
        }
        Self { tensor, shape, strides }
    }

    /// A new tensor of the same shape, `[b, n, heads, d]` in memory: merging its heads copies nothing.
    pub fn empty_like(&self) -> Self {
        let [b, heads, n, d] = self.shape;
        let Self { tensor, .. } = self;
        let (client, device) = (tensor.client.clone(), tensor.device.clone());
        let lying =
            empty_device_contiguous_dtype(client, device, Shape::from([b, n, heads, d]), tensor.dtype);
        Self::new(permute(lying, &[0, 2, 1, 3]))
    }

    /// Heads of the whole batch.
    pub fn all(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// The tensor's memory as a kernel's argument.
    pub fn buffer(&self) -> BufferArg {
        self.tensor.clone().into_buffer_arg()
    }

    /// The tensor's element type.
    pub fn elements(&self) -> ElemType {
        dtype_to_storage_type(self.tensor.dtype)
    }

    /// Whether vectors of so many elements divide every row and lie dense in it.
    fn holds(&self, vector: usize) -> bool {
        let [outer @ .., column] = self.strides;
        column == 1
            && self.shape[3].is_multiple_of(vector)
            && outer.iter().all(|stride| stride.is_multiple_of(vector))
    }

    /// The strides as a kernel's argument, in vectors of so many elements.
    pub fn place(&self, vector: usize) -> PlaceLaunch {
        let [batch, head, row, column] = self.in_vectors(vector);
        PlaceLaunch::new(batch, head, row, column)
    }

    /// The strides in vectors of so many elements.
    pub fn in_vectors(&self, vector: usize) -> [usize; 4] {
        let [batch, head, row, column] = self.strides;
        // A vector is of neighbours: the last stride is 1 wherever there is more than one element of it.
        [batch / vector, head / vector, row / vector, column]
    }
}

/// The widest vector that divides every row and lies dense in all of them.
pub fn vector(views: &[&Heads]) -> usize {
    let tensor = &views[0].tensor;
    let mut widths = tensor.client.io_optimized_vector_sizes(tensor.dtype.size());
    widths.find(|n| views.iter().all(|view| view.holds(*n))).unwrap_or(1)
}

/// 2, where these vectors of numbers have as many as a device's may have, of two bytes, and twice as many elements fit all rows: pairs
/// are moved as one number then. Else 1.
pub fn pairs(numbers: usize, views: &[&Heads]) -> usize {
    let halves = numbers == NUMBERS && views[0].tensor.dtype.size() == 2;
    if halves && views.iter().all(|view| view.holds(2 * numbers)) { 2 } else { 1 }
}

/// 2, where pairs divide every row and lie dense in all of them, else 1.
pub fn pair(views: &[&Heads]) -> usize {
    if views.iter().all(|view| view.holds(2)) { 2 } else { 1 }
}

/// A tensor's strides, in vectors.
#[derive(CubeType, CubeLaunch)]
pub struct Place {
    /// To the next element of the batch.
    pub batch: usize,
    /// To the next head.
    pub head: usize,
    /// To the next row.
    pub row: usize,
    /// To the next vector of a row.
    pub column: usize,
}

#[cube]
impl Place {
    /// These strides, or those that are known when the kernel is compiled.
    pub fn or_known(&self, #[comptime] n: Option<[usize; 4]>) -> Place {
        Place {
            batch: or_known(self.batch, comptime![n.map(|n| n[0])]),
            head: or_known(self.head, comptime![n.map(|n| n[1])]),
            row: or_known(self.row, comptime![n.map(|n| n[2])]),
            column: or_known(self.column, comptime![n.map(|n| n[3])]),
        }
    }
}

/// Where a head of the batch starts.
#[cube]
pub fn start(place: &Place, head: usize, heads: usize) -> usize {
    head / heads * place.batch + head % heads * place.head
}

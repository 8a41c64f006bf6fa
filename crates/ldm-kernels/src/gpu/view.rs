//! Tensors as the kernels see them, wherever their elements lie.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::cubecl::prelude::BufferArg;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

/// A tensor as batch, channels and the elements of a channel.
#[derive(Debug, Clone)]
pub struct View {
    /// The tensor itself, of any rank.
    pub tensor: CubeTensor,
    /// Batch, channels, elements of a channel.
    pub shape: [usize; 3],
    /// From one to the next, in elements; 0 for an axis of 1.
    pub strides: [usize; 3],
}

impl View {
    /// `[b, c, ..]`. Copies where the axes after the second can't be walked as one.
    pub fn planes(tensor: CubeTensor) -> Self {
        Self::new(tensor, |rank| [0..1, 1..2, 2..rank])
    }

    /// `[.., c]` as so many batches of one element a channel. Copies where the axes before the last can't be walked
    /// as one.
    pub fn rows(tensor: CubeTensor) -> Self {
        Self::new(tensor, |rank| [0..rank - 1, rank - 1..rank, rank..rank])
    }

    fn new(tensor: CubeTensor, axes: impl Fn(usize) -> [std::ops::Range<usize>; 3]) -> Self {
        let view = |tensor: &CubeTensor| {
            let (shape, strides) = (tensor.meta.shape().as_slice(), &tensor.meta.strides()[..]);
            let axes = axes(shape.len());
            let [Some(b), Some(c), Some(n)] = axes.clone().map(|a| joined(&shape[a.clone()], &strides[a]))
            else {
                return None;
            };
            Some((axes.map(|a| shape[a].iter().product::<usize>()), [b, c, n]))
        };
        let there = if tensor.meta.is_tiled() { None } else { view(&tensor) };
        if let Some((shape, strides)) = there {
            return Self { tensor, shape, strides };
        }
        let tensor = into_contiguous(tensor);
        let axes = axes(tensor.meta.num_dims());
        let shape = axes.map(|a| tensor.meta.shape().as_slice()[a].iter().product::<usize>());
        Self { tensor, shape, strides: [shape[1] * shape[2], shape[2], 1] }
    }

    /// Whether neighbours in memory are channels.
    pub fn channels_last(&self) -> bool {
        self.shape[2] == 1 || (self.shape[1] > 1 && self.strides[1] < self.strides[2])
    }

    /// A new tensor of the same shape, its axes in the same order in memory, without gaps.
    pub fn empty_like(&self) -> Self {
        let shape = self.tensor.meta.shape().as_slice();
        let [_, c, n] = self.shape;
        if n > 1 && self.channels_last() {
            // [b, .., c] in memory, [b, c, ..] to the outside.
            let rank = shape.len();
            let lying: Vec<usize> = [&shape[..1], &shape[2..], &shape[1..2]].concat();
            let axes: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
            let tensor = permute(self.empty(lying), &axes);
            return Self { tensor, shape: self.shape, strides: [c * n, 1, c] };
        }
        // 0 for an axis of 1: vectors along channels, as a row's, ask the others for multiples.
        let element = if n == 1 { 0 } else { 1 };
        Self { tensor: self.empty(shape.to_vec()), shape: self.shape, strides: [c * n, n, element] }
    }

    fn empty(&self, shape: Vec<usize>) -> CubeTensor {
        let Self { tensor, .. } = self;
        let (client, device) = (tensor.client.clone(), tensor.device.clone());
        empty_device_contiguous_dtype(client, device, Shape::from(shape), tensor.dtype)
    }

    /// The tensor's memory as a kernel's argument.
    pub fn buffer(&self) -> BufferArg {
        self.tensor.clone().into_buffer_arg()
    }

    /// The tensor's element type.
    pub fn elements(&self) -> ElemType {
        dtype_to_storage_type(self.tensor.dtype)
    }
}

/// The stride that walks these axes in order, as if they were one; `None` where there isn't one.
fn joined(shape: &[usize], strides: &[usize]) -> Option<usize> {
    let mut axes = shape.iter().zip(strides).rev().filter(|(n, _)| **n > 1);
    let Some((n, first)) = axes.next() else { return Some(0) };
    let mut next = n * first;
    for (n, stride) in axes {
        if *stride != next {
            return None;
        }
        next = n * stride;
    }
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn axes_that_follow_each_other_are_one() {
        assert_eq!(joined(&[4, 5], &[5, 1]), Some(1));
        // Channels-last: rows and columns step over all channels.
        assert_eq!(joined(&[4, 5], &[35, 7]), Some(7));
        assert_eq!(joined(&[4, 1, 5], &[5, 99, 1]), Some(1));
        // Rows padded, axes swapped.
        assert_eq!(joined(&[4, 5], &[8, 1]), None);
        assert_eq!(joined(&[4, 5], &[1, 4]), None);
        // Repeated by a stride of 0, and nothing to walk.
        assert_eq!(joined(&[4, 5], &[0, 0]), Some(0));
        assert_eq!(joined(&[1, 1], &[3, 2]), Some(0));
        assert_eq!(joined(&[], &[]), Some(0));
    }
}

//! Linear layers of one input, Q, K and V of an attention above all, as one product: where their weights lie one after the
//! other in memory they are one matrix.

use burn::tensor::Shape;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::super::conv2d::{self, Convolution, Work};
use super::super::plane_tile::Columns;
use super::copies::copy;
use super::launch::dense;
use crate::conv2d::Conv2dOptions;

/// Widths of layers that are joined are multiples of this: no vector belongs to two.
const VECTOR: usize = 8;

/// The same weights, of one shape and type, in one piece of memory.
pub fn lay(weights: Vec<CubeTensor>) -> Vec<CubeTensor> {
    let weights: Vec<_> = weights.into_iter().map(dense).collect();
    let Some(first) = weights.first() else { return weights };
    let shape = first.meta.shape().clone();
    let whole = Shape::from([weights.len(), shape.num_elements()]);
    let whole = empty_device_contiguous_dtype(first.client.clone(), first.device.clone(), whole, first.dtype);
    let Some(places) = parts(&whole, weights.len(), &shape) else { return weights };
    let shapes = vec![[1, shape.num_elements(), 1]; weights.len()];
    copy(places.into_iter().zip(weights).map(<[CubeTensor; 2]>::from).collect(), &shapes)
}

/// The input `[.., d_input]`, then each layer's weight `[d_output, d_input]`, to the layers' outputs `[.., d_output]`.
pub fn project(tensors: Vec<CubeTensor>, work: Work) -> Vec<CubeTensor> {
    let mut tensors = tensors.into_iter();
    let Some(x) = tensors.next() else { return Vec::new() };
    let weights: Vec<_> = tensors.collect();
    joined(&x, &weights, work).unwrap_or_else(|| {
        let each = |weight: CubeTensor| {
            let unused = || weight.clone();
            conv2d::linear(x.clone(), weight.clone(), unused(), unused(), convolution(work))
        };
        weights.iter().cloned().map(each).collect()
    })
}

fn convolution(work: Work) -> Convolution {
    Convolution::new(Conv2dOptions { stride: [1, 1], padding: [[0, 0]; 2] }, work)
}

/// By one product, where the weights are one matrix and that is thought to be faster.
fn joined(x: &CubeTensor, weights: &[CubeTensor], work: Work) -> Option<Vec<CubeTensor>> {
    let (count, whole) = (weights.len(), one(weights)?);
    let [outputs, inputs] = weights[0].meta.shape().dims();
    let mut shape = x.meta.shape().clone();
    let rows = shape.num_elements() / inputs;
    let client = &x.client;
    let time = |outputs: usize, work: Work| {
        let (x, weight) = ([1, inputs, 1, rows], [outputs, inputs, 1, 1]);
        conv2d::division(client, x, weight, &convolution(work)).1
    };
    if !binds(x, rows * outputs) {
        return None;
    }
    let unsplit = Work { splits: Some(1), ..work };
    // Told splits are for tests.
    if work.splits.is_none() && time(count * outputs, unsplit) > count * time(outputs, work) {
        return None;
    }
    let convolution = Convolution { columns: Columns::Several(count), ..convolution(unsplit) };
    let y = conv2d::linear(x.clone(), whole.clone(), whole.clone(), whole, convolution);
    let last = shape.num_dims() - 1;
    shape[last] = outputs;
    parts(&y, count, &shape)
}

/// The matrix that these are parts of.
pub fn one(weights: &[CubeTensor]) -> Option<CubeTensor> {
    let first = weights.first()?;
    let [outputs, inputs] = first.meta.shape().dims();
    let bytes = (first.meta.shape().num_elements() * first.dtype.size()) as u64;
    let start = |x: &CubeTensor| x.handle.offset_start.unwrap_or(0);
    let follows = |(i, x): (usize, &CubeTensor)| {
        x.meta.shape() == first.meta.shape()
            && x.is_contiguous()
            && std::ptr::eq(x.handle.memory.descriptor(), first.handle.memory.descriptor())
            && start(x) == start(first) + i as u64 * bytes
    };
    if weights.len() < 2 || !outputs.is_multiple_of(VECTOR) || !weights.iter().enumerate().all(follows) {
        return None;
    }
    let mut handle = first.handle.clone();
    handle.offset_end = weights[weights.len() - 1].handle.offset_end;
    let shape = Shape::from([weights.len() * outputs, inputs]);
    Some(CubeTensor::new_contiguous(first.client.clone(), first.device.clone(), shape, handle, first.dtype))
}

/// `count` tensors of this shape, one after the other in the memory of `whole`; `None` where they would start at places that
/// the device does not bind.
fn parts(whole: &CubeTensor, count: usize, shape: &Shape) -> Option<Vec<CubeTensor>> {
    if !binds(whole, shape.num_elements()) {
        return None;
    }
    let bytes = (shape.num_elements() * whole.dtype.size()) as u64;
    let part = |i: u64| {
        let handle = whole.handle.clone().offset_start(i * bytes).offset_end((count as u64 - 1 - i) * bytes);
        let (client, device) = (whole.client.clone(), whole.device.clone());
        CubeTensor::new_contiguous(client, device, shape.clone(), handle, whole.dtype)
    };
    Some((0..count as u64).map(part).collect())
}

/// Whether the device binds memory at multiples of so many elements.
fn binds(x: &CubeTensor, elements: usize) -> bool {
    ((elements * x.dtype.size()) as u64).is_multiple_of(x.client.properties().memory.alignment)
}

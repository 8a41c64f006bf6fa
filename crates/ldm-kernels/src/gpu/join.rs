//! Two maps' channels side by side, and the gradients of both: a vector of the joined map a unit.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::tensor::Shape;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

use super::known::{is_known, or_known};
use super::view::View;
use super::walk::{Units, cubes};

/// `[b, c, h, w]` and `[b, c', h, w]` -> `[b, c + c', h, w]`, channels-last.
pub fn forward(left: CubeTensor, right: CubeTensor) -> CubeTensor {
    let [b, _, height, width] = left.meta.shape().dims();
    let (left, right) = (lying(left), lying(right));
    let (client, elements) = (left.tensor.client.clone(), left.elements());
    let channels = left.shape[1] + right.shape[1];
    let fits = |n: usize, x: &View| x.shape[1].is_multiple_of(n) && x.strides[2].is_multiple_of(n);
    let vector = client
        .io_optimized_vector_sizes(left.tensor.dtype.size())
        .find(|n| [&left, &right].iter().all(|x| fits(*n, x) && x.strides[0].is_multiple_of(*n)))
        .unwrap_or(1);
    let shape = Shape::from([b, height, width, channels]);
    let y =
        empty_device_contiguous_dtype(client.clone(), left.tensor.device.clone(), shape, left.tensor.dtype);
    let count = b * left.shape[2] * channels / vector;
    let units = Units::together(&client);
    let [lefts, rights] = [&left, &right].map(|x| [x.strides[0] / vector, x.strides[2] / vector]);
    let (pixels, widths) = (left.shape[2], [&left, &right].map(|x| x.shape[1] / vector));
    let known = is_known(&client)
        .then_some([lefts[0], lefts[1], rights[0], rights[1], pixels, widths[0], widths[1], count]);
    // SAFETY: the indices are in the views; units beyond the output end at once.
    unsafe {
        join_kernel::launch_unchecked(
            &client,
            cubes(&client, count.div_ceil(units.across)),
            units.dim(),
            vector,
            left.buffer(),
            right.buffer(),
            y.clone().into_buffer_arg(),
            StepsLaunch::new(lefts[0], lefts[1]),
            StepsLaunch::new(rights[0], rights[1]),
            pixels,
            widths[0],
            widths[1],
            count,
            known,
            elements,
        );
    }
    permute(y, &[0, 3, 1, 2])
}

/// The gradients of both, of which the left one has so many channels, from that of the joined map: channels-last as they are.
#[cfg(feature = "autodiff")]
pub fn backward(gradient: CubeTensor, left: usize) -> (CubeTensor, CubeTensor) {
    let [b, channels, height, width] = gradient.meta.shape().dims();
    let right = channels - left;
    let gradient = lying(gradient);
    let (client, elements) = (gradient.tensor.client.clone(), gradient.elements());
    let vector = client
        .io_optimized_vector_sizes(gradient.tensor.dtype.size())
        .find(|n| {
            [left, right, gradient.strides[0], gradient.strides[2]].iter().all(|x| x.is_multiple_of(*n))
        })
        .unwrap_or(1);
    let empty = |channels: usize| {
        let (device, shape) = (gradient.tensor.device.clone(), Shape::from([b, height, width, channels]));
        empty_device_contiguous_dtype(client.clone(), device, shape, gradient.tensor.dtype)
    };
    let (lefts, rights) = (empty(left), empty(right));
    let count = b * height * width * channels / vector;
    let units = Units::together(&client);
    // SAFETY: the indices are in the views; units beyond the gradient end at once.
    unsafe {
        split_kernel::launch_unchecked(
            &client,
            cubes(&client, count.div_ceil(units.across)),
            units.dim(),
            vector,
            gradient.buffer(),
            lefts.clone().into_buffer_arg(),
            rights.clone().into_buffer_arg(),
            StepsLaunch::new(gradient.strides[0] / vector, gradient.strides[2] / vector),
            height * width,
            left / vector,
            right / vector,
            count,
            elements,
        );
    }
    (permute(lefts, &[0, 3, 1, 2]), permute(rights, &[0, 3, 1, 2]))
}

/// A view with its channels together; copies where they aren't.
fn lying(x: CubeTensor) -> View {
    let view = View::planes(x);
    if view.shape[1] == 1 || view.strides[1] == 1 {
        return view;
    }
    let rank = view.tensor.meta.num_dims();
    let last: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
    let back: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    View::planes(permute(into_contiguous(permute(view.tensor, &last)), &back))
}

/// From one to the next of a view, in vectors.
#[derive(CubeType, CubeLaunch)]
struct Steps {
    /// Pictures.
    picture: usize,
    /// Pixels.
    pixel: usize,
}

#[cube(launch_unchecked)]
fn join_kernel<E: Float, N: Size>(
    left: &[Vector<E, N>],
    right: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    lefts: &Steps,
    rights: &Steps,
    pixels: usize,
    left_width: usize,
    right_width: usize,
    count: usize,
    #[comptime] known: Option<[usize; 8]>,
    #[define(E)] _dtype: ElemType,
) {
    let (left_picture, left_pixel) = (
        or_known(lefts.picture, comptime![known.map(|n| n[0])]),
        or_known(lefts.pixel, comptime![known.map(|n| n[1])]),
    );
    let (right_picture, right_pixel) = (
        or_known(rights.picture, comptime![known.map(|n| n[2])]),
        or_known(rights.pixel, comptime![known.map(|n| n[3])]),
    );
    let pixels = or_known(pixels, comptime![known.map(|n| n[4])]);
    let left_width = or_known(left_width, comptime![known.map(|n| n[5])]);
    let right_width = or_known(right_width, comptime![known.map(|n| n[6])]);
    let i = ABSOLUTE_POS;
    if i >= or_known(count, comptime![known.map(|n| n[7])]) {
        terminate!();
    }
    let channel = i % (left_width + right_width);
    let pixel = i / (left_width + right_width) % pixels;
    let picture = i / (left_width + right_width) / pixels;
    if channel < left_width {
        y[i] = left[picture * left_picture + pixel * left_pixel + channel];
    } else {
        y[i] = right[picture * right_picture + pixel * right_pixel + channel - left_width];
    }
}

#[cfg(feature = "autodiff")]
#[cube(launch_unchecked)]
fn split_kernel<E: Float, N: Size>(
    gradient: &[Vector<E, N>],
    left: &mut [Vector<E, N>],
    right: &mut [Vector<E, N>],
    steps: &Steps,
    pixels: usize,
    left_width: usize,
    right_width: usize,
    count: usize,
    #[define(E)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= count {
        terminate!();
    }
    let channel = i % (left_width + right_width);
    let pixel = i / (left_width + right_width);
    let value = gradient[pixel / pixels * steps.picture + pixel % pixels * steps.pixel + channel];
    if channel < left_width {
        left[pixel * left_width + channel] = value;
    } else {
        right[pixel * right_width + channel - left_width] = value;
    }
}

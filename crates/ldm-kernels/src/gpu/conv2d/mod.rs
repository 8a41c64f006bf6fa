//! 2-d convolution as one matrix product, pixels by output channels, whose left operand is read from the picture as it is
//! needed and never laid out (implicit GEMM).
//!
//! A cube of four planes makes a tile of 64 pixels by 64 output channels in steps of 32 of the depth, which is the
//! kernel's taps and, within each, the input's channels. A step's operands come from memory to registers while the step
//! before is multiplied, and then to shared memory. Few tiles would leave most of a device idle, so splits of the depth
//! go to cubes of their own, and a second kernel adds the parts up in order: the same sums every time ([`combine`]).
//!
//! Tensors are read where they lie. Fast is what burn's convolutions leave: pictures with neighbouring channels together
//! (channels-last), and weights that are physically `[c_out, kh, kw, c_in]`. The output is channels-last.
//!
//! What bounds it from below: `2 b h' w' c_out c_in kh kw` operations of the matrix units, or the bytes of input, weights
//! and output, whichever takes longer. Known weaknesses: blocks of 16x16x16 by each plane for itself, where the newest
//! devices (wgmma on Hopper) need whole groups of planes for their full rate; loads through registers with two barriers a
//! step and one buffer, where asynchronous copies would keep several steps on their way; each element of the input is
//! brought to shared memory once a tap; a tile of 64x64 reads shared memory often for what it computes; the parts of
//! splits go through memory in f32. Nobody has measured it.

mod combine;
mod fetch;
mod plan;
mod product;

pub use plan::Work;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

use super::walk::{Units, cubes};
use crate::conv2d::Conv2dOptions;
use combine::combine_kernel;
use fetch::{Fetch, SizesLaunch, StridesLaunch};
use plan::{PLANES, Splits, TILE};
use product::{Form, product_kernel};

/// What the kernel is told beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Convolution {
    /// Stride and padding.
    pub options: Conv2dOptions,
    /// Whether the weights' taps are taken from the last to the first.
    pub mirrored: bool,
    /// Whether there is a bias; any tensor stands in for it where there isn't.
    pub bias: bool,
    /// Whether there is an addend; any tensor stands in for it where there isn't.
    pub addend: bool,
    /// Who does what.
    pub work: Work,
}

/// Whether the device does it, and how. The kernel wants matrix units.
pub fn work(client: &Client, dtype: DType) -> Option<Work> {
    Work::new(client, dtype_to_storage_type(dtype), false)
}

/// Whether the kernel fits in the padded picture, and the output can be counted.
pub fn fits(x: [usize; 4], weight: [usize; 4], options: Conv2dOptions) -> bool {
    let fits = |i: usize| x[2 + i] + options.padding[i].iter().sum::<usize>() >= weight[2 + i];
    x[1] == weight[1]
        && weight.iter().all(|n| *n > 0)
        && options.stride.iter().all(|n| *n > 0)
        && (0..2).all(fits)
        && output(x, weight, options).iter().product::<usize>() <= i32::MAX as usize
}

/// The output's shape.
pub fn output(x: [usize; 4], weight: [usize; 4], options: Conv2dOptions) -> [usize; 4] {
    let side = |i: usize| {
        let padded = x[2 + i] + options.padding[i].iter().sum::<usize>();
        (padded - weight[2 + i]) / options.stride[i] + 1
    };
    [x[0], weight[0], side(0), side(1)]
}

/// [`output`] of shapes, as fusion asks for it.
#[cfg(feature = "fusion")]
pub fn shape(x: &Shape, weight: &Shape, convolution: &Convolution) -> Shape {
    Shape::from(output(x.dims(), weight.dims(), convolution.options))
}

/// `x` `[b, c_in, h, w]`, `weight` `[c_out, c_in, kh, kw]`, `bias` `[c_out]`, `addend` and the result
/// `[b, c_out, h', w']`, the result channels-last. The sizes [fit](fits).
pub fn forward(
    x: CubeTensor,
    weight: CubeTensor,
    bias: CubeTensor,
    addend: CubeTensor,
    convolution: Convolution,
) -> CubeTensor {
    let Convolution { options, mirrored, bias: has_bias, addend: has_addend, work } = convolution;
    let (x, weight) = (strided(x), strided(weight));
    let (x_dims, w_dims) = (dims(&x), dims(&weight));
    let [b, outputs, height, width] = output(x_dims, w_dims, options);
    let ([_, channels, input_height, input_width], [_, _, kernel_height, kernel_width]) = (x_dims, w_dims);
    let bias = if has_bias { into_contiguous(bias) } else { bias };
    let addend = if has_addend { into_contiguous(permute(addend, &[0, 2, 3, 1])) } else { addend };

    let pixels = b * height * width;
    let tiles = pixels.div_ceil(TILE) * outputs.div_ceil(TILE);
    let (client, device, dtype) = (x.client.clone(), x.device.clone(), x.dtype);
    let splits = Splits::new(&client, tiles, kernel_height * kernel_width * channels, work.splits);
    let split = splits.count > 1;

    let units = work.tile.units * PLANES;
    let from = Lines::new(&x, &[1], units);
    // The weights of an input's gradient lie with neighbouring output channels together.
    let taps = Lines::new(&weight, &[1, 0], units);
    let empty = |shape: Vec<usize>, dtype: DType| {
        empty_device_contiguous_dtype(client.clone(), device.clone(), Shape::from(shape), dtype)
    };
    let y = empty(vec![b, height, width, outputs], dtype);
    let parts = if split { empty(vec![splits.count, pixels, outputs], DType::F32) } else { y.clone() };
    let vector = widest(&parts, |n| outputs.is_multiple_of(n));
    let form = Form {
        tile: work.tile,
        x: from.fetch,
        weight: taps.fetch,
        mirrored,
        bias: has_bias && !split,
        addend: has_addend && !split,
    };
    // SAFETY: what is read is in the tensors' bounds and what is written in the output's, both by comparisons; cubes beyond
    // the last tile end at once.
    unsafe {
        product_kernel::launch_unchecked(
            &client,
            cubes(&client, tiles * splits.count),
            CubeDim::new_2d(work.tile.units as u32, PLANES as u32),
            from.fetch.vector,
            taps.fetch.vector,
            vector,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            addend.clone().into_buffer_arg(),
            parts.clone().into_buffer_arg(),
            SizesLaunch::new(
                pixels,
                height,
                width,
                outputs,
                input_height,
                input_width,
                channels,
                kernel_height,
                kernel_width,
                options.stride[0],
                options.stride[1],
                options.padding[0][0],
                options.padding[1][0],
            ),
            from.strides(),
            taps.strides(),
            splits.count,
            splits.length,
            form,
            dtype_to_storage_type(dtype),
            dtype_to_storage_type(parts.dtype),
        );
    }
    if split {
        let count = pixels * outputs / vector;
        let units = Units::together(&client);
        // SAFETY: the indices are in the tensors; units beyond the output end at once.
        unsafe {
            combine_kernel::launch_unchecked(
                &client,
                cubes(&client, count.div_ceil(units.across)),
                units.dim(),
                vector,
                parts.into_buffer_arg(),
                bias.into_buffer_arg(),
                addend.into_buffer_arg(),
                y.clone().into_buffer_arg(),
                splits.count,
                count,
                outputs,
                has_bias,
                has_addend,
                dtype_to_storage_type(dtype),
            );
        }
    }
    permute(y, &[0, 3, 1, 2])
}

/// How a `[rows, depth, height, width]` tensor is read.
struct Lines {
    fetch: Fetch,
    /// The axis that vectors lie along.
    axis: usize,
    /// In elements.
    strides: [usize; 4],
}

impl Lines {
    /// Along the first of the axes (0: rows, 1: depth) whose elements are neighbours. Where none's are, one element after
    /// the other: in the depth, or along the pixels where these are closer together.
    fn new(tensor: &CubeTensor, axes: &[usize], units: usize) -> Self {
        let dims = dims(tensor);
        // An axis of one element has no stride.
        let strides: [usize; 4] =
            std::array::from_fn(|i| if dims[i] == 1 { 0 } else { tensor.meta.strides()[i] });
        let fits = |axis: usize, n: usize| {
            dims[axis].is_multiple_of(n) && (0..4).all(|i| i == axis || strides[i].is_multiple_of(n))
        };
        let dense = axes.iter().find(|axis| strides[**axis] == 1);
        let (deep, axis, vector) = match dense {
            Some(axis) => (*axis == 1, *axis, widest(tensor, |n| fits(*axis, n))),
            None => (axes != [1] || strides[1] < strides[3], 1, 1),
        };
        Self { fetch: Fetch { deep, vector, units }, axis, strides }
    }

    /// In vectors, as a kernel's argument.
    fn strides(&self) -> StridesLaunch {
        let stride = |i: usize| {
            if i == self.axis { self.strides[i] } else { self.strides[i] / self.fetch.vector }
        };
        StridesLaunch::new(stride(0), stride(1), stride(2), stride(3))
    }
}

/// The widest vector of the tensor's elements that the kernel can use there.
fn widest(tensor: &CubeTensor, fits: impl Fn(usize) -> bool) -> usize {
    let mut sizes = tensor.client.io_optimized_vector_sizes(tensor.dtype.size());
    sizes.find(|n| *n <= Fetch::WIDEST && fits(*n)).unwrap_or(1)
}

/// As strides describe it.
fn strided(tensor: CubeTensor) -> CubeTensor {
    if tensor.meta.is_tiled() { into_contiguous(tensor) } else { tensor }
}

fn dims(tensor: &CubeTensor) -> [usize; 4] {
    tensor.meta.shape().dims()
}

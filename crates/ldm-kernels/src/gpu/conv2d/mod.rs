//! 2-d convolution as one matrix product, pixels by output channels, whose left operand is read from the picture as
//! it is needed and never laid out (implicit GEMM).
//!
//! A cube of four planes makes a tile of 64 pixels by 64 output channels in steps of 32 of the depth, which is the
//! kernel's taps and, within each, the input's channels. A step's operands come from memory to registers while the
//! step before is multiplied, and then to shared memory. Few tiles would leave most of a device idle, so splits of
//! the depth go to cubes of their own, and a second kernel adds the parts up in order: the same sums every time
//! ([`combine`]).
//!
//! Tensors are read where they lie. Fast is what burn's convolutions leave: pictures with neighbouring channels
//! together (channels-last), and weights that are physically `[c_out, kh, kw, c_in]`. Pictures in rows are read an
//! element at a time, neighbouring units along a row. Weights as PyTorch keeps them are laid out anew where more than
//! one tile of pixels reads them. The output is channels-last.
//!
//! What bounds it from below: `2 b h' w' c_out c_in kh kw` operations of the matrix units, or the bytes of input,
//! weights and output, whichever takes longer. Known weaknesses, none of them measured:
//! - Blocks of 16x16x16 by each plane for itself; the newest devices reach their full rate with groups of planes only
//!   (wgmma on Hopper).
//! - Loads go through registers, with one buffer and two barriers a step; asynchronous copies would keep several
//!   steps on their way.
//! - A tile of 64x64 reads shared memory often for what it multiplies, and each element of the input is brought there
//!   once a tap.
//! - The parts of splits go through memory in f32.
//! - Where a strided convolution's output gradient is spread, the zeros between are multiplied too.

mod combine;
mod fetch;
mod geometry;
mod lines;
mod plan;
mod product;
mod tile;
#[cfg(feature = "autodiff")]
mod weights;

pub use plan::Work;
#[cfg(feature = "autodiff")]
pub use weights::weight_gradient;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
#[cfg(feature = "fusion")]
use burn::tensor::Shape;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

use super::walk::cubes;
use crate::conv2d::Conv2dOptions;
use combine::{Parts, combine};
use geometry::SizesLaunch;
use lines::{Lines, dims, laid_out, strided};
use plan::{PLANES, Splits, TILE};
use product::{Form, product_kernel};

/// What the kernel is told beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Convolution {
    /// Stride and padding.
    pub options: Conv2dOptions,
    /// From a row, and a column, of the input to the next, where zeros lie between them.
    pub spread: [usize; 2],
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
    spread_output(x, weight, options, [1, 1])
}

/// The output's shape, where the input is spread.
fn spread_output(
    x: [usize; 4],
    weight: [usize; 4],
    options: Conv2dOptions,
    spread: [usize; 2],
) -> [usize; 4] {
    let side = |i: usize| {
        let padded = spread_side(x[2 + i], spread[i]) + options.padding[i].iter().sum::<usize>();
        (padded - weight[2 + i]) / options.stride[i] + 1
    };
    [x[0], weight[0], side(0), side(1)]
}

/// Rows or columns with zeros between them.
fn spread_side(n: usize, spread: usize) -> usize {
    (n - 1) * spread + 1
}

/// The padding with which the output's gradient, spread by the stride, makes the input's with the mirrored weights;
/// `None` where the padding is wider than the kernel reaches.
#[cfg(feature = "autodiff")]
pub fn input_padding(
    x: [usize; 4],
    weight: [usize; 4],
    y: [usize; 4],
    options: Conv2dOptions,
) -> Option<[[usize; 2]; 2]> {
    let side = |i: usize| {
        let before = options.padding[i][0];
        let after = (x[2 + i] + before).checked_sub(spread_side(y[2 + i], options.stride[i]))?;
        Some([(weight[2 + i] - 1).checked_sub(before)?, after])
    };
    Some([side(0)?, side(1)?])
}

/// [`output`] of shapes, as fusion asks for it.
#[cfg(feature = "fusion")]
pub fn shape(x: &Shape, weight: &Shape, convolution: &Convolution) -> Shape {
    let Convolution { options, spread, .. } = *convolution;
    Shape::from(spread_output(x.dims(), weight.dims(), options, spread))
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
    let Convolution { options, spread, mirrored, bias: has_bias, addend: has_addend, work } = convolution;
    let (x, weight) = (strided(x), strided(weight));
    let (x_dims, w_dims) = (dims(&x), dims(&weight));
    let y_dims = spread_output(x_dims, w_dims, options, spread);
    let [b, outputs, height, width] = y_dims;
    let bias = if has_bias { into_contiguous(bias) } else { bias };
    let addend = if has_addend { into_contiguous(permute(addend, &[0, 2, 3, 1])) } else { addend };

    let client = x.client.clone();
    let rows = b * height * width;
    let weight = laid_out(weight, rows > TILE);
    let splits = Splits::new(&client, [rows, outputs], w_dims[1..].iter().product(), work.splits);
    let parts = Parts::new(&x, [b, height, width, outputs], splits.count);
    let split = splits.count > 1;
    let units = work.tile.units * PLANES;
    let (from, taps) = (Lines::pixels(&x, units), Lines::weights(&weight, units));
    let form = Form {
        tile: work.tile,
        x: from.fetch,
        weight: taps.fetch,
        mirrored,
        spread: spread != [1, 1],
        bias: has_bias && !split,
        addend: has_addend && !split,
    };
    // SAFETY: what is read is in the tensors' bounds and what is written in the output's, both by comparisons; cubes
    // beyond the last tile end at once.
    unsafe {
        product_kernel::launch_unchecked(
            &client,
            cubes(&client, splits.cubes()),
            CubeDim::new_2d(work.tile.units as u32, PLANES as u32),
            from.fetch.vector,
            taps.fetch.vector,
            parts.vector,
            x.clone().into_buffer_arg(),
            weight.into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            addend.clone().into_buffer_arg(),
            parts.sums.clone().into_buffer_arg(),
            sizes(x_dims, w_dims, y_dims, options, spread),
            from.strides(),
            taps.strides(),
            splits.count,
            splits.length,
            form,
            dtype_to_storage_type(x.dtype),
            dtype_to_storage_type(parts.sums.dtype),
        );
    }
    permute(combine(parts, bias, addend, has_bias, has_addend), &[0, 3, 1, 2])
}

/// As a kernel's argument.
fn sizes(
    x: [usize; 4],
    weight: [usize; 4],
    y: [usize; 4],
    Conv2dOptions { stride, padding }: Conv2dOptions,
    spread: [usize; 2],
) -> SizesLaunch {
    SizesLaunch::new(
        x[0],
        y[2],
        y[3],
        weight[0],
        spread_side(x[2], spread[0]),
        spread_side(x[3], spread[1]),
        weight[1],
        weight[2],
        weight[3],
        stride[0],
        stride[1],
        padding[0][0],
        padding[1][0],
        spread[0],
        spread[1],
    )
}

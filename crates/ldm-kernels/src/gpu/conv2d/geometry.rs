//! Pictures, taps and pixels as the kernels count them.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// What the kernels know of a convolution.
#[derive(CubeType, CubeLaunch)]
pub struct Sizes {
    /// Pictures.
    pub batch: usize,
    /// Rows of an output.
    pub height: usize,
    /// Columns of an output.
    pub width: usize,
    /// Channels of an output.
    pub outputs: usize,
    /// Rows of an input, as spread out.
    pub input_height: usize,
    /// Columns of an input, as spread out.
    pub input_width: usize,
    /// Channels of an input.
    pub channels: usize,
    /// Rows of the kernel.
    pub kernel_height: usize,
    /// Columns of the kernel.
    pub kernel_width: usize,
    /// From an output's row to the next, in rows of the input.
    pub down: usize,
    /// From an output's column to the next, in columns of the input.
    pub across: usize,
    /// Rows of zeros above.
    pub above: usize,
    /// Columns of zeros at the left.
    pub left: usize,
    /// From an input's row to the next where zeros lie between them.
    pub spread_down: usize,
    /// From an input's column to the next where zeros lie between them.
    pub spread_across: usize,
}

/// One tensor's strides, in vectors.
#[derive(CubeType, CubeLaunch)]
pub struct Strides {
    /// To the next picture; of weights: output channel.
    pub outer: usize,
    /// To the next channel.
    pub channel: usize,
    /// To the next row.
    pub row: usize,
    /// To the next column.
    pub column: usize,
}

/// `i` counted as so many inner and middle ones: `[inner, middle, outer]`, at a place of `digits`.
#[cube]
pub fn count(digits: &mut Array<usize>, #[comptime] at: usize, i: usize, inner: usize, middle: usize) {
    digits[at] = i % inner;
    digits[comptime![at + 1]] = i / inner % middle;
    digits[comptime![at + 2]] = i / inner / middle;
}

/// Counts on by so many.
#[cube]
pub fn advance(digits: &mut Array<usize>, inner: usize, middle: usize, #[comptime] by: usize) {
    digits[0] += by;
    while digits[0] >= inner {
        digits[0] -= inner;
        digits[1] += 1usize;
        if digits[1] == middle {
            digits[1] = 0usize;
            digits[2] += 1usize;
        }
    }
}

/// Where an output pixel `[column, row, picture]` begins in the input: the picture's start, the row and column of its
/// first tap, counted from the padding's corner. A pixel beyond the last begins below the picture.
#[cube]
pub fn corner(
    corners: &mut Array<usize>,
    #[comptime] at: usize,
    pixel: &Array<usize>,
    sizes: &Sizes,
    strides: &Strides,
) {
    let below = sizes.input_height + sizes.above;
    corners[at] = pixel[2] * strides.outer;
    corners[comptime![at + 1]] = select(pixel[2] < sizes.batch, pixel[1] * sizes.down, below);
    corners[comptime![at + 2]] = pixel[0] * sizes.across;
}

/// A vector of the input, of a tap `[channel, column, row]` from a [`corner`]; zero outside of the picture, and
/// beyond the last tap.
#[cube]
pub fn input<E: Float, N: Size>(
    x: &[Vector<E, N>],
    corners: &Array<usize>,
    #[comptime] corner: usize,
    taps: &Array<usize>,
    #[comptime] tap: usize,
    sizes: &Sizes,
    strides: &Strides,
    #[comptime] spread: bool,
) -> Vector<E, N> {
    let mut v = Vector::<E, N>::new(E::from_int(0));
    let tap_row = taps[comptime![tap + 2]];
    let row = corners[comptime![corner + 1]] + tap_row;
    let column = corners[comptime![corner + 2]] + taps[comptime![tap + 1]];
    let mut there = tap_row < sizes.kernel_height
        && row >= sizes.above
        && row < sizes.above + sizes.input_height
        && column >= sizes.left
        && column < sizes.left + sizes.input_width;
    let mut row = row - sizes.above;
    let mut column = column - sizes.left;
    if comptime![spread] {
        there = there && row.is_multiple_of(sizes.spread_down) && column.is_multiple_of(sizes.spread_across);
        row /= sizes.spread_down;
        column /= sizes.spread_across;
    }
    if there {
        let place = corners[corner] + row * strides.row + column * strides.column;
        v = x[place + taps[tap] / N::value() * strides.channel];
    }
    v
}

/// A vector of the weights of a tap; zero beyond them. `outer` is the output channel, in vectors where they lie along
/// it and not along the input channels.
#[cube]
pub fn weight<E: Float, N: Size>(
    weights: &[Vector<E, N>],
    outer: usize,
    there: bool,
    tap: &Array<usize>,
    sizes: &Sizes,
    strides: &Strides,
    #[comptime] deep: bool,
    #[comptime] mirrored: bool,
) -> Vector<E, N> {
    let mut v = Vector::<E, N>::new(E::from_int(0));
    if there && tap[2] < sizes.kernel_height {
        let mut row = tap[2];
        let mut column = tap[1];
        if comptime![mirrored] {
            row = sizes.kernel_height - 1usize - row;
            column = sizes.kernel_width - 1usize - column;
        }
        let mut channel = tap[0];
        if comptime![deep] {
            channel /= N::value();
        }
        let place = outer * strides.outer + row * strides.row + column * strides.column;
        v = weights[place + channel * strides.channel];
    }
    v
}

/// A vector of the output's gradient at a pixel, of a channel or, where there are several in one, vector of channels.
#[cfg(feature = "autodiff")]
#[cube]
pub fn output<E: Float, N: Size>(
    gradient: &[Vector<E, N>],
    channel: usize,
    there: bool,
    pixel: &Array<usize>,
    sizes: &Sizes,
    strides: &Strides,
) -> Vector<E, N> {
    let mut v = Vector::<E, N>::new(E::from_int(0));
    if there && pixel[2] < sizes.batch {
        let place = pixel[2] * strides.outer + pixel[1] * strides.row + pixel[0] * strides.column;
        v = gradient[place + channel * strides.channel];
    }
    v
}

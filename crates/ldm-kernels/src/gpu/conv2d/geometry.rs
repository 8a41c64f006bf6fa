//! Pictures, taps and pixels as the kernels count them.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::known::or_known;

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

/// Sizes and strides of one product, in the order of [`Sizes`]' and [`Strides`]' fields: what a kernel that is compiled for it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Known {
    /// Of the convolution.
    pub sizes: [usize; 15],
    /// Of the input.
    pub from: [usize; 4],
    /// Of the weights.
    pub taps: [usize; 4],
}

impl SizesLaunch {
    /// As a kernel's argument.
    pub fn of(n: [usize; 15]) -> Self {
        Self::new(
            n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13], n[14],
        )
    }
}

impl StridesLaunch {
    /// As a kernel's argument.
    pub fn of([outer, channel, row, column]: [usize; 4]) -> Self {
        Self::new(outer, channel, row, column)
    }
}

#[cube]
impl Sizes {
    /// These, or those that are known when the kernel is compiled.
    pub fn or_known(&self, #[comptime] n: Option<[usize; 15]>) -> Sizes {
        Sizes {
            batch: or_known(self.batch, comptime![n.map(|n| n[0])]),
            height: or_known(self.height, comptime![n.map(|n| n[1])]),
            width: or_known(self.width, comptime![n.map(|n| n[2])]),
            outputs: or_known(self.outputs, comptime![n.map(|n| n[3])]),
            input_height: or_known(self.input_height, comptime![n.map(|n| n[4])]),
            input_width: or_known(self.input_width, comptime![n.map(|n| n[5])]),
            channels: or_known(self.channels, comptime![n.map(|n| n[6])]),
            kernel_height: or_known(self.kernel_height, comptime![n.map(|n| n[7])]),
            kernel_width: or_known(self.kernel_width, comptime![n.map(|n| n[8])]),
            down: or_known(self.down, comptime![n.map(|n| n[9])]),
            across: or_known(self.across, comptime![n.map(|n| n[10])]),
            above: or_known(self.above, comptime![n.map(|n| n[11])]),
            left: or_known(self.left, comptime![n.map(|n| n[12])]),
            spread_down: or_known(self.spread_down, comptime![n.map(|n| n[13])]),
            spread_across: or_known(self.spread_across, comptime![n.map(|n| n[14])]),
        }
    }
}

#[cube]
impl Strides {
    /// These, or those that are known when the kernel is compiled.
    pub fn or_known(&self, #[comptime] n: Option<[usize; 4]>) -> Strides {
        Strides {
            outer: or_known(self.outer, comptime![n.map(|n| n[0])]),
            channel: or_known(self.channel, comptime![n.map(|n| n[1])]),
            row: or_known(self.row, comptime![n.map(|n| n[2])]),
            column: or_known(self.column, comptime![n.map(|n| n[3])]),
        }
    }
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

/// From a tap `[channel, column, row]` to the next, and from the last to the first of the next channels. Without branches: where their
/// ways join, NVIDIA's Vulkan compiler waits for what was asked for before.
#[cube]
pub fn next_tap(tap: &mut Array<usize>, sizes: &Sizes, #[comptime] channels: usize) {
    let column = tap[1] + 1usize;
    let across = column == sizes.kernel_width;
    let row = tap[2] + select(across, 1usize, 0usize);
    let down = row == sizes.kernel_height;
    tap[1] = select(across, 0usize, column);
    tap[2] = select(down, 0usize, row);
    tap[0] += select(down, comptime![channels].runtime(), 0usize);
}

/// Where an output pixel `[column, row, picture]` begins in the input: its first tap's place, which may lie outside and
/// wraps around then, and that tap's row and column, counted from the padding's corner. Where the input is `spread`, the
/// place is the picture's. A pixel beyond the last begins below the picture.
#[cube]
pub fn corner(
    corners: &mut Array<usize>,
    #[comptime] at: usize,
    pixel: &Array<usize>,
    sizes: &Sizes,
    strides: &Strides,
    #[comptime] spread: bool,
) {
    let below = sizes.input_height + sizes.above;
    let row = pixel[1] * sizes.down;
    let column = pixel[0] * sizes.across;
    let mut place = pixel[2] * strides.outer;
    if comptime![!spread] {
        place += row * strides.row + column * strides.column;
        place -= sizes.above * strides.row + sizes.left * strides.column;
    }
    corners[at] = place;
    corners[comptime![at + 1]] = select(pixel[2] < sizes.batch, row, below);
    corners[comptime![at + 2]] = column;
}

/// Where a vector lies, if it does.
#[derive(CubeType)]
pub struct Spot {
    /// In vectors; 0 where it isn't there.
    pub at: usize,
    /// Whether it is.
    pub there: bool,
}

/// A vector of the input, of a tap `[channel, column, row]` and so many channels further, from a [`corner`]; not there
/// outside of the picture, and beyond the last channel, unless `all` are. A `vector` is so many channels.
#[cube]
pub fn input(
    corners: &Array<usize>,
    #[comptime] corner: usize,
    taps: &Array<usize>,
    #[comptime] tap: usize,
    further: usize,
    sizes: &Sizes,
    strides: &Strides,
    #[comptime] spread: bool,
    #[comptime] vector: usize,
    #[comptime] all: bool,
) -> Spot {
    let channel = taps[tap] + further;
    let (tap_row, tap_column) = (taps[comptime![tap + 2]], taps[comptime![tap + 1]]);
    // What lies above or to the left wraps around to more than there is.
    let row = corners[comptime![corner + 1]] + tap_row - sizes.above;
    let column = corners[comptime![corner + 2]] + tap_column - sizes.left;
    let mut there = channel < sizes.channels && row < sizes.input_height && column < sizes.input_width;
    let of_tap = channel / vector * strides.channel;
    let mut at = corners[corner] + of_tap;
    if comptime![spread] {
        there = there && row.is_multiple_of(sizes.spread_down) && column.is_multiple_of(sizes.spread_across);
        at += row / sizes.spread_down * strides.row + column / sizes.spread_across * strides.column;
    } else {
        at += tap_row * strides.row + tap_column * strides.column;
    }
    spot(at, there, all)
}

/// A place, if the vector is there; where `all` are, without a question.
#[cube]
fn spot(at: usize, there: bool, #[comptime] all: bool) -> Spot {
    if comptime![all] {
        Spot { at, there: true.runtime() }
    } else {
        Spot { at: select(there, at, 0usize), there }
    }
}

/// A vector of the weights of a tap `[channel, column, row]` and so many channels further; not there beyond them. `outer`
/// is the output channel, in vectors where they lie along it and not (`deep`) along the input channels, so many in one.
#[cube]
pub fn weight(
    outer: usize,
    there: bool,
    tap: &Array<usize>,
    further: usize,
    sizes: &Sizes,
    strides: &Strides,
    #[comptime] deep: bool,
    #[comptime] vector: usize,
    #[comptime] mirrored: bool,
    #[comptime] all: bool,
) -> Spot {
    let mut channel = tap[0] + further;
    let there = there && channel < sizes.channels;
    let mut row = tap[2];
    let mut column = tap[1];
    if comptime![mirrored] {
        row = sizes.kernel_height - 1usize - row;
        column = sizes.kernel_width - 1usize - column;
    }
    if comptime![deep] {
        channel /= vector;
    }
    let of_tap = row * strides.row + column * strides.column + channel * strides.channel;
    spot(outer * strides.outer + of_tap, there, all)
}

/// A vector of the output's gradient at a pixel, of a channel or, where there are several in one, vector of channels.
#[cfg(feature = "autodiff")]
#[cube]
pub fn output(channel: usize, there: bool, pixel: &Array<usize>, sizes: &Sizes, strides: &Strides) -> Spot {
    let there = there && pixel[2] < sizes.batch;
    let place = pixel[2] * strides.outer + pixel[1] * strides.row + pixel[0] * strides.column;
    Spot { at: select(there, place + channel * strides.channel, 0usize), there }
}

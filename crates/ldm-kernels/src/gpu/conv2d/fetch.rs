//! How a cube's units bring a `[64 rows, 32 deep]` tile of an operand into shared memory.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::cmma::MatrixLayout;
use burn_cubecl::cubecl::prelude::*;

use super::plan::{DEPTH, TILE};

/// Between the lines of a tile, so that they start in different banks.
const GAP: usize = 8;

/// Which unit brings what. A line is what neighbouring units bring: neighbours in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// Whether a line is 32 elements deep at one row; otherwise it is 64 rows at one depth.
    pub deep: bool,
    /// Elements of a vector, along the line.
    pub vector: usize,
    /// Units of the cube.
    pub units: usize,
}

impl Fetch {
    /// The most elements of a vector: lines are multiples of it, with the gap after them.
    pub const WIDEST: usize = GAP;
    /// The most elements of a tile in shared memory.
    pub const LARGEST: usize = TILE * (DEPTH + GAP);

    /// Elements of a line.
    fn line(self) -> usize {
        if self.deep { DEPTH } else { TILE }
    }

    /// Vectors of a line.
    pub fn across(self) -> usize {
        self.line() / self.vector
    }

    /// Lines that the units bring at once.
    pub fn lines(self) -> usize {
        self.units / self.across()
    }

    /// Vectors that a unit brings.
    pub fn passes(self) -> usize {
        TILE * DEPTH / self.vector / self.units
    }

    /// Rows among them.
    pub fn rows(self) -> usize {
        if self.deep { self.passes() } else { 1 }
    }

    /// How much deeper the vector after `pass` lies.
    pub fn ahead(self, pass: usize) -> usize {
        match self.deep {
            true if pass + 1 < self.passes() => 0,
            true => DEPTH,
            false => self.lines(),
        }
    }

    /// From a line to the next in shared memory, in elements.
    pub fn stride(self) -> usize {
        self.line() + GAP
    }

    /// The tile in shared memory, in vectors.
    pub fn size(self) -> usize {
        TILE * DEPTH / self.line() * self.stride() / self.vector
    }

    /// Of a pass' line, in vectors.
    pub fn pass(self, pass: usize) -> usize {
        pass * self.lines() * self.stride() / self.vector
    }

    /// From a row to the next and from a depth to the next, in elements.
    pub fn steps(self) -> (usize, usize) {
        if self.deep { (self.stride(), 1) } else { (1, self.stride()) }
    }

    /// The tile's layout as the left operand, rows by depth.
    pub fn left(self) -> MatrixLayout {
        if self.deep { MatrixLayout::RowMajor } else { MatrixLayout::ColMajor }
    }

    /// The tile's layout as the right operand, depth by rows.
    pub fn right(self) -> MatrixLayout {
        if self.deep { MatrixLayout::ColMajor } else { MatrixLayout::RowMajor }
    }
}

/// What the kernels know of a convolution.
#[derive(CubeType, CubeLaunch)]
pub struct Sizes {
    /// Pixels of all outputs.
    pub pixels: usize,
    /// Rows of an output.
    pub height: usize,
    /// Columns of an output.
    pub width: usize,
    /// Channels of an output.
    pub outputs: usize,
    /// Rows of an input.
    pub input_height: usize,
    /// Columns of an input.
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
}

/// One tensor's strides, in vectors.
#[derive(CubeType, CubeLaunch)]
pub struct Strides {
    /// To the next picture, or output channel.
    pub outer: usize,
    /// To the next channel, or vector of them where the vectors lie along the channels.
    pub channel: usize,
    /// To the next row.
    pub row: usize,
    /// To the next column.
    pub column: usize,
}

/// Where a unit is in the depth, as `[channel, column, row]` of the kernel: channels first, then columns, then rows.
#[cube]
pub fn depth(k: usize, sizes: &Sizes) -> Array<usize> {
    let mut place = Array::<usize>::new(3usize);
    let tap = k / sizes.channels;
    place[0] = k % sizes.channels;
    place[1] = tap % sizes.kernel_width;
    place[2] = tap / sizes.kernel_width;
    place
}

/// Goes `by` elements deeper.
#[cube]
pub fn advance(place: &mut Array<usize>, sizes: &Sizes, #[comptime] by: usize) {
    place[0] += by;
    while place[0] >= sizes.channels {
        place[0] -= sizes.channels;
        place[1] += 1usize;
        if place[1] == sizes.kernel_width {
            place[1] = 0usize;
            place[2] += 1usize;
        }
    }
}

/// Where a unit's rows of pixels begin: for each the picture's start, its row and column above and left of the kernel,
/// counted from the padding's corner. A row beyond the last pixel begins below the picture.
#[cube]
pub fn pixels(row: usize, sizes: &Sizes, strides: &Strides, #[comptime] fetch: Fetch) -> Array<usize> {
    let rows = comptime![fetch.rows()];
    let mut places = Array::<usize>::new(comptime![3 * rows]);
    #[unroll]
    for i in 0..rows {
        let pixel = row + comptime![i * fetch.lines()];
        let plane = sizes.height * sizes.width;
        let within = pixel % plane;
        let y = within / sizes.width * sizes.down;
        places[comptime![3 * i]] = pixel / plane * strides.outer;
        places[comptime![3 * i + 1]] = select(pixel < sizes.pixels, y, sizes.input_height + sizes.above);
        places[comptime![3 * i + 2]] = within % sizes.width * sizes.across;
    }
    places
}

/// A vector of the input, zero outside of it.
#[cube]
pub fn pixel<E: Float, N: Size>(
    x: &[Vector<E, N>],
    picture: usize,
    top: usize,
    start: usize,
    place: &Array<usize>,
    sizes: &Sizes,
    strides: &Strides,
) -> Vector<E, N> {
    let mut v = Vector::<E, N>::new(E::from_int(0));
    let y = top + place[2];
    let x_place = start + place[1];
    let there = place[2] < sizes.kernel_height
        && y >= sizes.above
        && y < sizes.above + sizes.input_height
        && x_place >= sizes.left
        && x_place < sizes.left + sizes.input_width;
    if there {
        let at = picture + (y - sizes.above) * strides.row + (x_place - sizes.left) * strides.column;
        v = x[at + place[0] / N::value() * strides.channel];
    }
    v
}

/// A vector of the weights, zero beyond them. `outer` is the output channel, in vectors where they lie along it.
#[cube]
pub fn weight<E: Float, N: Size>(
    weights: &[Vector<E, N>],
    outer: usize,
    there: bool,
    place: &Array<usize>,
    sizes: &Sizes,
    strides: &Strides,
    #[comptime] deep: bool,
    #[comptime] mirrored: bool,
) -> Vector<E, N> {
    let mut v = Vector::<E, N>::new(E::from_int(0));
    if there && place[2] < sizes.kernel_height {
        let mut row = place[2];
        let mut column = place[1];
        if comptime![mirrored] {
            row = sizes.kernel_height - 1usize - row;
            column = sizes.kernel_width - 1usize - column;
        }
        let mut channel = place[0];
        if comptime![deep] {
            channel /= N::value();
        }
        v = weights
            [outer * strides.outer + row * strides.row + column * strides.column + channel * strides.channel];
    }
    v
}

//! How a cube's units bring a tile of an operand, `[rows, 32 deep]`, into shared memory.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::cmma::MatrixLayout;
use burn_cubecl::cubecl::prelude::*;

use super::plan::DEPTH;

/// Between the lines of a tile, so that they start in different banks.
const GAP: usize = 8;

/// Which unit brings what. A line is what neighbouring units bring: neighbours in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// Rows of the tile.
    pub rows: usize,
    /// Whether a line is 32 elements deep at one row; otherwise it is all rows at one depth.
    pub deep: bool,
    /// Elements of a vector, along the line.
    pub vector: usize,
    /// Units of the cube.
    pub units: usize,
}

impl Fetch {
    /// The most elements of a vector: lines are multiples of it, with the gap after them.
    pub const WIDEST: usize = GAP;

    /// The most elements of a tile of so many rows in shared memory.
    pub fn largest(rows: usize) -> usize {
        (rows * (DEPTH + GAP)).max(DEPTH * (rows + GAP))
    }

    /// Elements of a line.
    fn line(self) -> usize {
        if self.deep { DEPTH } else { self.rows }
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
        self.rows * DEPTH / self.vector / self.units
    }

    /// Different rows among them.
    pub fn seats(self) -> usize {
        if self.deep { self.passes() } else { 1 }
    }

    /// How much deeper than the first the vector of `pass` lies.
    pub fn deeper(self, pass: usize) -> usize {
        if self.deep { 0 } else { pass * self.lines() }
    }

    /// How much deeper the vector after `pass` lies.
    pub fn ahead(self, pass: usize) -> usize {
        match self.deep {
            true if pass + 1 < self.passes() => 0,
            true => DEPTH,
            false => self.lines(),
        }
    }

    /// How many rows further the vector of `pass` lies.
    pub fn row(self, pass: usize) -> usize {
        if self.deep { pass * self.lines() } else { 0 }
    }

    /// Rows of a vector.
    pub fn side(self) -> usize {
        if self.deep { 1 } else { self.vector }
    }

    /// From a line to the next in shared memory, in elements.
    pub fn stride(self) -> usize {
        self.line() + GAP
    }

    /// The tile in shared memory, in vectors.
    pub fn size(self) -> usize {
        self.rows * DEPTH / self.line() * self.stride() / self.vector
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

/// Where a unit's first vector is in the tile.
#[derive(CubeType)]
pub struct Seat {
    /// Which row.
    pub row: usize,
    /// How deep.
    pub deep: usize,
    /// In shared memory, in vectors.
    pub slot: usize,
}

/// The seat of one of the cube's units.
#[cube]
pub fn seat(unit: usize, #[comptime] fetch: Fetch) -> Seat {
    let line = unit / comptime![fetch.across()];
    let vector = unit % comptime![fetch.across()];
    let along = vector * comptime![fetch.vector];
    let slot = line * comptime![fetch.stride() / fetch.vector] + vector;
    if comptime![fetch.deep] {
        Seat { row: line, deep: along, slot }
    } else {
        Seat { row: along, deep: line, slot }
    }
}

/// Puts a unit's vectors where they belong, in the tile that begins at `start`, in vectors.
#[cube]
pub fn put<E: Float, N: Size>(
    shared: &mut Shared<[Vector<E, N>]>,
    start: usize,
    vectors: &Array<Vector<E, N>>,
    seat: &Seat,
    #[comptime] fetch: Fetch,
) {
    #[unroll]
    for i in 0..comptime![fetch.passes()] {
        shared[start + seat.slot + comptime![fetch.pass(i)]] = vectors[i];
    }
}

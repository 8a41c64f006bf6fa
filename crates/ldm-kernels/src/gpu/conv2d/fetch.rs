//! How a cube's units bring a tile of an operand, `[rows, 32 deep]`, into shared memory.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::cmma::MatrixLayout;
use burn_cubecl::cubecl::prelude::*;

use super::super::ptx::{BLOCK, copy_async, wait};
use super::super::waiting::Waiting;
use super::geometry::Spot;
use super::plan::{CubeForm, DEPTH};

/// Between the lines of a tile, so that they start in different banks.
const GAP: usize = 8;

/// Lines that change places with each other.
const LINES: usize = 8;

/// The way of a vector to shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// It waits in registers while the step before is multiplied.
    Registers,
    /// Copied there, so many bytes, while the unit goes on.
    Copied(usize),
    /// Read and written at once: it is too narrow to be copied.
    Direct,
}

/// Which unit brings what. A line is what neighbouring units bring: neighbours in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// Rows of the tile.
    pub rows: usize,
    /// How deep it is.
    pub depth: usize,
    /// Whether a line is all of the depth at one row; otherwise it is all rows at one depth.
    pub deep: bool,
    /// Elements of a vector, along the line.
    pub vector: usize,
    /// How many of them are moved as one number: a device whose vectors have four numbers at most moves two halves as one.
    pub packed: usize,
    /// Units of the cube.
    pub units: usize,
    /// How.
    pub way: Way,
    /// Whether a tile is for [`group_product`](super::super::ptx::group_product), which wants pieces of a row elsewhere
    /// and no gaps.
    pub group: bool,
}

impl Fetch {
    /// The most elements of a vector: lines are multiples of it, with the gap after them.
    pub const WIDEST: usize = GAP;

    /// The most elements of a tile of so many rows in shared memory.
    pub fn largest(rows: usize, depth: usize) -> usize {
        (rows * (depth + GAP)).max(depth * (rows + GAP))
    }

    /// Elements of a line.
    fn line(self) -> usize {
        if self.deep { self.depth } else { self.rows }
    }

    /// Vectors of a line.
    pub fn across(self) -> usize {
        self.line() / self.vector
    }

    /// Lines that the units bring at once.
    pub fn lines(self) -> usize {
        self.units / self.across()
    }

    /// Vectors of a unit that wait in registers.
    pub fn waiting(self) -> usize {
        if self.way == Way::Registers { self.passes() } else { 1 }
    }

    /// Vectors that a unit brings, at most.
    pub fn passes(self) -> usize {
        (self.rows * self.depth / self.vector).div_ceil(self.units)
    }

    /// Whether some units have nothing to bring in this pass, the last: their rows would be beyond the tile.
    pub fn partial(self, pass: usize) -> bool {
        self.deep && (pass + 1) * self.lines() > self.rows
    }

    /// Whether the lines that units bring change places. A line's 64 bytes and those of the fourth after it are in different banks,
    /// so that eight units (of vectors of 16 bytes) write at once; those of the next line are partly in its own.
    pub fn turns(self) -> bool {
        self.deep && self.depth == DEPTH && !self.group && self.lines().is_multiple_of(LINES)
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
    #[cfg(feature = "autodiff")]
    pub fn ahead(self, pass: usize) -> usize {
        match self.deep {
            true if pass + 1 < self.passes() => 0,
            true => self.depth,
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
        match self.group {
            false => self.line() + GAP,
            true => self.line().min(BLOCK),
        }
    }

    /// The tile in shared memory, in vectors.
    pub fn size(self) -> usize {
        if self.group {
            return self.rows * self.depth / self.vector;
        }
        self.rows * self.depth / self.line() * self.stride() / self.vector
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
    let mut line = unit / comptime![fetch.across()];
    if comptime![fetch.turns()] {
        let half = comptime![LINES / 2];
        line = line / LINES * LINES + line % 2 * half + line / 2 % half;
    }
    let vector = unit % comptime![fetch.across()];
    let along = vector * comptime![fetch.vector];
    let mut slot = line * comptime![fetch.stride() / fetch.vector];
    if comptime![fetch.group] {
        // Pieces change places in the same way in the lines of all passes, which are multiples of 8 apart.
        if comptime![fetch.deep] {
            slot += vector ^ (line / 2 % 4);
        } else {
            let pieces = comptime![BLOCK / fetch.vector];
            slot += vector / pieces * comptime![BLOCK * fetch.depth / fetch.vector];
            slot += vector % pieces ^ (line % 8);
        }
    } else {
        slot += vector;
    }
    if comptime![fetch.deep] {
        Seat { row: line, deep: along, slot }
    } else {
        Seat { row: along, deep: line, slot }
    }
}

/// Brings a unit's vector of `pass` from its spot towards its place in the tile that begins at `start`, in vectors.
#[cube]
pub fn bring<P: Numeric, N: Size>(
    from: &[Vector<P, N>],
    spot: &Spot,
    shared: &mut Shared<[Vector<P, N>]>,
    start: usize,
    waiting: &mut Waiting<P, N>,
    seat: &Seat,
    #[comptime] pass: usize,
    #[comptime] fetch: Fetch,
) {
    let slot = start + seat.slot + comptime![fetch.pass(pass)];
    match comptime![fetch.way] {
        Way::Registers => waiting.ask(pass, from, spot.at, spot.there),
        Way::Copied(bytes) => {
            copy_async::<P, N>(&shared[slot..shared.len()], &from[spot.at..from.len()], spot.there, bytes)
        }
        Way::Direct => shared[slot] = read::<P, N>(from, spot),
    }
}

/// [`bring`], where the unit's row of this pass is of the tile.
#[cube]
pub fn bring_rows<P: Numeric, N: Size>(
    from: &[Vector<P, N>],
    spot: &Spot,
    shared: &mut Shared<[Vector<P, N>]>,
    start: usize,
    waiting: &mut Waiting<P, N>,
    seat: &Seat,
    #[comptime] pass: usize,
    #[comptime] fetch: Fetch,
) {
    if comptime![fetch.partial(pass)] {
        if seat.row + comptime![fetch.row(pass)] < comptime![fetch.rows] {
            bring::<P, N>(from, spot, shared, start, waiting, seat, pass, fetch);
        }
    } else {
        bring::<P, N>(from, spot, shared, start, waiting, seat, pass, fetch);
    }
}

/// A vector, zero where it isn't there.
#[cube]
fn read<P: Numeric, N: Size>(from: &[Vector<P, N>], spot: &Spot) -> Vector<P, N> {
    let mut v = Vector::<P, N>::new(P::from_int(0));
    if spot.there {
        v = from[spot.at];
    }
    v
}

/// Waits until the step that was brought so many steps ago is there for the whole cube. What waited in registers goes to
/// its place by [`put`] before that.
#[cube]
pub fn arrive(#[comptime] cube: CubeForm) {
    if comptime![cube.copies] {
        wait(comptime![cube.buffers - 2]);
    }
    sync_cube();
}

/// Puts a unit's vectors that waited where they belong, in the tile that begins at `start`, in vectors.
#[cube]
pub fn put<P: Numeric, N: Size>(
    shared: &mut Shared<[Vector<P, N>]>,
    start: usize,
    waiting: &Waiting<P, N>,
    seat: &Seat,
    #[comptime] fetch: Fetch,
) {
    #[unroll]
    for i in 0..comptime![fetch.passes()] {
        let slot = start + seat.slot + comptime![fetch.pass(i)];
        let vector = waiting.take(i);
        if comptime![fetch.partial(i)] {
            if seat.row + comptime![fetch.row(i)] < comptime![fetch.rows] {
                shared[slot] = vector;
            }
        } else {
            shared[slot] = vector;
        }
    }
}

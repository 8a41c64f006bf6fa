//! A tile's sums that begin with what lies in memory and go there by matrices: no unit needs to know which of them it has.
//!
//! Matrix units only. Memory is row-major, rows and columns are multiples of 16; blocks beyond them are neither read nor written. It
//! may be of numbers that are so many elements `packed`: NVIDIA's Vulkan compiler moves halves one by one, but those by pairs.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout, Plane};
use burn_cubecl::cubecl::prelude::*;

use super::output::Output;
use super::{PlaneTile, PlaneTileExpand, SIDE, Sums, SumsExpand, TileForm, operand};

/// A tile's place in an output.
#[derive(CubeType, Clone, Copy)]
pub struct Place {
    /// The tile's first row.
    pub row: usize,
    /// Its first column.
    pub column: usize,
    /// What it is a tile of.
    pub of: Output,
    /// Whether the tile is known not to reach beyond it.
    #[cube(comptime)]
    pub inside: bool,
}

#[cube]
impl Place {
    /// The first row of the tile's block that many rows further down; of those beyond the output, its last block's.
    pub fn begin_row(&self, #[comptime] further: usize, #[comptime] side: usize) -> usize {
        let row = self.row + further;
        if comptime![self.inside] { row } else { min(row, self.of.rows - side) }
    }

    /// Likewise, across.
    pub fn begin_column(&self, #[comptime] further: usize, #[comptime] side: usize) -> usize {
        let column = self.column + further;
        if comptime![self.inside] { column } else { min(column, self.of.columns - side) }
    }

    /// Whether that block is in the output.
    fn has(&self, #[comptime] down: usize, #[comptime] across: usize) -> bool {
        if comptime![self.inside] {
            true.runtime()
        } else {
            self.row + down < self.of.rows && self.column + across < self.of.columns
        }
    }
}

#[cube]
impl PlaneTile {
    /// A tile of what lies there.
    pub fn of<E: Float, A: Numeric, N: Size>(
        from: &[Vector<A, N>],
        at: &Place,
        #[comptime] packed: usize,
        #[comptime] form: TileForm,
    ) -> PlaneTile {
        let side = comptime![form.side()];
        let [down, across, _] = comptime![form.matrices()];
        let numbers = N::value();
        let mut fragments = Sequence::<Matrix<f32>>::new();
        #[unroll]
        for i in 0..down {
            #[unroll]
            for j in 0..across {
                let row = at.begin_row(comptime![i * side], side);
                let column = at.begin_column(comptime![j * side], side);
                let start = (row * at.of.columns + column) / comptime![numbers * packed];
                let mut found = operand::<E>(MatrixIdent::Accumulator, side, MatrixLayout::Undefined);
                let stride = (at.of.columns / packed) as u32;
                cmma::load_with_layout(&mut found, &from[start..from.len()], stride, MatrixLayout::RowMajor);
                fragments.push(cmma::cast::<E, f32, Plane>(&found));
            }
        }
        PlaneTile { sums: Sums::new_Fragments(fragments), form }
    }

    /// Adds the vector that begins there, of an output's channels, to the rows of one row of blocks.
    pub fn add_vector<E: Float, N: Size>(
        &mut self,
        from: &[Vector<E, N>],
        begin: usize,
        at: &Place,
        #[comptime] block: usize,
    ) {
        let form = comptime![self.form];
        match &mut self.sums {
            Sums::Fragments(fragments) => {
                let side = comptime![form.side()];
                let [_, across, parts] = comptime![form.matrices()];
                // The vector in each of the right operand's rows, so that a row of the product is as many of it.
                let share = E::new(comptime![1.0 / side as f32]);
                let left =
                    Matrix::<E>::from_value(MatrixIdent::A, side, side, side, MatrixLayout::RowMajor, share);
                #[unroll]
                for j in 0..across {
                    let channel = at.of.channel(at.begin_column(comptime![j * side], side));
                    let start = (begin + channel) / N::value();
                    let mut right = operand::<E>(MatrixIdent::B, side, MatrixLayout::RowMajor);
                    cmma::load(&mut right, &from[start..from.len()], 0u32);
                    #[unroll]
                    for i in 0..parts {
                        let sum = fragments.index(comptime![(block * parts + i) * across + j]);
                        cmma::execute(&left, &right, sum, sum);
                    }
                }
            }
            Sums::Values(_) => {}
        }
    }

    /// Writes the tile to its place in what begins there. A block's rows are of one row of a picture where its columns are of pixels.
    pub fn write<O: Float, M: Numeric, N: Size>(
        &self,
        to: &mut [Vector<M, N>],
        at: &Place,
        begin: usize,
        #[comptime] packed: usize,
    ) {
        let form = comptime![self.form];
        let numbers = N::value();
        match &self.sums {
            Sums::Fragments(fragments) => {
                let side = comptime![form.side()];
                let [down, across, _] = comptime![form.matrices()];
                #[unroll]
                for i in 0..down {
                    #[unroll]
                    for j in 0..across {
                        let row = at.row + comptime![i * side];
                        let column = at.column + comptime![j * side];
                        if at.has(comptime![i * side], comptime![j * side]) {
                            let start = (begin + at.of.at(row, column)) / comptime![numbers * packed];
                            let stride = (at.of.stride() / packed) as u32;
                            let sums =
                                cmma::cast::<f32, O, Plane>(fragments.index(comptime![i * across + j]));
                            let end = to.len();
                            cmma::store(&mut to[start..end], &sums, stride, MatrixLayout::RowMajor);
                        }
                    }
                }
            }
            Sums::Values(_) => {}
        }
    }
}

/// Whether a matrix of so many rows and columns is made of blocks.
pub fn whole(rows: usize, columns: usize) -> bool {
    rows.is_multiple_of(SIDE) && columns.is_multiple_of(SIDE)
}

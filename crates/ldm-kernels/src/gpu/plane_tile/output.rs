//! Where the elements of a product lie in memory.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// What a product's columns are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Columns {
    /// Of one matrix.
    One,
    /// Shared out among so many matrices, one after the other in memory.
    Several(usize),
    /// Of four: the pixels of an enlarged picture that one becomes, row after row.
    Pixels,
}

impl Columns {
    /// Among how many they are shared out.
    pub fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Several(matrices) => matrices,
            Self::Pixels => 4,
        }
    }
}

/// A product's output.
#[derive(CubeType, Clone, Copy)]
pub struct Output {
    /// Its rows, pixels of pictures.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// Pixels of a picture.
    pub picture: usize,
    /// Pixels of a picture's row.
    pub width: usize,
    /// What the columns are.
    #[cube(comptime)]
    pub are: Columns,
}

#[cube]
impl Output {
    /// Columns of each of those they are shared out among.
    pub fn each(&self) -> usize {
        self.columns / comptime![self.are.count()]
    }

    /// The output channel of a column.
    pub fn channel(&self, column: usize) -> usize {
        match comptime![self.are] {
            Columns::Pixels => column % self.each(),
            Columns::One | Columns::Several(_) => column,
        }
    }

    /// Where an element lies.
    pub fn at(&self, row: usize, column: usize) -> usize {
        let each = self.each();
        match comptime![self.are] {
            Columns::One => row * self.columns + column,
            Columns::Several(_) => (column / each * self.rows + row) * each + column % each,
            Columns::Pixels => {
                let pixel = column / each;
                let line = row / self.width * 2 + pixel / 2;
                ((line * self.width + row % self.width) * 2 + pixel % 2) * each + column % each
            }
        }
    }

    /// From a row to the next, of pictures their rows apart.
    pub fn stride(&self) -> usize {
        match comptime![self.are] {
            Columns::Pixels => self.each() * 2,
            Columns::One | Columns::Several(_) => self.each(),
        }
    }
}

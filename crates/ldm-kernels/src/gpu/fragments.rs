//! Products of 16x16 by 16x8 whose values a plane's units hold where they know it: `mma.sync` of CUDA.
//!
//! What [`plane_tile`](super::plane_tile) leaves to the device is fixed here, so a product's sums can be worked on where
//! they are, and become the next product's left operand without a way through memory. Unit `u` is number `u % 4` in
//! quad `u / 4`, and holds pairs of neighbouring columns from `2 (u % 4)` on:
//!
//! | | rows | pairs |
//! | --- | --- | --- |
//! | sums, 16x8 | `u / 4`, and 8 below | those of each row |
//! | left operand, 16x16 | the same | those of each row, then those 8 to the right |
//! | right operand, 16x8, columns for rows | `u / 4` | its own, then those 8 to the right |
//!
//! As with tiles, planes are emulated where a device has no such units, for tests: a cube is `(units of a plane,
//! planes)`, and then all planes have to do the same.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::cmma::{MatrixIdent, MmaDefinition};
use burn_cubecl::cubecl::ir::features::MmaConfig;
use burn_cubecl::cubecl::ir::{ElemType, FloatKind};
use burn_cubecl::cubecl::prelude::*;

use super::plane_tile::{SIDE, veiled};

/// Units of a plane: the table holds for no other number.
pub const UNITS: usize = 32;

/// Two neighbouring columns.
pub type Pair = Const<2>;

/// A unit's part of an operand: four pairs.
pub type Operand<E> = Array<Vector<E, Pair>>;

/// A unit's part of the sums: the pairs of two rows.
pub type Sum = Array<Vector<f32, Pair>>;

/// Side of a block where the device has such units for these operands, and reads them from shared memory.
pub fn native(client: &Client, operands: ElemType) -> Option<usize> {
    let properties = client.properties();
    let (matmul, planes) = (&properties.features.matmul, &properties.hardware);
    let config = MmaConfig {
        a_type: operands,
        b_type: operands,
        cd_type: ElemType::Float(FloatKind::F32),
        m: 16,
        n: 8,
        k: 16,
    };
    let there = [planes.plane_size_min, planes.plane_size_max] == [UNITS as u32; 2]
        && matmul.mma.contains(&config)
        && matmul.ldmatrix.contains(&operands);
    there.then_some(SIDE)
}

/// One plane.
#[derive(CubeType)]
pub struct Plane {
    /// What the emulation's units tell each other.
    board: Shared<[f32]>,
    #[cube(comptime)]
    hardware: bool,
}

/// Emulated, room for a plane's left and right operand.
pub const BOARD: usize = SIDE * SIDE + SIDE * 8;

#[cube]
impl Plane {
    /// This unit's, of so many in the cube.
    pub fn new(#[comptime] planes: usize, #[comptime] hardware: bool) -> Plane {
        Plane { board: Shared::new_slice(comptime![if hardware { 1 } else { planes * BOARD }]), hardware }
    }

    /// The left operand from rows with so many elements from one to the next.
    pub fn left<E: Float, N: Size>(&self, rows: &[Vector<E, N>], #[comptime] stride: usize) -> Operand<E> {
        if comptime![self.hardware] {
            let unit = UNIT_POS_X as usize;
            read::<E, N>(rows, unit % SIDE * stride + unit / SIDE * 8, false)
        } else {
            let (row, pair) = (UNIT_POS_X as usize / 4, UNIT_POS_X as usize % 4 * 2);
            let mut found = Array::<Vector<E, Pair>>::new(4usize);
            #[unroll]
            for i in 0..4usize {
                let at = (row + comptime![i % 2 * 8]) * stride + pair + comptime![i / 2 * 8];
                found[i] = pair_of::<E, N>(rows, at, 1usize);
            }
            found
        }
    }

    /// Two right operands side by side, whose sixteen columns are these rows: `a b^T` is the product with rows `b`.
    pub fn transposed<E: Float, N: Size>(
        &self,
        rows: &[Vector<E, N>],
        #[comptime] stride: usize,
    ) -> Operand<E> {
        if comptime![self.hardware] {
            let unit = UNIT_POS_X as usize;
            read::<E, N>(rows, (unit / SIDE * 8 + unit % 8) * stride + unit / 8 % 2 * 8, false)
        } else {
            let (row, pair) = (UNIT_POS_X as usize / 4, UNIT_POS_X as usize % 4 * 2);
            let mut found = Array::<Vector<E, Pair>>::new(4usize);
            #[unroll]
            for i in 0..4usize {
                let at = (row + comptime![i / 2 * 8]) * stride + pair + comptime![i % 2 * 8];
                found[i] = pair_of::<E, N>(rows, at, 1usize);
            }
            found
        }
    }

    /// Two right operands side by side, whose sixteen rows these are.
    pub fn right<E: Float, N: Size>(&self, rows: &[Vector<E, N>], #[comptime] stride: usize) -> Operand<E> {
        if comptime![self.hardware] {
            let unit = UNIT_POS_X as usize;
            read::<E, N>(rows, unit % SIDE * stride + unit / SIDE * 8, true)
        } else {
            let (column, pair) = (UNIT_POS_X as usize / 4, UNIT_POS_X as usize % 4 * 2);
            let mut found = Array::<Vector<E, Pair>>::new(4usize);
            #[unroll]
            for i in 0..4usize {
                let at = (pair + comptime![i % 2 * 8]) * stride + column + comptime![i / 2 * 8];
                found[i] = pair_of::<E, N>(rows, at, stride);
            }
            found
        }
    }

    /// Adds the product with the first or the second of two right operands.
    pub fn multiply_add<E: Float>(
        &mut self,
        sum: &mut Sum,
        left: &Operand<E>,
        right: &Operand<E>,
        #[comptime] which: usize,
    ) {
        if comptime![self.hardware] {
            let mut one = Array::<Vector<E, Pair>>::new(2usize);
            one[0] = right[comptime![2 * which]];
            one[1] = right[comptime![2 * which + 1]];
            MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize).execute_inplace(left, &one, sum);
        } else {
            let board = UNIT_POS_Y as usize * BOARD;
            let (row, pair) = (UNIT_POS_X as usize / 4, UNIT_POS_X as usize % 4 * 2);
            sync_cube();
            #[unroll]
            for i in 0..4usize {
                let at = board + (row + comptime![i % 2 * 8]) * SIDE + pair + comptime![i / 2 * 8];
                let value = Vector::<f32, Pair>::cast_from(left[i]);
                self.board[at] = value.extract(0usize);
                self.board[at + 1] = value.extract(1usize);
            }
            #[unroll]
            for i in 0..2usize {
                let at = board + comptime![SIDE * SIDE + i * 8] + row * SIDE + pair;
                let value = Vector::<f32, Pair>::cast_from(right[comptime![2 * which + i]]);
                self.board[at] = value.extract(0usize);
                self.board[at + 1] = value.extract(1usize);
            }
            sync_cube();
            #[unroll]
            for i in 0..2usize {
                let mut value = sum[i];
                #[unroll]
                for j in 0..2usize {
                    let left = board + (row + comptime![i * 8]) * SIDE;
                    let right = board + comptime![SIDE * SIDE] + (pair + j) * SIDE;
                    let mut total = value.extract(j);
                    for k in 0..veiled(SIDE) {
                        total += self.board[left + k] * self.board[right + k];
                    }
                    value.insert(j, total);
                }
                sum[i] = value;
            }
        }
    }

    /// The sum of the quad's values.
    pub fn quad_sum(&mut self, value: f32) -> f32 {
        if comptime![self.hardware] {
            let value = value + plane_shuffle_xor(value, 1u32);
            value + plane_shuffle_xor(value, 2u32)
        } else {
            let first = self.tell(value);
            let (a, b) = (self.board[first], self.board[first + 1]);
            a + b + self.board[first + 2] + self.board[first + 3]
        }
    }

    /// The largest of the quad's values.
    pub fn quad_max(&mut self, value: f32) -> f32 {
        if comptime![self.hardware] {
            let value = max(value, plane_shuffle_xor(value, 1u32));
            max(value, plane_shuffle_xor(value, 2u32))
        } else {
            let first = self.tell(value);
            let (a, b) = (self.board[first], self.board[first + 1]);
            max(max(a, b), max(self.board[first + 2], self.board[first + 3]))
        }
    }

    /// Whether it is so for any unit of the plane; emulated, of the cube.
    pub fn any(&mut self, so: bool) -> bool {
        if comptime![self.hardware] {
            plane_any(so)
        } else {
            self.tell(select(so, 1.0f32, 0.0f32));
            let mut largest = 0.0f32;
            for i in 0..CUBE_DIM as usize {
                largest = max(largest, self.board[i]);
            }
            largest > 0.0f32
        }
    }

    /// Shows all units of the cube a value, and gives the place of the quad's first.
    fn tell(&mut self, value: f32) -> usize {
        sync_cube();
        self.board[UNIT_POS as usize] = value;
        sync_cube();
        UNIT_POS as usize / 4 * 4
    }
}

/// Four blocks of 8x8; a unit names the place of its row in them, and gets pairs along the rows, or down the columns.
#[cube]
fn read<E: Float, N: Size>(rows: &[Vector<E, N>], at: usize, #[comptime] columns: bool) -> Operand<E> {
    let at = at / N::value();
    MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize).load_matrix::<Vector<E, N>, Pair>(
        &rows[at..rows.len()],
        MatrixIdent::A,
        4usize,
        columns,
    )
}

/// The elements at a place and so many further on.
#[cube]
fn pair_of<E: Float, N: Size>(from: &[Vector<E, N>], at: usize, #[comptime] step: usize) -> Vector<E, Pair> {
    let mut pair = Vector::<E, Pair>::cast_from(Vector::<f32, Pair>::new(0.0f32));
    #[unroll]
    for i in 0..2usize {
        let place = at + comptime![i * step];
        pair.insert(i, from[place / N::value()].extract_dynamic(place % N::value()));
    }
    pair
}

//! One plane's tile of a matrix product: blocks of 16x16 summed in f32, operands in shared memory.
//!
//! On devices with matrix units (CUDA's tensor cores, what Vulkan and ROCm call cooperative matrices, Metal's SIMD-group
//! matrices) a block's product is theirs, by `cubecl::cmma`: one product where they multiply 16x16, eight where 8x8, as
//! Metal's do. Elsewhere each unit keeps its share of the sums and reads the operands itself: slow,
//! meant for tests, which so check on any device everything that is built on a tile but for the instructions.
//!
//! A cube that uses tiles is `(units of a plane, planes)`: `UNIT_POS_X` is the place in the plane. The operands must be
//! in shared memory before a product (`sync_cube`), and a stored tile is there for others after the same. The emulation
//! takes any number of units, also where they are not the device's planes; then `sync_plane` is not enough for it.
//!
//! Sums are in shared memory in [`fours`](super::fours); strides are counted in elements all the same.
//!
//! What the instructions want of memory: a slice starts at a multiple of 32 bytes (of 16, where they multiply 8x8), which
//! `Shared::new_aligned_slice` and steps of as many elements give, and strides are multiples of 16 bytes.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

mod elements;
mod memory;
mod output;

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use burn_cubecl::cubecl::ir::features::MmaConfig;
use burn_cubecl::cubecl::ir::{ElemType, FloatKind};
use burn_cubecl::cubecl::prelude::*;

use super::fours::{COUNT, Four};
pub use elements::Rounded;
pub use memory::{Place, whole};
pub use output::{Columns, Output};

/// Rows and columns of a block, and how deep one product is.
pub const SIDE: usize = 16;

/// Sides of what matrix units multiply, the best first. A block is a whole number of them.
const NATIVE: [usize; 2] = [SIDE, SIDE / 2];

/// What shared memory for operands and tiles is aligned to, in bytes.
pub const ALIGNMENT: usize = 32;

/// A tile's form; known when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TileForm {
    /// Blocks down.
    pub rows: usize,
    /// Blocks across.
    pub columns: usize,
    /// Units of a plane, of which a block's 256 elements are a multiple.
    pub units: usize,
    /// Side of what matrix units multiply; `None` where they are emulated.
    pub native: Option<usize>,
}

impl TileForm {
    /// Matrices of the units' down and across, and how many make a block's side.
    fn matrices(self) -> [usize; 3] {
        let parts = SIDE / self.side();
        [self.rows * parts, self.columns * parts, parts]
    }

    /// Side of one of them.
    fn side(self) -> usize {
        self.native.unwrap_or(SIDE)
    }
}

/// What the device's matrix units multiply of these operands with sums in f32; `None` without them, or if its planes are of
/// several sizes.
pub fn native(client: &Client, operands: ElemType) -> Option<usize> {
    let properties = client.properties();
    let planes = &properties.hardware;
    let there = |side: u32| {
        let [a_type, b_type] = [operands; 2];
        let cd_type = ElemType::Float(FloatKind::F32);
        let [m, n, k] = [side; 3];
        properties.features.matmul.cmma.contains(&MmaConfig { a_type, b_type, cd_type, m, n, k })
    };
    let alike = planes.plane_size_min == planes.plane_size_max;
    NATIVE.into_iter().find(|side| alike && there(*side as u32))
}

/// Whether matrix units have sums of this type too, which operands are of.
pub fn sums_of(client: &Client, elements: ElemType) -> bool {
    let shapes = &client.properties().features.matmul.cmma;
    shapes.iter().any(|shape| shape.a_type == elements && shape.cd_type == elements)
}

/// Whether a tile's sums can be changed where they are. CubeCL tells it of devices whose matrices can be a cube's too, NVIDIA's.
pub fn changes(client: &Client) -> bool {
    !client.properties().features.matmul.cube_mma.is_empty()
}

/// The sums of one plane.
#[derive(CubeType)]
pub struct PlaneTile {
    sums: Sums,
    #[cube(comptime)]
    form: TileForm,
}

/// Where they are.
// Built by what the macro makes of it.
#[allow(dead_code)]
#[derive(CubeType)]
enum Sums {
    /// In the matrix units' registers, row after row of what they multiply.
    Fragments(Sequence<Matrix<f32>>),
    /// The unit's share of the tile's rows one after the other: of their fours, `UNIT_POS_X`, `UNIT_POS_X + units`, ..
    Values(Array<f32>),
}

#[cube]
impl PlaneTile {
    /// A tile of zeros.
    pub fn zero(#[comptime] form: TileForm) -> PlaneTile {
        let sums = if comptime![form.native.is_some()] {
            let side = comptime![form.side()];
            let [down, across, _] = comptime![form.matrices()];
            let mut fragments = Sequence::<Matrix<f32>>::new();
            #[unroll]
            for _ in 0..comptime![down * across] {
                fragments.push(Matrix::<f32>::from_value(
                    MatrixIdent::Accumulator,
                    side,
                    side,
                    side,
                    MatrixLayout::Undefined,
                    0.0f32,
                ));
            }
            Sums::new_Fragments(fragments)
        } else {
            let mut values = Array::<f32>::new(comptime![share(form)]);
            for i in 0..veiled(comptime![share(form)]) {
                values[i] = 0.0f32;
            }
            Sums::new_Values(values)
        };
        PlaneTile { sums, form }
    }

    /// Adds `a b`: `a` is `[16 rows, 16]`, `b` `[16, 16 columns]`, each in shared memory with so many elements from one
    /// line to the next (of the rows where it is row-major, of the columns where it is column-major). Matrix units take them as
    /// they lie, also where so many are `packed` into one number there.
    pub fn multiply_add<E: Float, P: Numeric, A: Size, Q: Numeric, B: Size>(
        &mut self,
        a: &[Vector<P, A>],
        #[comptime] a_stride: usize,
        #[comptime] a_layout: MatrixLayout,
        b: &[Vector<Q, B>],
        #[comptime] b_stride: usize,
        #[comptime] b_layout: MatrixLayout,
        #[comptime] packed: [usize; 2],
    ) {
        let form = comptime![self.form];
        // From a row to the next and from a column to the next.
        let (a_row, a_column) = comptime![steps(a_stride, a_layout)];
        let (b_row, b_column) = comptime![steps(b_stride, b_layout)];
        let (a_width, b_width) = (A::value(), B::value());
        let (a_vector, b_vector) = comptime![(a_width * packed[0], b_width * packed[1])];
        let lines = comptime![[(a_stride / packed[0]) as u32, (b_stride / packed[1]) as u32]];
        match &mut self.sums {
            Sums::Fragments(fragments) => {
                let side = comptime![form.side()];
                let [down, across, deep] = comptime![form.matrices()];
                #[unroll]
                for k in 0..deep {
                    let mut right = Sequence::<Matrix<E>>::new();
                    #[unroll]
                    for j in 0..across {
                        let start = comptime![(j * side * b_column + k * side * b_row) / b_vector];
                        right.push(operand::<E>(MatrixIdent::B, side, b_layout));
                        cmma::load(right.index_mut(j), &b[start..b.len()], comptime![lines[1]]);
                    }
                    #[unroll]
                    for i in 0..down {
                        let start = comptime![(i * side * a_row + k * side * a_column) / a_vector];
                        let mut left = operand::<E>(MatrixIdent::A, side, a_layout);
                        cmma::load(&mut left, &a[start..a.len()], comptime![lines[0]]);
                        #[unroll]
                        for j in 0..across {
                            let sum = fragments.index(comptime![i * across + j]);
                            cmma::execute(&left, right.index(j), sum, sum);
                        }
                    }
                }
            }
            Sums::Values(values) => {
                let width = comptime![form.columns * SIDE];
                for i in 0..veiled(comptime![share(form)]) {
                    let place = place(i / COUNT, form) + i % COUNT;
                    let row = place / width * a_row;
                    let column = place % width * b_column;
                    let mut sum = 0.0f32;
                    for k in 0..SIDE {
                        sum +=
                            element::<P, A>(a, row + k * a_column) * element::<Q, B>(b, column + k * b_row);
                    }
                    values[i] += sum;
                }
            }
        }
    }

    /// Writes the tile row by row, so many elements from one to the next.
    pub fn store(&self, to: &mut [Vector<f32, Four>], #[comptime] stride: usize) {
        let form = comptime![self.form];
        match &self.sums {
            Sums::Fragments(fragments) => {
                let [down, across, _] = comptime![form.matrices()];
                store::<f32, Four>(fragments, to, stride, form, comptime![[0, 0]], comptime![[down, across]]);
            }
            Sums::Values(values) => {
                let width = comptime![form.columns * SIDE];
                for i in 0..veiled(comptime![share(form) / COUNT]) {
                    let place = place(i, form);
                    to[(place / width * stride + place % width) / COUNT] = four(values, i);
                }
            }
        }
    }

    /// Reads the tile row by row, as [`store`](Self::store) writes it.
    pub fn load(&mut self, from: &[Vector<f32, Four>], #[comptime] stride: usize) {
        let form = comptime![self.form];
        match &mut self.sums {
            Sums::Fragments(fragments) => {
                let side = comptime![form.side()];
                let [down, across, _] = comptime![form.matrices()];
                #[unroll]
                for i in 0..down {
                    #[unroll]
                    for j in 0..across {
                        let start = comptime![(i * side * stride + j * side) / COUNT];
                        cmma::load_with_layout(
                            fragments.index_mut(comptime![i * across + j]),
                            &from[start..from.len()],
                            comptime![stride as u32],
                            MatrixLayout::RowMajor,
                        );
                    }
                }
            }
            Sums::Values(values) => {
                let width = comptime![form.columns * SIDE];
                for i in 0..veiled(comptime![share(form) / COUNT]) {
                    let place = place(i, form);
                    let four = from[(place / width * stride + place % width) / COUNT];
                    #[unroll]
                    for k in 0..COUNT {
                        values[i * COUNT + k] = four.extract(k);
                    }
                }
            }
        }
    }

    /// Writes so many blocks of one row of blocks, from one on: 16 rows, so many elements from one to the next. Memory of other
    /// numbers of four bytes takes their bits, of matrix units' alone.
    pub fn store_blocks<S: Numeric, N: Size>(
        &self,
        to: &mut [Vector<S, N>],
        #[comptime] stride: usize,
        #[comptime] row: usize,
        #[comptime] first: usize,
        #[comptime] across: usize,
    ) {
        let form = comptime![self.form];
        match &self.sums {
            Sums::Fragments(fragments) => {
                let [_, _, parts] = comptime![form.matrices()];
                let from = comptime![[row * parts, first * parts]];
                store::<S, N>(fragments, to, stride, form, from, comptime![[parts, across * parts]]);
            }
            Sums::Values(values) => {
                let width = comptime![form.columns * SIDE];
                let count = comptime![share(form) / form.rows / COUNT];
                for i in 0..veiled(count) {
                    let place = place(i, form);
                    let column = place % width;
                    if column >= comptime![first * SIDE] && column < comptime![(first + across) * SIDE] {
                        let at = place / width * stride + (column - comptime![first * SIDE]);
                        to[at / COUNT] = Vector::<S, N>::cast_from(four(values, comptime![row * count] + i));
                    }
                }
            }
        }
    }
}

/// From a row to the next and from a column to the next, of a matrix in memory.
fn steps(stride: usize, layout: MatrixLayout) -> (usize, usize) {
    match layout {
        MatrixLayout::ColMajor => (1, stride),
        MatrixLayout::RowMajor | MatrixLayout::Undefined => (stride, 1),
    }
}

/// Elements of a tile that an emulating unit keeps.
fn share(form: TileForm) -> usize {
    form.rows * form.columns * SIDE * SIDE / form.units
}

/// Waits for the plane's other units, whose memory no other plane touches; emulated planes need not be the device's: for all.
#[cube]
pub fn meet(#[comptime] hardware: bool) {
    if comptime![hardware] {
        sync_plane();
    } else {
        sync_cube();
    }
}

/// The same number, which a shader compiler does not see through: it would unroll every loop over an indexed array, and
/// compile for minutes.
#[cube]
pub fn veiled(#[comptime] count: usize) -> usize {
    min(CUBE_COUNT, 1usize) * count
}

/// What matrix units take of an operand at a time, to be loaded.
#[cube]
fn operand<E: Float>(
    #[comptime] ident: MatrixIdent,
    #[comptime] side: usize,
    #[comptime] layout: MatrixLayout,
) -> Matrix<E> {
    // SAFETY: every caller loads it before it is read.
    unsafe { Matrix::<E>::uninitialized(ident, side, side, side, layout) }
}

/// Writes so many of the matrix units' matrices down and across, from one of them on, so many elements from a row to the next.
#[cube]
fn store<S: Numeric, N: Size>(
    fragments: &Sequence<Matrix<f32>>,
    to: &mut [Vector<S, N>],
    #[comptime] stride: usize,
    #[comptime] form: TileForm,
    #[comptime] first: [usize; 2],
    #[comptime] count: [usize; 2],
) {
    let side = comptime![form.side()];
    let [_, line, _] = comptime![form.matrices()];
    #[unroll]
    for i in 0..comptime![count[0]] {
        #[unroll]
        for j in 0..comptime![count[1]] {
            let start = comptime![(i * side * stride + j * side) / COUNT];
            let end = to.len();
            cmma::store(
                &mut to[start..end],
                fragments.index(comptime![(first[0] + i) * line + first[1] + j]),
                comptime![stride as u32],
                MatrixLayout::RowMajor,
            );
        }
    }
}

/// Where an emulating unit's four elements are in the tile, counted row after row.
#[cube]
fn place(four: usize, #[comptime] form: TileForm) -> usize {
    (UNIT_POS_X as usize + four * form.units) * COUNT
}

/// Four elements of an emulating unit's.
#[cube]
fn four(values: &Array<f32>, at: usize) -> Vector<f32, Four> {
    let mut v = Vector::<f32, Four>::new(0.0f32);
    #[unroll]
    for k in 0..COUNT {
        v.insert(k, values[at * COUNT + k]);
    }
    v
}

/// One element of a slice of vectors.
#[cube]
fn element<E: Numeric, N: Size>(from: &[Vector<E, N>], place: usize) -> f32 {
    let vector = from[place / N::value()];
    f32::cast_from(vector.extract_dynamic(place % N::value()))
}

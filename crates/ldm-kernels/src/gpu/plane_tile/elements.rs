//! What is done to a tile's sums where they are: each is changed by itself, and all become the operand of another product.
//!
//! Of Vulkan's devices those with `VK_NV_cooperative_matrix2` can (conversions and operations on elements); the emulation
//! goes by way of shared memory where another unit's sums are needed.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::cmma::{self, Matrix, MatrixExpand, MatrixIdent, MatrixLayout, Plane};
use burn_cubecl::cubecl::ir::DeviceProperties;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::unexpanded;

use super::super::fours::{COUNT, Four};
use super::{
    PlaneTile, PlaneTileExpand, SIDE, Sums, SumsExpand, TileForm, four, operand, place, share, veiled,
};

/// A left operand in the matrix units' registers: a tile's sums, or what lay in memory. None where they are emulated, which have theirs in
/// shared memory.
#[derive(CubeType)]
pub struct Rounded<E: Float> {
    matrices: Sequence<Matrix<E>>,
    #[cube(comptime)]
    form: TileForm,
}

#[cube]
impl<E: Float> Rounded<E> {
    /// Of no rows.
    pub fn none(#[comptime] form: TileForm) -> Rounded<E> {
        Rounded::<E> { matrices: Sequence::new(), form }
    }

    /// What lies there row by row, so many elements from one to the next, which are moved as numbers of so many.
    pub fn load<P: Numeric, N: Size>(
        from: &[Vector<P, N>],
        #[comptime] stride: usize,
        #[comptime] packed: usize,
        #[comptime] form: TileForm,
    ) -> Rounded<E> {
        let numbers = N::value();
        let side = comptime![form.side()];
        let [down, across, _] = comptime![form.matrices()];
        let mut matrices = Sequence::<Matrix<E>>::new();
        #[unroll]
        for i in 0..down {
            #[unroll]
            for k in 0..across {
                let start = comptime![(i * side * stride + k * side) / (numbers * packed)];
                let mut found = operand::<E>(MatrixIdent::A, side, MatrixLayout::RowMajor);
                cmma::load(&mut found, &from[start..from.len()], comptime![(stride / packed) as u32]);
                matrices.push(found);
            }
        }
        Rounded::<E> { matrices, form }
    }
}

#[cube]
impl PlaneTile {
    /// Makes every column this one, which is as long as the tile is high.
    pub fn set_columns(&mut self, column: &[f32]) {
        let form = comptime![self.form];
        match &mut self.sums {
            Sums::Fragments(fragments) => {
                let side = comptime![form.side()];
                let [down, across, _] = comptime![form.matrices()];
                #[unroll]
                for i in 0..down {
                    let (first, start) = comptime![(i * across, i * side)];
                    cmma::load_with_layout(
                        fragments.index_mut(first),
                        &column[start..column.len()],
                        0u32,
                        MatrixLayout::ColMajor,
                    );
                    #[unroll]
                    for j in 1..across {
                        cmma::execute_elementwise_op(
                            fragments.index(first),
                            fragments.index(comptime![first + j]),
                            |_row, _column, sum| sum,
                        );
                    }
                }
            }
            Sums::Values(values) => {
                let width = comptime![form.columns * SIDE];
                for i in 0..veiled(comptime![share(form)]) {
                    values[i] = column[(place(i / COUNT, form) + i % COUNT) / width];
                }
            }
        }
    }

    /// Makes the sums of column `there` and those after it `value`.
    pub fn hide(&mut self, there: usize, value: f32) {
        let form = comptime![self.form];
        match &mut self.sums {
            Sums::Fragments(fragments) => {
                let side = comptime![form.side()];
                let [down, across, _] = comptime![form.matrices()];
                #[unroll]
                for i in 0..comptime![down * across] {
                    let first = comptime![i % across * side];
                    let sum = fragments.index(i);
                    cmma::execute_elementwise_op(sum, sum, |_row, column, sum| {
                        select(column as usize + first < there, sum, value)
                    });
                }
            }
            Sums::Values(values) => {
                let width = comptime![form.columns * SIDE];
                for i in 0..veiled(comptime![share(form)]) {
                    let column = (place(i / COUNT, form) + i % COUNT) % width;
                    values[i] = select(column < there, values[i], value);
                }
            }
        }
    }

    /// Makes every sum `exp(sum * scale)`.
    pub fn exponentiate(&mut self, scale: f32) {
        let form = comptime![self.form];
        match &mut self.sums {
            Sums::Fragments(fragments) => {
                let [down, across, _] = comptime![form.matrices()];
                #[unroll]
                for i in 0..comptime![down * across] {
                    let sum = fragments.index(i);
                    cmma::execute_elementwise_op(sum, sum, |_row, _column, sum| (sum * scale).exp());
                }
            }
            Sums::Values(values) => {
                for i in 0..veiled(comptime![share(form)]) {
                    values[i] = (values[i] * scale).exp();
                }
            }
        }
    }

    /// The sums in the type of operands.
    pub fn rounded<E: Float>(&self) -> Rounded<E> {
        let form = comptime![self.form];
        let mut matrices = Sequence::<Matrix<E>>::new();
        match &self.sums {
            Sums::Fragments(fragments) => {
                let [down, across, _] = comptime![form.matrices()];
                #[unroll]
                for i in 0..comptime![down * across] {
                    matrices.push(left::<E>(fragments.index(i)));
                }
            }
            Sums::Values(_) => {}
        }
        Rounded::<E> { matrices, form }
    }

    /// Writes an emulated tile row by row in the type of operands, so many elements from one to the next.
    pub fn round<E: Float>(&self, to: &mut [Vector<E, Four>], #[comptime] stride: usize) {
        let form = comptime![self.form];
        match &self.sums {
            Sums::Fragments(_) => {}
            Sums::Values(values) => {
                let width = comptime![form.columns * SIDE];
                for i in 0..veiled(comptime![share(form) / COUNT]) {
                    let place = place(i, form);
                    let at = (place / width * stride + place % width) / COUNT;
                    to[at] = Vector::<E, Four>::cast_from(four(values, i));
                }
            }
        }
    }

    /// Adds `a b` as [`multiply_add`](Self::multiply_add) does, `b` of as many rows as `a` has columns.
    pub fn add_product<E: Float, P: Numeric, B: Size>(
        &mut self,
        a: &Rounded<E>,
        b: &[Vector<P, B>],
        #[comptime] stride: usize,
        #[comptime] layout: MatrixLayout,
        #[comptime] packed: usize,
    ) {
        let (form, of) = comptime![(self.form, a.form)];
        let b_width = B::value();
        match &mut self.sums {
            Sums::Fragments(fragments) => {
                let side = comptime![form.side()];
                let [down, across, _] = comptime![form.matrices()];
                let [_, deep, _] = comptime![of.matrices()];
                #[unroll]
                for k in 0..deep {
                    #[unroll]
                    for j in 0..across {
                        let (line, along) =
                            comptime![if layout == MatrixLayout::ColMajor { (j, k) } else { (k, j) }];
                        let start = comptime![(line * stride + along) * side / (b_width * packed)];
                        let mut right = operand::<E>(MatrixIdent::B, side, layout);
                        cmma::load(&mut right, &b[start..b.len()], comptime![(stride / packed) as u32]);
                        #[unroll]
                        for i in 0..down {
                            let sum = fragments.index(comptime![i * across + j]);
                            cmma::execute(a.matrices.index(comptime![i * deep + k]), &right, sum, sum);
                        }
                    }
                }
            }
            // A product with what lies in shared memory takes its place.
            Sums::Values(_) => {}
        }
    }

    /// Adds the sum of each of `a`'s rows to all of the tile's columns.
    pub fn add_rows<E: Float>(&mut self, a: &Rounded<E>) {
        let (form, of) = comptime![(self.form, a.form)];
        match &mut self.sums {
            Sums::Fragments(fragments) => {
                let side = comptime![form.side()];
                let [down, across, _] = comptime![form.matrices()];
                let [_, deep, _] = comptime![of.matrices()];
                let ones = Matrix::<E>::from_value(
                    MatrixIdent::B,
                    side,
                    side,
                    side,
                    MatrixLayout::RowMajor,
                    E::from_int(1),
                );
                #[unroll]
                for k in 0..deep {
                    #[unroll]
                    for i in 0..comptime![down * across] {
                        let sum = fragments.index(i);
                        cmma::execute(a.matrices.index(comptime![i / across * deep + k]), &ones, sum, sum);
                    }
                }
            }
            Sums::Values(_) => {}
        }
    }
}

/// A matrix of sums as the left operand of a product.
fn left<E: Float>(_sums: &Matrix<f32>) -> Matrix<E> {
    unexpanded!()
}

/// [`cmma::cast_with_ident`] wants the matrix itself, of which a sequence has only references. In two steps where the device has
/// sums in the operands' type: of one alone, which changes both, CubeCL does not say in SPIR-V what it needs.
mod left {
    use super::*;

    pub fn expand<E: Float>(scope: &Scope, sums: &MatrixExpand<f32, Plane>) -> MatrixExpand<E, Plane> {
        let elements = E::Scalar::elem_type(scope);
        let properties = scope.state().device_properties.clone();
        let there =
            |p: &DeviceProperties| p.features.matmul.cmma.iter().any(|shape| shape.cd_type == elements);
        if properties.as_deref().is_some_and(there) {
            let rounded = cmma::cast::expand::<f32, E, Plane>(scope, sums);
            cmma::cast_with_ident::expand(scope, rounded, MatrixIdent::A)
        } else {
            cmma::cast_with_ident::expand(scope, sums.clone(), MatrixIdent::A)
        }
    }
}

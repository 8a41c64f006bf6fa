//! A plane's rows: scores and sums as its units hold them.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::super::fragments::{Operand, Pair, Plane, Sum};
use super::super::super::plane_tile::SIDE;
use super::super::super::ptx::exp2;
use super::super::heads::Place;
use super::super::plan::Plan;

/// Blocks of 16x8, row after row of them.
pub type Blocks = Sequence<Sum>;

/// Zeros.
#[cube]
pub fn zeros(#[comptime] count: usize) -> Blocks {
    let mut blocks = Sequence::<Sum>::new();
    #[unroll]
    for _ in 0..count {
        let mut block = Array::<Vector<f32, Pair>>::new(2usize);
        block[0] = Vector::new(0.0f32);
        block[1] = Vector::new(0.0f32);
        blocks.push(block);
    }
    blocks
}

/// The plane's first row in the cube.
#[cube]
pub fn top(#[comptime] plan: Plan) -> usize {
    UNIT_POS_Y as usize * comptime![plan.plane_rows()]
}

/// The unit's first row of a block; the other is 8 below.
#[cube]
pub fn row() -> usize {
    UNIT_POS_X as usize / 4
}

/// The unit's first column of a block of sums; the other is the next.
#[cube]
pub fn column() -> usize {
    UNIT_POS_X as usize % 4 * 2
}

/// The plane's rows as left operands: those of each block of rows one after the other.
#[cube]
pub fn operands<E: Float, N: Size>(
    plane: &Plane,
    rows: &Shared<[Vector<E, N>]>,
    #[comptime] plan: Plan,
) -> Sequence<Operand<E>> {
    let stride = comptime![plan.stride()];
    let mut found = Sequence::<Operand<E>>::new();
    #[unroll]
    for i in 0..plan.blocks {
        #[unroll]
        for k in 0..plan.depth {
            let at = ((top(plan) + comptime![i * SIDE]) * stride + comptime![k * SIDE]) / N::value();
            found.push(plane.left::<E, N>(&rows[at..rows.len()], stride));
        }
    }
    found
}

/// The plane's rows times every line.
#[cube]
pub fn scores<E: Float, N: Size>(
    plane: &mut Plane,
    rows: &Sequence<Operand<E>>,
    lines: &Shared<[Vector<E, N>]>,
    #[comptime] plan: Plan,
) -> Blocks {
    let mut found = zeros(comptime![2 * plan.blocks * plan.columns]);
    #[unroll]
    for j in 0..plan.columns {
        renew::<E, N>(plane, &mut found, rows, lines, j, plan);
    }
    found
}

/// Of those, the scores of the lines of block `j` of sixteen.
#[cube]
pub fn renew<E: Float, N: Size>(
    plane: &mut Plane,
    found: &mut Blocks,
    rows: &Sequence<Operand<E>>,
    lines: &Shared<[Vector<E, N>]>,
    #[comptime] j: usize,
    #[comptime] plan: Plan,
) {
    let (across, stride) = comptime![(2 * plan.columns, plan.stride())];
    #[unroll]
    for k in 0..plan.depth {
        let at = comptime![j * SIDE * stride + k * SIDE] / N::value();
        let right = plane.transposed::<E, N>(&lines[at..lines.len()], stride);
        #[unroll]
        for i in 0..plan.blocks {
            let left = rows.index(comptime![i * plan.depth + k]);
            #[unroll]
            for half in 0..2usize {
                let to = found.index_mut(comptime![i * across + 2 * j + half]);
                if comptime![k == 0] {
                    to[0] = Vector::new(0.0f32);
                    to[1] = Vector::new(0.0f32);
                }
                plane.multiply_add::<E>(to, left, &right, half);
            }
        }
    }
}

/// Adds the lines of a block of sixteen, each by its weight in `weights`, of which a block of rows has two.
#[cube]
pub fn add<E: Float, N: Size>(
    plane: &mut Plane,
    sums: &mut Blocks,
    weights: &Sequence<Operand<E>>,
    lines: &Shared<[Vector<E, N>]>,
    #[comptime] block: usize,
    #[comptime] plan: Plan,
) {
    let stride = comptime![plan.stride()];
    #[unroll]
    for k in 0..plan.depth {
        let at = comptime![block * SIDE * stride + k * SIDE] / N::value();
        let right = plane.right::<E, N>(&lines[at..lines.len()], stride);
        #[unroll]
        for i in 0..plan.blocks {
            #[unroll]
            for half in 0..comptime![2.min(plan.eights - 2 * k)] {
                let to = sums.index_mut(comptime![i * plan.eights + 2 * k + half]);
                plane.multiply_add::<E>(to, weights.index(i), &right, half);
            }
        }
    }
}

/// `2^x` of both.
#[cube]
pub fn exp2_pair(x: Vector<f32, Pair>, #[comptime] ptx: bool) -> Vector<f32, Pair> {
    let mut power = Vector::<f32, Pair>::new(exp2(x.extract(0usize), ptx));
    power.insert(1usize, exp2(x.extract(1usize), ptx));
    power
}

/// Two neighbouring blocks of scores as a left operand.
#[cube]
pub fn operand<E: Float>(left: &Sum, right: &Sum) -> Operand<E> {
    let mut found = Array::<Vector<E, Pair>>::new(4usize);
    #[unroll]
    for i in 0..2usize {
        found[i] = Vector::cast_from(left[i]);
        found[i + 2] = Vector::cast_from(right[i]);
    }
    found
}

/// Writes the plane's rows, those of each turn times its factor; `first` is the cube's first row, of `rows` in all, of
/// `width` elements each.
#[cube]
pub fn write<O: Float, P: Size>(
    sums: &Blocks,
    factors: &Array<f32>,
    y: &mut [Vector<O, P>],
    place: &Place,
    start: usize,
    first: usize,
    rows: usize,
    width: usize,
    #[comptime] plan: Plan,
) {
    let p = P::value();
    #[unroll]
    for turn in 0..comptime![2 * plan.blocks] {
        let row = first + top(plan) + comptime![turn * 8] + row();
        if row < rows {
            #[unroll]
            for c in 0..plan.eights {
                let sum = sums.index(comptime![turn / 2 * plan.eights + c]);
                let value =
                    Vector::<O, Pair>::cast_from(sum[comptime![turn % 2]] * Vector::new(factors[turn]));
                let column = column() + comptime![c * 8];
                #[unroll]
                for i in 0..comptime![2 / p] {
                    if column + i < width {
                        let mut part = Vector::<O, P>::cast_from(Vector::<f32, P>::new(0.0f32));
                        #[unroll]
                        for j in 0..p {
                            part.insert(j, value.extract(comptime![i * p + j]));
                        }
                        y[start + row * place.row + (column + i) / p * place.column] = part;
                    }
                }
            }
        }
    }
}

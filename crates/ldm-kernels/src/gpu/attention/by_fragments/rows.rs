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

/// Some blocks of lines, and where their products are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// The first block of sixteen lines.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    /// The first's blocks of products are these two of a block of rows.
    pub to: usize,
    /// Of so many.
    pub across: usize,
}

impl Part {
    /// All lines of a tile.
    pub fn whole(plan: Plan) -> Self {
        Self { first: 0, count: plan.columns, to: 0, across: 2 * plan.columns }
    }

    /// One block, where products are of all.
    pub fn block(block: usize, plan: Plan) -> Self {
        Self { first: block, count: 1, to: 2 * block, across: 2 * plan.columns }
    }

    /// Those of a step, where products are of a step.
    pub fn step(step: usize, plan: Plan) -> Self {
        let count = plan.step();
        Self { first: step * count, count, to: 0, across: 2 * count }
    }
}

/// Zeros.
#[cube]
pub fn zeros(#[comptime] count: usize) -> Blocks {
    let mut blocks = Sequence::<Sum>::new();
    #[unroll]
    for _ in 0..count {
        let mut block = Array::<Vector<f32, Pair>>::new(2usize);
        clear(&mut block);
        blocks.push(block);
    }
    blocks
}

/// Makes a block's sums zero.
#[cube]
fn clear(block: &mut Sum) {
    block[0] = Vector::new(0.0f32);
    block[1] = Vector::new(0.0f32);
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

/// One of the plane's rows' left operands: the block of rows, and that of their elements.
#[cube]
fn left<E: Float, N: Size>(
    plane: &Plane,
    rows: &Shared<[Vector<E, N>]>,
    #[comptime] i: usize,
    #[comptime] k: usize,
    #[comptime] plan: Plan,
) -> Operand<E> {
    let stride = comptime![plan.stride()];
    let at = ((top(plan) + comptime![i * SIDE]) * stride + comptime![k * SIDE]) / N::value();
    plane.left::<E, N>(&rows[at..rows.len()], stride)
}

/// The plane's rows as left operands, those of each block of rows one after the other; none where the plan keeps them in memory.
#[cube]
pub fn operands<E: Float, N: Size>(
    plane: &Plane,
    rows: &Shared<[Vector<E, N>]>,
    #[comptime] plan: Plan,
) -> Sequence<Operand<E>> {
    let mut found = Sequence::<Operand<E>>::new();
    if comptime![plan.held] {
        #[unroll]
        for i in 0..plan.blocks {
            #[unroll]
            for k in 0..plan.depth {
                found.push(left::<E, N>(plane, rows, i, k, plan));
            }
        }
    }
    found
}

/// Adds to `found` the products of the plane's rows, which are `held` or read from `rows`, with a part of the `lines`, which begin with
/// vector `base`.
#[cube]
pub fn multiply<E: Float, N: Size>(
    plane: &mut Plane,
    found: &mut Blocks,
    held: &Sequence<Operand<E>>,
    rows: &Shared<[Vector<E, N>]>,
    lines: &Shared<[Vector<E, N>]>,
    base: usize,
    #[comptime] part: Part,
    #[comptime] plan: Plan,
) {
    let stride = comptime![plan.stride()];
    #[unroll]
    for k in 0..plan.depth {
        let mut lefts = Sequence::<Operand<E>>::new();
        if comptime![!plan.held] {
            #[unroll]
            for i in 0..plan.blocks {
                lefts.push(left::<E, N>(&*plane, rows, i, k, plan));
            }
        }
        #[unroll]
        for j in 0..part.count {
            let at = base + comptime![(part.first + j) * SIDE * stride + k * SIDE] / N::value();
            let right = plane.transposed::<E, N>(&lines[at..lines.len()], stride);
            #[unroll]
            for i in 0..plan.blocks {
                let to = comptime![i * part.across + part.to + 2 * j];
                if comptime![plan.held] {
                    both::<E>(plane, found, held.index(comptime![i * plan.depth + k]), &right, to);
                } else {
                    both::<E>(plane, found, lefts.index(i), &right, to);
                }
            }
        }
    }
}

/// Puts such products in place of what was there.
#[cube]
pub fn renew<E: Float, N: Size>(
    plane: &mut Plane,
    found: &mut Blocks,
    held: &Sequence<Operand<E>>,
    rows: &Shared<[Vector<E, N>]>,
    lines: &Shared<[Vector<E, N>]>,
    base: usize,
    #[comptime] part: Part,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for i in 0..plan.blocks {
        #[unroll]
        for j in 0..comptime![2 * part.count] {
            clear(found.index_mut(comptime![i * part.across + part.to + j]));
        }
    }
    multiply::<E, N>(plane, found, held, rows, lines, base, part, plan);
}

/// Adds the products with both of two right operands to two neighbouring blocks.
#[cube]
fn both<E: Float>(
    plane: &mut Plane,
    found: &mut Blocks,
    left: &Operand<E>,
    right: &Operand<E>,
    #[comptime] first: usize,
) {
    #[unroll]
    for half in 0..2usize {
        plane.multiply_add::<E>(found.index_mut(comptime![first + half]), left, right, half);
    }
}

/// Adds the lines of a block of sixteen, from vector `base` of them on, each by its weight in `weights`.
#[cube]
pub fn add<E: Float, N: Size>(
    plane: &mut Plane,
    sums: &mut Blocks,
    weights: &Sequence<Operand<E>>,
    lines: &Shared<[Vector<E, N>]>,
    base: usize,
    #[comptime] block: usize,
    #[comptime] plan: Plan,
) {
    let stride = comptime![plan.stride()];
    #[unroll]
    for k in 0..plan.depth {
        let at = base + comptime![block * SIDE * stride + k * SIDE] / N::value();
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

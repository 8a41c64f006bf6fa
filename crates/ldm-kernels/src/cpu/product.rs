//! Matrix products on all threads, for convolutions, linear layers and attention alike.
//!
//! `C = A B` with A read where it lies (rows of consecutive values: weights as the file has them, or tokens) and B
//! in [`Panels`]. Goto's blocking (Goto and van de Geijn 2008) but for the packing of A, which a broadcast load
//! makes needless.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::panels::{Panel, Panels};
use super::tile::{Left, MAX_COLUMNS, ROWS, Tile, product};
use super::turn::{Add, turned};

/// Depth of a pass: a pass over B's columns in a task fits the second-level cache.
const DEPTH: usize = 256;
/// Rows of A in a task.
const TASK_ROWS: usize = 8 * ROWS;
/// Panels of B in a task.
const TASK_PANELS: usize = 10;

/// The left-hand matrix.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Row i begins at `data[i * stride]`.
    pub data: &'a [f32],
    /// How many rows.
    pub count: usize,
    /// From one row to the next.
    pub stride: usize,
    /// Whether A lies in tiles instead, [`ROWS`] rows each: the first value of every row, the second of every row,
    /// and so on, the rows of a last tile that has fewer being there all the same. `stride` is a row's length.
    pub tiles: bool,
}

impl Rows<'_> {
    /// The rows of a tile that begins with row `first`, from column `k` on; rows after `last` are `last` once more.
    fn tile(&self, first: usize, last: usize, k: usize) -> Left<ROWS> {
        let at = |i: usize| match self.tiles {
            true => first * self.stride + k * ROWS + i,
            false => (first + i).min(last) * self.stride + k,
        };
        let step = if self.tiles { ROWS } else { 1 };
        Left { rows: std::array::from_fn(|i| self.data[at(i)..].as_ptr()), step }
    }
}

/// What is added to the product.
#[derive(Clone, Copy)]
pub enum Bias<'a> {
    /// Nothing.
    None,
    /// What the target already holds.
    Target,
    /// One value a row of A.
    Row(&'a [f32]),
    /// One value a column of B.
    Column(&'a [f32]),
}

/// Where the product goes: element (i, j) to `start(panel of j) + i * row + (j - first of panel) * column`.
pub struct Target<'a> {
    values: *mut f32,
    len: usize,
    row: usize,
    column: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: threads write through `slice` only, which asks for disjoint ranges.
unsafe impl Sync for Target<'_> {}

impl<'a> Target<'a> {
    /// Writes to `values` with these distances between rows and between columns, one of which is 1.
    pub fn new(values: &'a mut [f32], row: usize, column: usize) -> Self {
        debug_assert!(row == 1 || column == 1);
        Self { values: values.as_mut_ptr(), len: values.len(), row, column, life: PhantomData }
    }

    /// From one row to the next.
    pub fn row(&self) -> usize {
        self.row
    }

    /// Where `len` values begin, which lie inside.
    fn pointer(&self, start: usize, len: usize) -> *mut f32 {
        assert!(start + len <= self.len);
        // SAFETY: inside the buffer, as asserted.
        unsafe { self.values.add(start) }
    }

    /// Some consecutive values.
    ///
    /// # Safety
    /// No other reference to these values may exist.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [f32] {
        // SAFETY: inside the buffer that `self` borrows mutably; disjoint as the caller vouches.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(start, len), len) }
    }
}

/// `target = a b + bias`, on all threads; `start` says where a panel's first column goes.
pub fn multiply(a: Rows, b: &Panels, bias: Bias, target: &Target, start: impl Fn(&Panel) -> usize + Sync) {
    let groups = b.panels.len().div_ceil(TASK_PANELS);
    let per_group = b.panels.len().div_ceil(groups.max(1));
    let tasks = a.count.div_ceil(TASK_ROWS) * groups;
    (0..tasks).into_par_iter().for_each(|task| {
        let (rows, group) = (task / groups * TASK_ROWS, task % groups * per_group);
        let rows = rows..(rows + TASK_ROWS).min(a.count);
        let panels = group.min(b.panels.len())..(group + per_group).min(b.panels.len());
        let block = Block { rows, panels, depth: 0..b.depth };
        // SAFETY: each pair of a row and a column belongs to one task.
        unsafe { multiply_block(a, b, block, bias, target, &start) };
    });
}

/// A part of a product.
pub struct Block {
    /// Of A.
    pub rows: Range<usize>,
    /// Of B.
    pub panels: Range<usize>,
    /// Rows of B that take part; A's rows begin with the first of them.
    pub depth: Range<usize>,
}

impl Block {
    /// So many rows of A with all of `b`.
    pub fn all(rows: usize, b: &Panels) -> Self {
        Self { rows: 0..rows, panels: 0..b.panels.len(), depth: 0..b.depth }
    }
}

/// [`multiply`] for a block, on this thread.
///
/// # Safety
/// No other thread may write the same elements at the same time.
pub unsafe fn multiply_block(
    a: Rows,
    b: &Panels,
    block: Block,
    bias: Bias,
    target: &Target,
    start: &impl Fn(&Panel) -> usize,
) {
    let Block { rows, panels, depth: all } = block;
    assert!(all.end <= b.depth);
    let end = if a.tiles { rows.end.next_multiple_of(ROWS) } else { rows.end };
    assert!(rows.is_empty() || (end - 1) * a.stride + all.len() <= a.data.len());
    let mut tile: Tile = [0.0; ROWS * MAX_COLUMNS];
    for k in (0..all.len()).step_by(DEPTH) {
        let depth = DEPTH.min(all.len() - k);
        for first in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - first);
            // A last tile with fewer rows computes its last row several times and keeps one.
            let left = a.tile(first, first + count - 1, k);
            for panel in &b.panels[panels.clone()] {
                let values = b.rows(panel, all.start + k).as_ptr();
                let bias = if k == 0 { bias } else { Bias::Target };
                let whole = count == ROWS && panel.columns == panel.width;
                if let (Bias::None, 1, true) = (bias, target.column, whole) {
                    let out = start(panel) + first * target.row;
                    let out = target.pointer(out, (ROWS - 1) * target.row + panel.width);
                    // SAFETY: rows of A and of B have that depth (asserted above); the tile's rows are the caller's.
                    unsafe { product(b.level, panel.vectors, depth, &left, values, out, target.row) };
                    continue;
                }
                // SAFETY: as above; the tile has room for any.
                unsafe {
                    product(b.level, panel.vectors, depth, &left, values, tile.as_mut_ptr(), panel.width)
                };
                if target.column > 1 && count == ROWS {
                    let last = (panel.columns - 1) * target.column;
                    let out = target.pointer(start(panel) + first, last + ROWS);
                    let add = Add::new(bias, first, panel.first);
                    // SAFETY: as the caller vouches.
                    unsafe { turned(b.level, &tile, [panel.width, panel.columns], add, out, target.column) };
                    continue;
                }
                // SAFETY: as the caller vouches.
                unsafe { write(&tile, panel, first..first + count, bias, target, start(panel)) };
            }
        }
    }
}

/// Writes a tile with its bias.
///
/// # Safety
/// As [`multiply_block`].
unsafe fn write(tile: &Tile, panel: &Panel, rows: Range<usize>, bias: Bias, target: &Target, start: usize) {
    let tile_rows = || rows.clone().zip(tile.chunks_exact(panel.width));
    if target.column == 1 {
        for (i, values) in tile_rows() {
            // SAFETY: as the caller vouches.
            let out = unsafe { target.slice(start + i * target.row, panel.columns) };
            let pairs = out.iter_mut().zip(values);
            match bias {
                Bias::None => pairs.for_each(|(o, v)| *o = *v),
                Bias::Target => pairs.for_each(|(o, v)| *o += v),
                Bias::Row(bias) => pairs.for_each(|(o, v)| *o = v + bias[i]),
                Bias::Column(bias) => {
                    pairs.zip(&bias[panel.first..]).for_each(|((o, v), bias)| *o = v + bias);
                }
            }
        }
        return;
    }
    for j in 0..panel.columns {
        // SAFETY: as the caller vouches.
        let out = unsafe { target.slice(start + j * target.column + rows.start, rows.len()) };
        for (o, (i, values)) in out.iter_mut().zip(tile_rows()) {
            *o = match bias {
                Bias::None => values[j],
                Bias::Target => *o + values[j],
                Bias::Row(bias) => values[j] + bias[i],
                Bias::Column(bias) => values[j] + bias[panel.first + j],
            };
        }
    }
}

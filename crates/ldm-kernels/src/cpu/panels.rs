//! The right-hand matrix of a product, reordered so that the innermost loop reads it straight through.

use std::ops::Range;

use rayon::prelude::*;

use super::scratch::Scratch;
use super::simd::Level;
use super::tile::widths;

/// Rows that one task fills at a time.
const ROWS_PER_TASK: usize = 512;

/// A few columns of B, all its rows: `depth` rows of `width` values.
#[derive(Debug, Clone, Copy)]
pub struct Panel {
    /// Registers across.
    pub vectors: usize,
    /// Values in a row, padding included.
    pub width: usize,
    /// The column of B that this panel begins with.
    pub first: usize,
    /// How many of the values in a row are columns of B.
    pub columns: usize,
    /// Where the panel begins in the buffer.
    start: usize,
}

/// B, cut into panels.
pub struct Panels {
    /// The instructions that the panels are cut for.
    pub level: Level,
    /// Rows of B.
    pub depth: usize,
    /// The panels from left to right.
    pub panels: Vec<Panel>,
    data: Scratch,
}

impl Panels {
    /// Room for `depth` rows and `runs` columns; no panel lies in two runs.
    pub fn new(level: Level, depth: usize, runs: impl IntoIterator<Item = Range<usize>>) -> Self {
        let (lanes, most) = widths(level);
        let (mut panels, mut start) = (Vec::new(), 0);
        for run in runs {
            for first in run.clone().step_by(lanes * most) {
                let columns = (run.end - first).min(lanes * most);
                let vectors = columns.div_ceil(lanes);
                let width = vectors * lanes;
                panels.push(Panel { vectors, width, first, columns, start });
                start += depth * width;
            }
        }
        Self { level, depth, panels, data: Scratch::take(start) }
    }

    /// Room for `depth` rows and `columns` columns.
    pub fn whole(level: Level, depth: usize, columns: usize) -> Self {
        Self::new(level, depth, std::iter::once(0..columns))
    }

    /// Fills the panels on all threads: `fill(panel, rows, values)` writes the `rows` of one panel, padding too.
    ///
    /// Tasks begin at rows that are multiples of `step`.
    pub fn fill(&mut self, step: usize, fill: impl Fn(&Panel, Range<usize>, &mut [f32]) + Sync) {
        let task = ROWS_PER_TASK.next_multiple_of(step);
        let depth = self.depth;
        self.split().into_par_iter().for_each(|(panel, values)| {
            let starts = (0..depth).into_par_iter().step_by(task);
            starts.zip(values.par_chunks_mut(task * panel.width)).for_each(|(k, values)| {
                fill(panel, k..(k + task).min(depth), values);
            });
        });
    }

    /// Fills the panels on all threads, each in one piece.
    pub fn fill_whole(&mut self, fill: impl Fn(&Panel, &mut [f32]) + Sync) {
        self.split().into_par_iter().for_each(|(panel, values)| fill(panel, values));
    }

    /// Fills the panels on this thread, each in one piece.
    pub fn fill_here(&mut self, fill: impl Fn(&Panel, &mut [f32])) {
        self.split().into_iter().for_each(|(panel, values)| fill(panel, values));
    }

    fn split(&mut self) -> Vec<(&Panel, &mut [f32])> {
        let mut rest = &mut self.data[..];
        let panels = self.panels.iter();
        panels
            .map(|panel| {
                let (values, after) = std::mem::take(&mut rest).split_at_mut(self.depth * panel.width);
                rest = after;
                (panel, values)
            })
            .collect()
    }

    /// The values of `panel` from row `k` on.
    pub fn rows(&self, panel: &Panel, k: usize) -> &[f32] {
        &self.data[panel.start + k * panel.width..panel.start + self.depth * panel.width]
    }
}

multiversion! {
    /// Fills rows `k` of a panel from the transpose of B: column j begins at `source[(first + j) * stride]`.
    pub fn fill_transposed(panel: &Panel, k: Range<usize>, values: &mut [f32], source: &[f32], stride: usize) {
        const BLOCK: usize = 16;
        let width = panel.width;
        values.fill(0.0);
        for start in k.clone().step_by(BLOCK) {
            let n = BLOCK.min(k.end - start);
            let values = &mut values[(start - k.start) * width..][..n * width];
            for j in 0..panel.columns {
                let column = &source[(panel.first + j) * stride + start..][..n];
                for (i, v) in column.iter().enumerate() {
                    values[i * width + j] = *v;
                }
            }
        }
    }
}

/// Fills rows `k` of a panel from B itself: row i begins at `source[i * stride]`.
pub fn fill_straight(panel: &Panel, k: Range<usize>, values: &mut [f32], source: &[f32], stride: usize) {
    for (k, values) in k.zip(values.chunks_exact_mut(panel.width)) {
        let (values, padding) = values.split_at_mut(panel.columns);
        values.copy_from_slice(&source[k * stride + panel.first..][..panel.columns]);
        padding.fill(0.0);
    }
}

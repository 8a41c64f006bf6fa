//! The gradients of attention, a block of scores at a time (Dao et al. 2022).
//!
//! With `S = Q K^T`, `P = softmax(scale S)` and `O = P V`: `dV = P^T dO`, `dS = scale P (dO V^T - delta)` where `delta` is
//! `dO O` summed over a query's row, `dQ = dS K` and `dK = dS^T Q`. `S`, `dO V^T` and what follows from them are made
//! once, transposed: a row a key. So `dV` and `dK` read them as they lie, and `dQ` reads a copy in tiles.

use std::ops::Range;

use rayon::prelude::*;

use super::attention::scale;
use super::exp::exp;
use super::heads::Head;
use super::panels::Panels;
use super::product::{Bias, Block, Rows, Target, multiply, multiply_block};
use super::scratch::Scratch;
use super::tile::ROWS;

/// Most queries in a span: one pass of a product over them. Spans follow one another, for they add to the same keys.
const QUERIES: usize = 256;
/// Keys in a task. A task's scores in a span fit the second-level cache, with their gradients.
const KEYS: usize = 64;

/// What one head's gradients follow from.
pub struct Attention<'a> {
    /// `[n, d]`.
    pub q: Head<'a>,
    /// `[m, d]`.
    pub k: Head<'a>,
    /// `[m, width]`.
    pub v: Head<'a>,
    /// `[n, width]`.
    pub output: Head<'a>,
    /// Of the output.
    pub gradient: Head<'a>,
    /// Every query's largest score, before it is scaled.
    pub largest: &'a [f32],
    /// 1 over the sum of the exponentials of the scaled differences to it.
    pub inverses: &'a [f32],
}

/// Where a head's gradient goes.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// What holds all heads.
    pub target: &'a Target<'a>,
    /// This head's first value there.
    pub start: usize,
}

impl Place<'_> {
    fn row(&self, i: usize) -> usize {
        self.start + i * self.target.row()
    }
}

impl Attention<'_> {
    /// Writes the gradients of `q`, `k` and `v` that have a place, on all threads.
    ///
    /// # Safety
    /// No other thread may write this head's values in these places.
    pub unsafe fn gradients(&self, places: [Option<Place>; 3]) {
        let n = self.q.count;
        let keys = places[0].map(|place| (place, self.k.right(self.k.all())));
        let spans = n.div_ceil(QUERIES);
        let step = n.div_ceil(spans);
        for first in (0..n).step_by(step) {
            let span = Span::new(self, first..(first + step).min(n), places);
            let m = self.k.count;
            let wanted = if keys.is_some() { span.stride() * m } else { 0 };
            let mut tiles = Scratch::take(wanted);
            {
                let tiles = Target::new(&mut tiles, ROWS * m, 1);
                (0..m.div_ceil(KEYS)).into_par_iter().for_each(|block| {
                    let keys = block * KEYS..((block + 1) * KEYS).min(m);
                    // SAFETY: these keys of this head belong to this task, and so do their columns of the tiles.
                    unsafe { span.keys(keys, &tiles) };
                });
            }
            if let Some((place, keys)) = &keys {
                let rows = Rows { data: &tiles, count: span.queries.len(), stride: m, tiles: true };
                // These queries' rows are nobody else's at this time.
                multiply(rows, keys, Bias::None, place.target, |p| place.row(first) + p.first);
            }
        }
    }
}

/// Some queries of a head, with all its keys.
struct Span<'a> {
    attention: &'a Attention<'a>,
    queries: Range<usize>,
    places: [Option<Place<'a>>; 3],
    /// What the first span writes, those after it add to.
    bias: Bias<'a>,
    /// `[d, queries]`.
    scoring: Panels,
    /// As far as `q` or `k` want a gradient.
    slopes: Option<Slopes>,
    /// `[queries, width]`: the output's gradient, where `v` wants one.
    gradients: Option<Panels>,
}

/// What the scores' gradients need.
struct Slopes {
    /// `[width, queries]`: the output's gradient.
    gradients: Panels,
    /// The sum of each row of `dO O`.
    deltas: Vec<f32>,
    /// `[queries, d]`, where `k` wants a gradient.
    queries: Option<Panels>,
}

impl<'a> Span<'a> {
    fn new(attention: &'a Attention, queries: Range<usize>, places: [Option<Place<'a>>; 3]) -> Self {
        let Attention { q, output, gradient, .. } = attention;
        let rows = || queries.clone();
        let slopes = places[0].or(places[1]).map(|_| Slopes {
            gradients: gradient.right_transposed(rows()),
            deltas: rows().map(|i| dot(gradient.row(i), output.row(i))).collect(),
            queries: places[1].map(|_| q.right(rows())),
        });
        Self {
            attention,
            places,
            bias: if queries.start == 0 { Bias::None } else { Bias::Target },
            scoring: q.right_transposed(rows()),
            slopes,
            gradients: places[2].map(|_| gradient.right(rows())),
            queries,
        }
    }

    /// From one key's scores to the next: whole tiles.
    fn stride(&self) -> usize {
        self.queries.len().next_multiple_of(ROWS)
    }

    /// Writes what `keys` add to the gradients of `k` and `v`, and to `tiles` the gradients of their scores.
    ///
    /// # Safety
    /// No other thread may write these keys' gradients or their columns of the tiles.
    unsafe fn keys(&self, keys: Range<usize>, tiles: &Target) {
        let Attention { k, v, largest, inverses, .. } = self.attention;
        let [q_place, k_place, v_place] = self.places;
        let (stride, scale) = (self.stride(), scale(k.width));
        let mut weights = self.product(k, keys.clone(), &self.scoring);
        let (largest, inverses) = (&largest[self.queries.clone()], &inverses[self.queries.clone()]);
        exponentials(&mut weights, stride, largest, inverses, scale);
        if let (Some(place), Some(gradients)) = (v_place, &self.gradients) {
            // SAFETY: as the caller vouches.
            unsafe { self.add(&weights, keys.clone(), gradients, &place) };
        }
        let Some(Slopes { gradients, deltas, queries }) = &self.slopes else { return };
        let mut slopes = self.product(v, keys.clone(), gradients);
        through_softmax(&mut slopes, &weights, stride, deltas, scale);
        if let (Some(place), Some(queries)) = (k_place, queries) {
            // SAFETY: as the caller vouches.
            unsafe { self.add(&slopes, keys.clone(), queries, &place) };
        }
        if q_place.is_some() {
            // SAFETY: as the caller vouches.
            unsafe { copy_to_tiles(&slopes, stride, keys.start, tiles) };
        }
    }

    /// `keys` of `rows` times the columns of the queries: a row a key.
    fn product(&self, rows: &Head, keys: Range<usize>, columns: &Panels) -> Scratch {
        let (count, stride) = (keys.len(), self.stride());
        let mut values = Scratch::take(count * stride);
        {
            let values = Target::new(&mut values, stride, 1);
            let (rows, block) = (rows.left(keys), Block::all(count, columns));
            // SAFETY: the values are this thread's own.
            unsafe { multiply_block(rows, columns, block, Bias::None, &values, &|p| p.first) };
        }
        values
    }

    /// Adds `values`, a row a key, times `rows` of the queries to the keys' gradient.
    ///
    /// # Safety
    /// No other thread may write these rows.
    unsafe fn add(&self, values: &[f32], keys: Range<usize>, rows: &Panels, place: &Place) {
        let (count, first) = (keys.len(), place.row(keys.start));
        let values = Rows { data: values, count, stride: self.stride(), tiles: false };
        let block = Block::all(count, rows);
        // SAFETY: as the caller vouches.
        unsafe { multiply_block(values, rows, block, self.bias, place.target, &|p| first + p.first) };
    }
}

/// Copies rows of keys, from key `first` on, to tiles of queries.
///
/// # Safety
/// No other thread may write these keys' columns of the tiles.
unsafe fn copy_to_tiles(rows: &[f32], stride: usize, first: usize, tiles: &Target) {
    // So many keys at a time that whole lines of the cache are written.
    for (i, rows) in rows.chunks(ROWS * stride).enumerate() {
        let count = rows.len() / stride;
        for tile in 0..stride / ROWS {
            let start = tile * tiles.row() + (first + i * ROWS) * ROWS;
            // SAFETY: as the caller vouches.
            let to = unsafe { tiles.slice(start, count * ROWS) };
            for (to, row) in to.chunks_exact_mut(ROWS).zip(rows.chunks_exact(stride)) {
                to.copy_from_slice(&row[tile * ROWS..][..ROWS]);
            }
        }
    }
}

multiversion! {
    /// Scores, a row a key, to weights: `exp(scale (score - largest)) inverse`.
    fn exponentials(scores: &mut [f32], stride: usize, largest: &[f32], inverses: &[f32], scale: f32) {
        for scores in scores.chunks_exact_mut(stride) {
            for (score, (largest, inverse)) in scores.iter_mut().zip(largest.iter().zip(inverses)) {
                *score = exp((*score - largest) * scale) * inverse;
            }
        }
    }
}

multiversion! {
    /// The weights' gradients, a row a key, to the scores': `scale weight (gradient - delta)`.
    fn through_softmax(gradients: &mut [f32], weights: &[f32], stride: usize, deltas: &[f32], scale: f32) {
        for (gradients, weights) in gradients.chunks_exact_mut(stride).zip(weights.chunks_exact(stride)) {
            for ((gradient, weight), delta) in gradients.iter_mut().zip(weights).zip(deltas) {
                *gradient = scale * weight * (*gradient - delta);
            }
        }
    }
}

multiversion! {
    /// The sum of `a b`.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        const LANES: usize = 16;
        let mut sums = [0f32; LANES];
        for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
            for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                *sum += a * b;
            }
        }
        sums.iter().sum()
    }
}

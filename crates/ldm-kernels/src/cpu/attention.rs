use std::ops::Range;

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge;
use super::buffer::Buffer;
use super::exp::exp;
use super::heads::{Head, Heads};
use super::panels::Panels;
use super::product::{Bias, Block, Rows, Target, multiply_block};
use super::scratch::Scratch;

/// Queries in a task.
const QUERIES: usize = 64;

/// See [`crate::attention`]; `None` where the tensors are not plain f32 flex tensors of fitting shapes.
pub fn attention(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> Option<Tensor<4>> {
    let [batch, heads, n, _] = q.dims();
    let [_, _, _, width] = v.dims();
    let (output, _) = attend(&Heads::new(q)?, &Heads::new(k)?, &Heads::new(v)?)?;
    let output: Tensor<4> = bridge::tensor(output, [batch, n, heads, width], &q.device());
    Some(output.swap_dims(1, 2))
}

/// The factor of the scores of `d` products.
pub fn scale(d: usize) -> f32 {
    1.0 / (d as f32).sqrt()
}

/// [`attention`] and what its gradient needs; `None` where the shapes don't fit.
///
/// The output is `[b, n, heads, width]`, so that merging the heads copies nothing. The second is `[2, b, heads, n]`: every
/// query's largest score, before it is scaled; then 1 over the sum of the exponentials of the scaled differences to it.
pub fn attend(q: &Heads, k: &Heads, v: &Heads) -> Option<(Buffer, Vec<f32>)> {
    let [batch, heads, n, d] = q.dims();
    let [_, _, m, width] = v.dims();
    let fits = k.dims() == [batch, heads, m, d] && v.dims()[..2] == [batch, heads];
    if !fits || batch * heads * n * d * m * width == 0 {
        return None;
    }
    let mut output = Buffer::take(batch * n * heads * width);
    let mut statistics = vec![0.0; 2 * batch * heads * n];
    let target = Target::new(&mut output, heads * width, 1);
    let (largest, inverses) = statistics.split_at_mut(batch * heads * n);
    let statistics_of_heads = largest.par_chunks_mut(n).zip(inverses.par_chunks_mut(n));
    statistics_of_heads.enumerate().for_each(|(index, (largest, inverses))| {
        let at = [index / heads, index % heads];
        let (k, v) = (k.head(at), v.head(at));
        let (keys, values) = (k.right_transposed(k.all()), v.right(v.all()));
        let start = at[0] * n * heads * width + at[1] * width;
        let head = Attention { queries: q.head(at), keys, values, scale: scale(d) };
        let blocks = largest.par_chunks_mut(QUERIES).zip(inverses.par_chunks_mut(QUERIES));
        blocks.enumerate().for_each(|(block, (largest, inverses))| {
            let rows = block * QUERIES..((block + 1) * QUERIES).min(n);
            // SAFETY: these queries of this head belong to this task.
            unsafe { head.attend(rows, &target, start, largest, inverses) };
        });
    });
    Some((output, statistics))
}

/// One head.
struct Attention<'a> {
    queries: Head<'a>,
    keys: Panels,
    values: Panels,
    scale: f32,
}

impl Attention<'_> {
    /// The output of the queries `rows`, and their statistics; all their scores are in the second-level cache at once.
    ///
    /// # Safety
    /// No other thread may write these rows of this head.
    unsafe fn attend(
        &self,
        rows: Range<usize>,
        target: &Target,
        start: usize,
        largest: &mut [f32],
        inverses: &mut [f32],
    ) {
        let (count, m) = (rows.len(), self.values.depth);
        let width = self.values.panels.iter().map(|panel| panel.columns).sum();
        let mut scores = Scratch::take(count * m);
        let queries = self.queries.left(rows.clone());
        {
            let scores = Target::new(&mut scores, m, 1);
            let block = Block::all(count, &self.keys);
            // SAFETY: the scores are this thread's own.
            unsafe { multiply_block(queries, &self.keys, block, Bias::None, &scores, &|p| p.first) };
        }
        for (scores, (largest, inverse)) in
            scores.chunks_exact_mut(m).zip(largest.iter_mut().zip(&mut *inverses))
        {
            let sum;
            [*largest, sum] = exponentials(scores, self.scale);
            *inverse = 1.0 / sum;
        }
        let weights = Rows { data: &scores, count, stride: m, tiles: false };
        let first = start + rows.start * target.row();
        let block = Block::all(count, &self.values);
        // SAFETY: as the caller vouches.
        unsafe {
            multiply_block(weights, &self.values, block, Bias::None, target, &|p| first + p.first);
            for (i, inverse) in inverses.iter().enumerate() {
                let row = target.slice(first + i * target.row(), width);
                row.iter_mut().for_each(|v| *v *= inverse);
            }
        }
    }
}

multiversion! {
    /// `x = exp(scale (x - max x))`; gives `max x` and the sum of the new values.
    fn exponentials(x: &mut [f32], scale: f32) -> [f32; 2] {
        const LANES: usize = 32;
        let mut largest = [f32::NEG_INFINITY; LANES];
        for chunk in x.chunks(LANES) {
            for (l, v) in largest.iter_mut().zip(chunk) {
                *l = if *v > *l { *v } else { *l };
            }
        }
        let largest = largest.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        let mut sums = [0f32; LANES];
        for chunk in x.chunks_mut(LANES) {
            for (sum, v) in sums.iter_mut().zip(chunk) {
                *v = exp((*v - largest) * scale);
                *sum += *v;
            }
        }
        [largest, sums.iter().sum()]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;
    use crate::attention::plain;

    #[test]
    fn equals_plain_burn() {
        let device = Device::flex();
        let cases = [
            [1, 1, 1, 1, 1],
            [2, 3, 5, 7, 9],
            [1, 2, 64, 77, 40],
            [1, 1, 100, 100, 33],
            [1, 1, 130, 300, 64],
        ];
        for [b, h, n, m, d] in cases {
            let q = seeded_input("q", [b, h, n, d], &device) * 2.0;
            let k = seeded_input("k", [b, h, m, d], &device) * 2.0;
            let v = seeded_input("v", [b, h, m, d], &device);
            let ours = attention(&q, &k, &v).expect("plain f32 on flex");
            let twin = plain(q, k, v, None);
            assert_close(&format!("{b} {h} {n} {m} {d}"), &ours, &twin, 1e-5);
        }
    }

    #[test]
    fn split_heads_are_read_as_views() {
        let device = Device::flex();
        let split = |name: &str, n: usize| {
            seeded_input::<3>(name, [2, n, 3 * 20], &device).reshape([2, n, 3, 20]).swap_dims(1, 2)
        };
        let (q, k, v) = (split("q", 33), split("k", 50), split("v", 50));
        let ours = attention(&q, &k, &v).expect("plain f32 on flex");
        assert_close("views", &ours, &plain(q, k, v, None), 1e-5);
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let device = Device::flex();
        let q = seeded_input::<4>("q", [1, 1, 9, 16], &device) * 300.0;
        let k = seeded_input::<4>("k", [1, 1, 11, 16], &device) * 300.0;
        let v = seeded_input::<4>("v", [1, 1, 11, 16], &device);
        let ours = attention(&q, &k, &v).expect("plain f32 on flex");
        assert_close("large", &ours, &plain(q, k, v, None), 1e-4);
    }
}

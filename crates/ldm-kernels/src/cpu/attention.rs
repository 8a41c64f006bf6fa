use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge;
use super::buffer::Buffer;
use super::exp::exp;
use super::panels::{Panels, fill_straight, fill_transposed};
use super::product::{Bias, Block, Rows, Target, multiply_block};
use super::scratch::Scratch;
use super::simd::Level;

/// Queries in a task.
const QUERIES: usize = 64;

/// See [`crate::attention`]; `None` where the tensors are not plain f32 flex tensors of fitting shapes.
pub fn attention(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> Option<Tensor<4>> {
    let [batch, heads, n, d] = q.dims();
    let [_, _, m, width] = v.dims();
    let fits = k.dims() == [batch, heads, m, d] && v.dims()[..2] == [batch, heads];
    if !fits || batch * heads * n * d * m * width == 0 {
        return None;
    }
    let (q_heads, k_heads, v_heads) = (Heads::new(q)?, Heads::new(k)?, Heads::new(v)?);
    // [b, n, heads, width], so that merging the heads copies nothing.
    let mut output = Buffer::take(batch * n * heads * width);
    let level = Level::best();
    let target = Target::new(&mut output, heads * width, 1);
    (0..batch * heads).into_par_iter().for_each(|index| {
        let at = [index / heads, index % heads];
        let ((q, q_row), (k, k_row), (v, v_row)) = (q_heads.head(at), k_heads.head(at), v_heads.head(at));
        let mut keys = Panels::whole(level, d, m);
        keys.fill(1, |panel, rows, values| fill_transposed(panel, rows, values, k, k_row));
        let mut values = Panels::whole(level, m, width);
        values.fill(1, |panel, rows, out| fill_straight(panel, rows, out, v, v_row));
        let start = at[0] * n * heads * width + at[1] * width;
        let queries = Rows { data: q, count: n, stride: q_row, tiles: false };
        let head = Head { queries, keys, values, scale: 1.0 / (d as f32).sqrt() };
        (0..n.div_ceil(QUERIES)).into_par_iter().for_each(|block| {
            let rows = block * QUERIES..((block + 1) * QUERIES).min(n);
            // SAFETY: these queries of this head belong to this task.
            unsafe { head.attend(rows, width, m, &target, start) };
        });
    });
    let output: Tensor<4> = bridge::tensor(output, [batch, n, heads, width], &q.device());
    Some(output.swap_dims(1, 2))
}

struct Head<'a> {
    queries: Rows<'a>,
    keys: Panels,
    values: Panels,
    scale: f32,
}

impl Head<'_> {
    /// The output of the queries `rows`; all their scores are in the second-level cache at once.
    ///
    /// # Safety
    /// No other thread may write these rows of this head.
    unsafe fn attend(
        &self,
        rows: std::ops::Range<usize>,
        width: usize,
        m: usize,
        target: &Target,
        start: usize,
    ) {
        let count = rows.len();
        let mut scores = Scratch::take(count * m);
        let queries = Rows { data: &self.queries.data[rows.start * self.queries.stride..], ..self.queries };
        {
            let scores = Target::new(&mut scores, m, 1);
            let block =
                Block { rows: 0..count, panels: 0..self.keys.panels.len(), depth: 0..self.keys.depth };
            // SAFETY: the scores are this thread's own.
            unsafe { multiply_block(queries, &self.keys, block, Bias::None, &scores, &|p| p.first) };
        }
        let mut sums = [0.0; QUERIES];
        for (scores, sum) in scores.chunks_exact_mut(m).zip(&mut sums) {
            *sum = exponentials(scores, self.scale);
        }
        let weights = Rows { data: &scores, count, stride: m, tiles: false };
        let first = start + rows.start * target.row();
        let block = Block { rows: 0..count, panels: 0..self.values.panels.len(), depth: 0..m };
        // SAFETY: as the caller vouches.
        unsafe {
            multiply_block(weights, &self.values, block, Bias::None, target, &|p| first + p.first);
            for (i, sum) in sums[..count].iter().enumerate() {
                let inverse = 1.0 / sum;
                let row = target.slice(first + i * target.row(), width);
                row.iter_mut().for_each(|v| *v *= inverse);
            }
        }
    }
}

multiversion! {
    /// `x = exp(scale (x - max x))` and the sum of it.
    fn exponentials(x: &mut [f32], scale: f32) -> f32 {
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
        sums.iter().sum()
    }
}

/// A tensor `[b, heads, n, d]` whose last axis lies in order; the others may be views.
struct Heads {
    tensor: FlexTensor,
}

impl Heads {
    fn new(x: &Tensor<4>) -> Option<Self> {
        let tensor = bridge::flex(x)?;
        let strides = tensor.layout().strides();
        let plain = strides[3] == 1 && strides.iter().all(|s| *s >= 0);
        Some(Self { tensor: if plain { tensor } else { tensor.to_contiguous() } })
    }

    /// The values of one head from its first on, and the distance between rows.
    fn head(&self, [b, head]: [usize; 2]) -> (&[f32], usize) {
        let layout = self.tensor.layout();
        let stride = |axis: usize| layout.strides()[axis].unsigned_abs();
        let start = layout.start_offset() + b * stride(0) + head * stride(1);
        (&self.tensor.storage()[start..], stride(2))
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

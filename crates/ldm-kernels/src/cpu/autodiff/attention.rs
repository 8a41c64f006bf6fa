use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::super::attention::{Heads, QUERIES, exponentials};
use super::super::bridge;
use super::super::panels::{Panels, fill_straight, fill_transposed};
use super::super::product::{Bias, Block, Rows, Target, multiply_block};
use super::super::simd::Level;
use super::{Gradient, node, record, value};

/// See [`crate::attention`]; `None` where the tensors are not f32 on flex under autodiff.
pub fn attention(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> Option<Tensor<4>> {
    let nodes = [node(q)?, node(k)?, node(v)?];
    let [q, k, v] = nodes.each_ref().map(value::<4>);
    let output = super::super::attention(&q, &k, &v)?;
    let saved = Attention { q: Heads::new(&q)?, k: Heads::new(&k)?, v: Heads::new(&v)? };
    record(nodes.each_ref(), output, saved)
}

/// The weights are not kept: the backward computes them again, a block of queries at a time (Dao et al. 2022,
/// algorithm 4).
#[derive(Debug, Clone)]
struct Attention {
    /// `[b, heads, n, d]`.
    q: Heads,
    /// `[b, heads, m, d]`.
    k: Heads,
    /// `[b, heads, m, width]`.
    v: Heads,
}

impl Gradient<3> for Attention {
    // The products of one block give all three.
    fn gradients(self, output: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let [b, heads, n, d] = self.q.dims();
        let [_, _, m, width] = self.v.dims();
        let g = bridge::slice(&output);
        let zeros = |rows: usize, columns: usize| vec![0.0; b * heads * rows * columns];
        let (mut dq, mut dk, mut dv) = (zeros(n, d), zeros(m, d), zeros(m, width));
        let outputs =
            dq.par_chunks_mut(n * d).zip(dk.par_chunks_mut(m * d)).zip(dv.par_chunks_mut(m * width));
        outputs.zip(g.par_chunks(n * width)).enumerate().for_each(|(i, (((dq, dk), dv), g))| {
            let at = [i / heads, i % heads];
            let head = Head {
                q: rows(&self.q, at, n),
                k: rows(&self.k, at, m),
                v: rows(&self.v, at, m),
                g: Rows { data: g, count: n, stride: width },
                d,
                width,
            };
            head.gradients(dq, dk, dv);
        });
        [
            Some(bridge::primitive(dq, [b, heads, n, d])),
            Some(bridge::primitive(dk, [b, heads, m, d])),
            Some(bridge::primitive(dv, [b, heads, m, width])),
        ]
    }
}

fn rows(x: &Heads, at: [usize; 2], count: usize) -> Rows<'_> {
    let (data, stride) = x.head(at);
    Rows { data, count, stride }
}

/// One head, with the gradient `g` of its output.
struct Head<'a> {
    q: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    g: Rows<'a>,
    d: usize,
    width: usize,
}

impl Head<'_> {
    /// With `P = softmax(scale Q K^T)` and `dP = g V^T`: `dS = scale P (dP - sum(P dP))`, `dQ = dS K`, `dK = dS^T Q`,
    /// `dV = P^T g`. Adds to what `dk` and `dv` hold.
    fn gradients(&self, dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
        let Self { q, k, v, g, d, width } = *self;
        let m = k.count;
        let scale = 1.0 / (d as f32).sqrt();
        let (keys_transposed, values_transposed) = (transposed(k, d), transposed(v, width));
        let keys = straight(k, d);
        let [mut p, mut ds, mut columns] = [(); 3].map(|()| vec![0.0; QUERIES * m]);
        for (block, dq) in dq.chunks_mut(QUERIES * d).enumerate() {
            let count = dq.len() / d;
            let [q, g] = [q, g].map(|x| Rows { data: &x.data[block * QUERIES * x.stride..], count, ..x });
            let (p, ds) = (&mut p[..count * m], &mut ds[..count * m]);
            let columns = &mut columns[..count * m];
            times(q, &keys_transposed, Bias::None, p);
            times(g, &values_transposed, Bias::None, ds);
            for (p, ds) in p.chunks_exact_mut(m).zip(ds.chunks_exact_mut(m)) {
                let sum = exponentials(p, scale);
                through_softmax(p, ds, 1.0 / sum, scale);
            }
            times(Rows { data: ds, count, stride: m }, &keys, Bias::None, dq);
            transpose(p, columns, m);
            times(Rows { data: columns, count: m, stride: count }, &straight(g, width), Bias::Target, dv);
            transpose(ds, columns, m);
            times(Rows { data: columns, count: m, stride: count }, &straight(q, d), Bias::Target, dk);
        }
    }
}

multiversion! {
    /// Divides `p` by its sum; `ds`, which holds dP, becomes dS.
    fn through_softmax(p: &mut [f32], ds: &mut [f32], inverse: f32, scale: f32) {
        const LANES: usize = 32;
        let mut sums = [0f32; LANES];
        for (p, ds) in p.chunks_mut(LANES).zip(ds.chunks(LANES)) {
            for (sum, (p, ds)) in sums.iter_mut().zip(p.iter_mut().zip(ds)) {
                *p *= inverse;
                *sum += *p * ds;
            }
        }
        let sum: f32 = sums.iter().sum();
        for (p, ds) in p.iter().zip(ds) {
            *ds = p * (*ds - sum) * scale;
        }
    }
}

/// `target = a b`, added where `bias` says so.
fn times(a: Rows<'_>, b: &Panels, bias: Bias<'_>, target: &mut [f32]) {
    let columns = b.panels.iter().map(|panel| panel.columns).sum();
    let block = Block { rows: 0..a.count, panels: 0..b.panels.len(), depth: 0..b.depth };
    let target = Target::new(target, columns, 1);
    // SAFETY: the target is borrowed by this call alone.
    unsafe { multiply_block(a, b, block, bias, &target, &|panel| panel.first) };
}

/// The right-hand matrix whose rows are `x`'s, `columns` wide.
fn straight(x: Rows<'_>, columns: usize) -> Panels {
    let mut panels = Panels::whole(Level::best(), x.count, columns);
    panels.fill(1, |panel, rows, values| fill_straight(panel, rows, values, x.data, x.stride));
    panels
}

/// The right-hand matrix whose columns are `x`'s rows, `depth` long.
fn transposed(x: Rows<'_>, depth: usize) -> Panels {
    let mut panels = Panels::whole(Level::best(), depth, x.count);
    panels.fill(1, |panel, rows, values| fill_transposed(panel, rows, values, x.data, x.stride));
    panels
}

/// `[n, m]` -> `[m, n]`.
fn transpose(from: &[f32], to: &mut [f32], m: usize) {
    const BLOCK: usize = 16;
    let n = from.len() / m;
    for i in (0..n).step_by(BLOCK) {
        for j in (0..m).step_by(BLOCK) {
            for i in i..(i + BLOCK).min(n) {
                for j in j..(j + BLOCK).min(m) {
                    to[j * n + i] = from[i * m + j];
                }
            }
        }
    }
}

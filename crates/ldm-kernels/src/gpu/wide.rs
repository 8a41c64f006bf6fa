//! Attention of heads too wide for flash attention's registers: two products with the scores between them in f32, some
//! queries at a time. A first stage's attention is of one head of 512.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Tensor};
use burn_cubecl::cubecl::prelude::Client;

use super::bridge::{Gpu, primitive};
use super::conv2d::Work;
use super::ops::Kernels;
use super::{project, takes};

/// The most scores at a time.
const SCORES: usize = 1 << 24;
/// The most heads of all pictures: each is a few launches.
const HEADS: usize = 64;

/// See [`super::attention`].
pub fn attention(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    client: &Client,
    emulated: bool,
) -> Option<Tensor<4>> {
    let ([b, heads, n, d], [.., m, _], dtype) = (q.dims(), k.dims(), q.dtype());
    let alike = [k, v].into_iter().all(|x| x.dims() == [b, heads, m, d] && x.dtype() == dtype);
    let half = matches!(dtype, DType::F16 | DType::BF16);
    if !alike || ![q, k, v].into_iter().all(takes) || b * heads > HEADS || (!half && !emulated) {
        return None;
    }
    let work = Work::new(client, dtype_to_storage_type(dtype), emulated)?;
    let all = |x: &Tensor<4>, rows: usize| x.clone().reshape([b * heads, rows, d]);
    let (q, k, v) = (all(q, n), all(k, m), all(v, m));
    let block = (SCORES / m).clamp(1, n);
    let scale = 1.0 / (d as f64).sqrt();
    let of_head = |head: usize| {
        let [k, v] = [&k, &v].map(|x| x.clone().narrow(0, head, 1).reshape([m, d]));
        let rows = (0..n).step_by(block).map(|start| {
            let count = block.min(n - start);
            let q = q.clone().narrow(0, head, 1).narrow(1, start, count).reshape([count, d]);
            let scores: Tensor<2> = project(primitive(&q)?, primitive(&k)?, None, None, true, work)?;
            let shares = Gpu::shares(primitive(&scores)?, scale as f32, dtype);
            project(shares, primitive(&v.clone().transpose())?, None, None, false, work)
        });
        Some(Tensor::<2>::cat(rows.collect::<Option<Vec<_>>>()?, 0))
    };
    let parts = (0..b * heads).map(of_head).collect::<Option<Vec<_>>>()?;
    Some(Tensor::<2>::cat(parts, 0).reshape([b, heads, n, d]))
}

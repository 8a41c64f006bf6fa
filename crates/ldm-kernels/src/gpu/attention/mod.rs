//! Flash attention: softmax and sums over the keys a tile at a time, so that no score leaves a multiprocessor.
//!
//! A cube keeps rows and walks the lines: queries and keys, for the keys' gradients the other way round. Its planes
//! share the rows out and read the same lines from shared memory. Rows and lines are padded there, to blocks of 16.
//!
//! Where the sums are. Matrix units keep a block in registers in an order of their own, so a row of it can't be scaled
//! there, and the softmax of a tile would scale all sums so far whenever it finds a higher score. Two ways around
//! are known, and both cost memory traffic for every score: the sums in shared memory, which a tile of 64 keys then
//! reads and writes whole (16 bytes a score at 64 elements a head), or a first pass for the maxima (8 bytes a score, and
//! `Q K^T` twice). Here the sums stay where they are and the reference may lag behind: weights are `exp(score -
//! reference)` with a reference up to 5 below the highest score, which f16 holds as exactly as smaller ones. It
//! follows when a score is further above it, and only then the sums pass through shared memory to be scaled. That
//! happens in a row's first tiles, if at all. So one pass and two products do, for 4096 keys as for 77, which are one
//! tile.
//!
//! What a score costs in shared memory then: 12 bytes for itself and its weight (written by the matrix units, read
//! for the softmax, written and read again), and 6 for its share of the lines' blocks, which each plane reads for 32
//! rows.
//!
//! Where units know which values of a block they hold, as on CUDA, none of that is needed: scores, weights and sums stay in
//! registers ([`by_fragments`]), and the next keys' scores take the place of those that have become weights, one block after
//! the other: a plane waits for its exponentials and for its products at once. The gradients do likewise, sixteen lines at a
//! time, as long as a unit's registers hold its rows beside the sums.
//!
//! Where nobody knows them but each can be changed where it is, as by `VK_NV_cooperative_matrix2`, weights stay in registers too
//! ([`elements`]), in f16.
//!
//! Known weaknesses, none of them measured: matrix units are used as far as `cubecl::cmma` shows them, with both
//! operands copied to registers, not Hopper's `wgmma`, which reads shared memory itself; lines come by ordinary loads that
//! wait in registers, not by asynchronous copies; by tiles, half of the units have no row in the softmax where
//! a plane keeps 16 rows (heads wider than 128, in the keys' gradients wider than 80); the gradients compute scores
//! twice, in both kernels, rather than add with atomics.

#[cfg(feature = "autodiff")]
mod backward;
mod by_fragments;
#[cfg(feature = "autodiff")]
mod delta;
mod elements;
mod forward;
mod heads;
mod memory;
mod plan;
#[cfg(feature = "autodiff")]
mod shares;
mod softmax;
mod sums;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::prelude::Client;
#[cfg(feature = "autodiff")]
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::{fragments, plane_tile, ptx};
use crate::gpu_kernels::{GpuKernels, runs};
use heads::Heads;
use plan::WIDEST;
pub use plan::{Pass, Plan, Products, Sizes, Units};

/// How each of the kernels divides its work.
// Without gradients two of them are not read.
#[cfg_attr(not(feature = "autodiff"), allow(dead_code))]
#[derive(Debug, Clone, Copy)]
pub struct Plans {
    /// The output's.
    pub forward: Plan,
    /// The queries' gradient's.
    pub queries: Plan,
    /// The keys' and values' gradients'.
    pub keys: Plan,
    /// Shares of the queries that different cubes walk for those.
    pub shares: usize,
}

impl Plans {
    /// For these sizes; `None` where the heads are too wide, the device's matrix units don't take the type, or its
    /// memory is too small. `by` are the device's [`units`] where it is `None`.
    pub fn new(client: &Client, sizes: Sizes, dtype: DType, by: Option<Units>) -> Option<Self> {
        if sizes.d > WIDEST {
            return None;
        }
        let by = by.or_else(|| units(client, dtype))?;
        let properties = &client.properties().hardware;
        let ptx = by.hardware() && ptx::takes(client);
        let plan = |pass| {
            let products = match by.products {
                Products::Elements if pass != Pass::Forward => Products::Tiles,
                products => products,
            };
            Some(Plan { ptx, ..Plan::new(properties, sizes, pass, Units { products, ..by })? })
        };
        let [forward, queries, keys] = [plan(Pass::Forward)?, plan(Pass::Queries)?, plan(Pass::Keys)?];
        Some(Self { forward, queries, keys, shares: keys.shares(properties, sizes) })
    }
}

/// The device's matrix units for the type, as fragments if they can, or by elements.
pub fn units(client: &Client, dtype: DType) -> Option<Units> {
    let elements = dtype_to_storage_type(dtype);
    let known = runs(GpuKernels::All).then(|| fragments::native(client, elements)).flatten();
    let tiles = plane_tile::native(client, elements);
    let by_elements = runs(GpuKernels::All).then(|| elements_of(client, dtype)).flatten();
    let kinds = [(Products::Fragments, known), (Products::Elements, by_elements), (Products::Tiles, tiles)];
    let (products, native) = kinds.into_iter().find(|(_, native)| native.is_some())?;
    Some(Units { products, native })
}

/// What its matrix units multiply by elements: halves alone become operands by valid SPIR-V.
pub fn elements_of(client: &Client, dtype: DType) -> Option<usize> {
    let there = dtype == DType::F16 && plane_tile::changes(client);
    plane_tile::native(client, dtype_to_storage_type(dtype)).filter(|_| there)
}

/// `softmax(Q K^T / sqrt(d)) V` of `q` `[b, heads, n, d]`, `k` and `v` `[b, heads, m, d]`, which lies `[b, n, heads, d]`
/// in memory, and, f32 `[b, heads, n]`, the logarithm of each row's sum of exponentials.
pub fn forward(q: CubeTensor, k: CubeTensor, v: CubeTensor, plan: Plan) -> (CubeTensor, CubeTensor) {
    let [q, k, v] = [q, k, v].map(Heads::new);
    let y = q.empty_like();
    let (client, device) = (q.tensor.client.clone(), q.tensor.device.clone());
    let [b, heads, n, _] = q.shape;
    let logarithms = empty_device_contiguous_dtype(client, device, Shape::from([b, heads, n]), DType::F32);
    match plan.by.products {
        Products::Tiles | Products::Elements => forward::launch(&q, &k, &v, &y, &logarithms, plan),
        Products::Fragments => by_fragments::forward::launch(&q, &k, &v, &y, &logarithms, plan),
    }
    (y.tensor, logarithms)
}

/// The gradients of `q`, `k` and `v` from that of the output `y`; each lies `[b, n, heads, d]` in memory.
#[cfg(feature = "autodiff")]
pub fn backward(
    q: CubeTensor,
    k: CubeTensor,
    v: CubeTensor,
    y: CubeTensor,
    logarithms: CubeTensor,
    gradient: CubeTensor,
    plans: Plans,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [q, k, v, y, gradient] = [q, k, v, y, gradient].map(Heads::new);
    let logarithms = into_contiguous(logarithms);
    let deltas = delta::sums(&y, &gradient);
    let given = backward::Given {
        q: &q,
        k: &k,
        v: &v,
        gradient: &gradient,
        logarithms: &logarithms,
        deltas: &deltas,
    };
    let dq = q.empty_like();
    given.queries(&dq, plans.queries);
    let [dk, dv] = given.keys(plans.keys, plans.shares);
    (dq.tensor, dk.tensor, dv.tensor)
}

/// What scores are multiplied by.
fn scale(d: usize) -> f32 {
    1.0 / (d as f32).sqrt()
}

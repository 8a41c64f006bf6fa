//! The output, and what the gradients need to know of each row's softmax.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::ir::{ElemType, UIntKind};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::super::fours::{COUNT, Four};
use super::super::known::or_known;
use super::super::plane_tile::{ALIGNMENT, PlaneTile, SIDE};
use super::super::waiting::Waiting;
use super::super::walk::cubes;
use super::elements::{Rows, highest, relative, totals, weigh};
use super::heads::{Heads, Place, pairs, start, vector};
use super::memory::{fetch, load, put};
use super::plan::{Plan, Products};
use super::softmax::{Softmax, hide};
use super::sums::{Sums, held_rows, scores, wait};

/// Writes `y` `[b, heads, n, d]` and `sums`, f32 `[b, heads, n]`.
pub fn launch(q: &Heads, k: &Heads, v: &Heads, y: &Heads, sums: &CubeTensor, plan: Plan) {
    let client = &q.tensor.client;
    let numbers = vector(&[q, k, v, y]);
    // Metal's matrix units, of 8x8, want memory of the elements' own type.
    let packed = if plan.by.native == Some(SIDE) { pairs(numbers, &[q, k, v]) } else { 1 };
    let (plan, vector) = (Plan { packed, ..plan }, numbers * packed);
    let [_, heads, n, d] = q.shape;
    let count = q.all() * n.div_ceil(plan.rows());
    let sizes = [heads, q.all(), n, k.shape[2], d / vector, d / numbers];
    let places = [(q, vector), (k, vector), (v, vector), (y, numbers)].map(|(x, n)| x.in_vectors(n));
    // Models have few shapes of them.
    let known =
        (plan.by.products == Products::Elements && plan.by.hardware()).then_some(Known { sizes, places });
    let [heads, all, n, m, width, y_width] = sizes;
    // SAFETY: every index is in the tensors' views; cubes beyond the last head end at once.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            cubes(client, count),
            CubeDim::new_2d(plan.units as u32, plan.planes as u32),
            numbers,
            numbers,
            q.buffer(),
            k.buffer(),
            v.buffer(),
            y.buffer(),
            sums.clone().into_buffer_arg(),
            q.place(vector),
            k.place(vector),
            v.place(vector),
            y.place(numbers),
            heads,
            all,
            n,
            m,
            width,
            y_width,
            super::scale(d),
            plan,
            known,
            q.elements(),
            if packed == 1 { q.elements() } else { ElemType::UInt(UIntKind::U32) },
        );
    }
}

/// What a kernel that is compiled for one shape knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Known {
    /// Heads of a picture and of all, queries, keys, vectors of a row of operands and of the output.
    sizes: [usize; 6],
    /// Strides of queries, keys, values and output, in vectors.
    places: [[usize; 4]; 4],
}

/// A cube's queries and all keys.
#[cube(launch_unchecked)]
fn forward_kernel<E: Float, P: Numeric, N: Size, Y: Size>(
    q: &[Vector<P, N>],
    k: &[Vector<P, N>],
    v: &[Vector<P, N>],
    y: &mut [Vector<E, Y>],
    logarithms: &mut [f32],
    q_place: &Place,
    k_place: &Place,
    v_place: &Place,
    y_place: &Place,
    heads: usize,
    all: usize,
    n: usize,
    m: usize,
    width: usize,
    y_width: usize,
    scale: f32,
    #[comptime] plan: Plan,
    #[comptime] known: Option<Known>,
    #[define(E)] _dtype: ElemType,
    #[define(P)] _moved: ElemType,
) {
    let q_place = q_place.or_known(comptime![known.map(|known| known.places[0])]);
    let k_place = k_place.or_known(comptime![known.map(|known| known.places[1])]);
    let v_place = v_place.or_known(comptime![known.map(|known| known.places[2])]);
    let y_place = y_place.or_known(comptime![known.map(|known| known.places[3])]);
    let (q_place, k_place, v_place, y_place) = (&q_place, &k_place, &v_place, &y_place);
    let heads = or_known(heads, comptime![known.map(|known| known.sizes[0])]);
    let all = or_known(all, comptime![known.map(|known| known.sizes[1])]);
    let n = or_known(n, comptime![known.map(|known| known.sizes[2])]);
    let m = or_known(m, comptime![known.map(|known| known.sizes[3])]);
    let width = or_known(width, comptime![known.map(|known| known.sizes[4])]);
    let y_width = or_known(y_width, comptime![known.map(|known| known.sizes[5])]);
    let tiles = (n + comptime![plan.rows() - 1]) / comptime![plan.rows()];
    let head = CUBE_POS / tiles;
    if head >= all {
        terminate!();
    }
    let first = CUBE_POS % tiles * comptime![plan.rows()];
    let numbers = N::value();
    let size = comptime![numbers * plan.packed];
    let kept = comptime![plan.kept()];
    let walked = comptime![plan.walked()];
    // Rows that planes hold come to them by way of the first lines' memory.
    let holds = comptime![plan.holds_rows()];
    let [queries_there, keys_there] = comptime![plan.kept_and_keys(size)];
    let mut queries = Shared::<[Vector<P, N>]>::new_aligned_slice(queries_there, ALIGNMENT);
    let mut keys = Shared::<[Vector<P, N>]>::new_aligned_slice(keys_there, ALIGNMENT);
    let mut values = Shared::<[Vector<P, N>]>::new_aligned_slice(comptime![walked.vectors(size)], ALIGNMENT);
    let mut products = Shared::<[Vector<f32, Four>]>::new_aligned_slice(
        comptime![plan.rows() * plan.score_stride() / COUNT],
        ALIGNMENT,
    );
    let mut weights = Shared::<[Vector<E, Four>]>::new_aligned_slice(comptime![plan.weights()], ALIGNMENT);
    let mut offsets = Shared::<[f32]>::new_aligned_slice(comptime![plan.offsets()], ALIGNMENT);
    let mut factors = Shared::<[f32]>::new_slice(comptime![plan.rows()]);
    let mut votes = Shared::<[u32]>::new_slice(comptime![plan.votes().max(1)]);

    let k_start = start(k_place, head, heads);
    let v_start = start(v_place, head, heads);
    let share = comptime![if plan.ahead(size) { walked.share(size) } else { 1 }];
    let mut next_keys = Waiting::<P, N>::new(share, comptime![walked.missing()]);
    let mut next_values = Waiting::<P, N>::new(share, comptime![walked.missing()]);
    if comptime![plan.ahead(size)] {
        fetch::<P, N>(k, k_place, k_start, 0, m, width, &mut next_keys, walked);
        fetch::<P, N>(v, v_place, v_start, 0, m, width, &mut next_values, walked);
    }
    let q_start = start(q_place, head, heads);
    if comptime![holds] {
        load::<P, N>(q, q_place, q_start, first, n, width, &mut keys, 0usize, kept);
        sync_cube();
    } else {
        load::<P, N>(q, q_place, q_start, first, n, width, &mut queries, 0usize, kept);
    }

    let rows = Rows::<E, P, N> { held: held_rows::<E, P, N>(&keys, plan), shared: queries };
    let mut sums = Sums::zero(plan);
    let mut softmax = Softmax::new(plan);
    if comptime![plan.by.products == Products::Elements] {
        softmax.begin(&mut offsets);
    }
    let mut at = 0usize;
    while at < m {
        sync_cube();
        if comptime![plan.ahead(size)] {
            put::<P, N>(&next_keys, &mut keys, 0usize, walked);
            put::<P, N>(&next_values, &mut values, 0usize, walked);
        } else {
            load::<P, N>(k, k_place, k_start, at, m, width, &mut keys, 0usize, walked);
            load::<P, N>(v, v_place, v_start, at, m, width, &mut values, 0usize, walked);
        }
        sync_cube();
        let after = at + comptime![plan.lines()];
        if comptime![plan.ahead(size) && !plan.once] {
            fetch::<P, N>(k, k_place, k_start, after, m, width, &mut next_keys, walked);
            fetch::<P, N>(v, v_place, v_start, after, m, width, &mut next_values, walked);
        }
        if comptime![plan.by.products == Products::Elements] {
            let mut tile = PlaneTile::zero(comptime![plan.scores()]);
            // The first are never weighed by what is known before.
            let mut unknown = true.runtime();
            if comptime![!plan.once] {
                weigh::<E, P, N>(&mut tile, &rows, &keys, &offsets, m - at, scale, plan);
                totals::<E>(&tile, &mut products, &mut weights, &mut softmax.sum, plan);
                unknown = softmax.has_outgrown(&mut votes) || at == 0;
            }
            if unknown {
                relative::<E, P, N>(&mut tile, &rows, &keys, &offsets, m - at, plan);
                highest(&tile, &mut products, &mut softmax.highest, plan);
                let old = softmax.follow_relative(&mut offsets, scale);
                // All lines at once follow nothing.
                if comptime![!plan.once] {
                    sums.scale(&mut products, &old);
                }
                weigh::<E, P, N>(&mut tile, &rows, &keys, &offsets, m - at, scale, plan);
                totals::<E>(&tile, &mut products, &mut weights, &mut softmax.sum, plan);
            }
            softmax.count();
            if comptime![plan.by.hardware()] {
                sums.add_product::<E, P, N>(&tile.rounded::<E>(), &values);
            } else {
                sums.add::<E, P, N>(&weights, &values);
            }
        } else {
            scores::<E, P, N>(&rows.shared, &keys, &mut products, plan);
            wait(plan);
            if after > m {
                hide(&mut products, m - at, plan);
            }
            if at == 0 {
                softmax.refer(&products, scale);
            }
            softmax.weigh::<E>(&products, &mut weights, scale);
            if softmax.has_outgrown(&mut votes) {
                let old = softmax.follow();
                softmax.weigh::<E>(&products, &mut weights, scale);
                sums.scale(&mut products, &old);
            }
            softmax.count();
            wait(plan);
            sums.add::<E, P, N>(&weights, &values);
        }
        at = after;
    }
    softmax.finish(logarithms, &mut factors, head * n, first, n);
    sums.write::<E, Y>(&mut products, &factors, y, y_place, start(y_place, head, heads), first, n, y_width);
}

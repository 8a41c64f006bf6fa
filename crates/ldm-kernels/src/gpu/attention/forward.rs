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
use super::sums::{Sums, held_rows, scores, steps, wait};

/// How far above its reference a score may be before the reference follows: e^5 is far below f16's largest.
pub const SLACK: f32 = 5.0;

/// The most that the weights of a row's lines may sum to, by elements, before the reference follows: e^5 again, more than the
/// lines themselves are, so that none does whose weights are at most 1.
const MOST: f32 = 148.0;

/// Below every score.
pub const LOWEST: f32 = -3.0e38;

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

/// The softmax of the plane's rows so far; a unit has those of its turns.
///
/// A row's weights are `exp(score - reference)`, the reference a score that is near the highest so far.
#[derive(CubeType)]
struct Softmax {
    reference: Array<f32>,
    /// Of all weights, with this reference.
    total: Array<f32>,
    /// The highest score of these lines, and the sum of their weights.
    highest: Array<f32>,
    sum: Array<f32>,
    #[cube(comptime)]
    plan: Plan,
}

#[cube]
impl Softmax {
    fn new(#[comptime] plan: Plan) -> Softmax {
        let turns = comptime![plan.turns()];
        let mut total = Array::<f32>::new(turns);
        #[unroll]
        for turn in 0..turns {
            total[turn] = 0.0f32;
        }
        Softmax {
            reference: Array::<f32>::new(turns),
            total,
            highest: Array::<f32>::new(turns),
            sum: Array::<f32>::new(turns),
            plan,
        }
    }

    /// Makes the highest of the first scores the reference.
    fn refer(&mut self, products: &Shared<[Vector<f32, Four>]>, scale: f32) {
        let plan = comptime![self.plan];
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let row = min(row_of(turn, plan), comptime![plan.plane_rows() - 1]);
            let from = scores_of(row, plan);
            let mut highest = f32::new(LOWEST);
            for column in 0..steps(comptime![plan.lines() / COUNT], plan) {
                let four = products[from + column];
                #[unroll]
                for k in 0..COUNT {
                    highest = max(highest, four.extract(k) * scale);
                }
            }
            self.reference[turn] = highest;
        }
    }

    /// Weights of these scores, and their sums.
    fn weigh<E: Float>(
        &mut self,
        products: &Shared<[Vector<f32, Four>]>,
        weights: &mut Shared<[Vector<E, Four>]>,
        scale: f32,
    ) {
        let plan = comptime![self.plan];
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let row = row_of(turn, plan);
            let reference = self.reference[turn];
            let mut highest = f32::new(LOWEST);
            let mut sum = 0.0f32;
            if row < comptime![plan.plane_rows()] {
                let from = scores_of(row, plan);
                let to = weights_of(row, plan);
                for block in 0..steps(plan.columns, plan) {
                    // All of a block's before one is written: a compiler does not know that the two never meet.
                    let mut fours = Array::<Vector<f32, Four>>::new(comptime![SIDE / COUNT]);
                    #[unroll]
                    for i in 0..comptime![SIDE / COUNT] {
                        fours[i] = products[from + block * comptime![SIDE / COUNT] + i];
                    }
                    #[unroll]
                    for i in 0..comptime![SIDE / COUNT] {
                        let mut four = fours[i];
                        #[unroll]
                        for k in 0..COUNT {
                            let score = four.extract(k) * scale;
                            // However large: beyond the slack it is computed anew before it is used.
                            let weight = (score - reference).exp();
                            highest = max(highest, score);
                            sum += weight;
                            four.insert(k, weight);
                        }
                        fours[i] = four;
                    }
                    #[unroll]
                    for i in 0..comptime![SIDE / COUNT] {
                        let four = Vector::<E, Four>::cast_from(fours[i]);
                        weights[to + block * comptime![SIDE / COUNT] + i] = four;
                    }
                }
            }
            self.highest[turn] = highest;
            self.sum[turn] = sum;
        }
    }

    /// Whether a score of the plane's is so far above its row's reference that the weights may not hold it.
    fn has_outgrown(&self, votes: &mut Shared<[u32]>) -> bool {
        let plan = comptime![self.plan];
        let mut outgrown = false;
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            if comptime![plan.by.products == Products::Elements] {
                outgrown = outgrown || self.sum[turn] > MOST;
            } else {
                outgrown = outgrown || self.highest[turn] > self.reference[turn] + SLACK;
            }
        }
        if comptime![plan.by.native == Some(SIDE)] {
            // All units of the plane vote, or those that are late would go another way.
            sync_plane();
            plane_any(outgrown)
        } else {
            // All planes together: they wait for each other in what follows. Emulated they have no other way; lavapipe, whose matrix
            // units are of 8x8x8, takes the barrier of a plane for one of the cube.
            if comptime![plan.by.hardware()] {
                sync_plane();
                votes[UNIT_POS_Y as usize] = select(plane_any(outgrown), 1u32, 0u32);
            } else {
                votes[UNIT_POS as usize] = select(outgrown, 1u32, 0u32);
            }
            sync_cube();
            let mut count = 0u32;
            for i in 0..comptime![plan.votes()] {
                count += votes[i];
            }
            count > 0
        }
    }

    /// Makes the highest scores the references; gives what sums with the old ones are to be multiplied by.
    fn follow(&mut self) -> Array<f32> {
        let plan = comptime![self.plan];
        let mut factors = Array::<f32>::new(comptime![plan.turns()]);
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let old = self.reference[turn];
            let new = max(old, self.highest[turn]);
            let factor = (old - new).exp();
            self.total[turn] *= factor;
            self.reference[turn] = new;
            factors[turn] = factor;
        }
        factors
    }

    /// References below every score, from which nothing is taken away yet.
    fn begin(&mut self, offsets: &mut Shared<[f32]>) {
        let plan = comptime![self.plan];
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            self.reference[turn] = f32::new(LOWEST);
            let row = row_of(turn, plan);
            if row < comptime![plan.plane_rows()] {
                offsets[top(plan) + row] = 0.0f32;
            }
        }
    }

    /// [`follow`](Self::follow), where the highest are less their references and not yet scaled; leaves what the next scores begin at.
    fn follow_relative(&mut self, offsets: &mut Shared<[f32]>, scale: f32) -> Array<f32> {
        let plan = comptime![self.plan];
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let taken = select(self.reference[turn] > LOWEST, self.reference[turn], 0.0f32);
            self.highest[turn] = taken + self.highest[turn] * scale;
        }
        let factors = self.follow();
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let row = row_of(turn, plan);
            if row < comptime![plan.plane_rows()] {
                offsets[top(plan) + row] = -self.reference[turn] / scale;
            }
        }
        wait(plan);
        factors
    }

    /// Adds these lines' sums to the rows'.
    fn count(&mut self) {
        let plan = comptime![self.plan];
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            self.total[turn] += self.sum[turn];
        }
    }

    /// Leaves 1 / the sum of each row's weights in `factors` and writes the logarithm of its sum of exponentials.
    fn finish(
        &self,
        logarithms: &mut [f32],
        factors: &mut Shared<[f32]>,
        start: usize,
        first: usize,
        rows: usize,
    ) {
        let plan = comptime![self.plan];
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let row = row_of(turn, plan);
            if row < comptime![plan.plane_rows()] {
                let row = top(plan) + row;
                let total = self.total[turn];
                factors[row] = 1.0f32 / total;
                if first + row < rows {
                    logarithms[start + first + row] = self.reference[turn] + total.ln();
                }
            }
        }
    }
}

/// The plane's row that is this unit's in a turn; beyond the last where there are more units than rows.
#[cube]
pub fn row_of(#[comptime] turn: usize, #[comptime] plan: Plan) -> usize {
    UNIT_POS_X as usize + comptime![turn * plan.units]
}

/// The plane's first row in the cube.
#[cube]
pub fn top(#[comptime] plan: Plan) -> usize {
    UNIT_POS_Y as usize * comptime![plan.plane_rows()]
}

/// Where the scores of one of the plane's rows begin, in fours.
#[cube]
pub fn scores_of(row: usize, #[comptime] plan: Plan) -> usize {
    (top(plan) + row) * comptime![plan.score_stride() / COUNT]
}

/// Where its weights begin, in fours.
#[cube]
pub fn weights_of(row: usize, #[comptime] plan: Plan) -> usize {
    (top(plan) + row) * comptime![plan.weight_stride() / COUNT]
}

/// Puts what is below every score where no lines are, so that its weight is 0: from line `there` on in the rows of the plane, of which
/// a unit has those of its turns.
#[cube]
pub fn hide(products: &mut Shared<[Vector<f32, Four>]>, there: usize, #[comptime] plan: Plan) {
    #[unroll]
    for turn in 0..comptime![plan.turns()] {
        let row = row_of(turn, plan);
        if row < comptime![plan.plane_rows()] {
            let from = scores_of(row, plan);
            for column in 0..steps(comptime![plan.lines() / COUNT], plan) {
                let mut four = products[from + column];
                #[unroll]
                for k in 0..COUNT {
                    let score = select(column * COUNT + k < there, four.extract(k), LOWEST);
                    four.insert(k, score);
                }
                products[from + column] = four;
            }
        }
    }
}

//! What the weights of a row's lines are, and what becomes of them when a score is far above those before.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::fours::{COUNT, Four};
use super::super::plane_tile::SIDE;
use super::plan::{Plan, Products};
use super::sums::{steps, wait};

/// How far above its reference a score may be before the reference follows: e^5 is far below f16's largest.
const SLACK: f32 = 5.0;

/// The most that the weights of a row's lines may sum to, by elements, before the reference follows: e^5 again, more than the
/// lines themselves are, so that none does whose weights are at most 1.
const MOST: f32 = 148.0;

/// Below every score.
pub const LOWEST: f32 = -3.0e38;

/// The softmax of the plane's rows so far; a unit has those of its turns.
///
/// A row's weights are `exp(score - reference)`, the reference a score that is near the highest so far.
#[derive(CubeType)]
pub struct Softmax {
    reference: Array<f32>,
    /// Of all weights, with this reference.
    total: Array<f32>,
    /// The highest score of these lines.
    pub highest: Array<f32>,
    /// The sum of their weights.
    pub sum: Array<f32>,
    #[cube(comptime)]
    plan: Plan,
}

#[cube]
impl Softmax {
    pub fn new(#[comptime] plan: Plan) -> Softmax {
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
    pub fn refer(&mut self, products: &Shared<[Vector<f32, Four>]>, scale: f32) {
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
    pub fn weigh<E: Float>(
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
    pub fn has_outgrown(&self, votes: &mut Shared<[u32]>) -> bool {
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
    pub fn follow(&mut self) -> Array<f32> {
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
    pub fn begin(&mut self, offsets: &mut Shared<[f32]>) {
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
    pub fn follow_relative(&mut self, offsets: &mut Shared<[f32]>, scale: f32) -> Array<f32> {
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
    pub fn count(&mut self) {
        let plan = comptime![self.plan];
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            self.total[turn] += self.sum[turn];
        }
    }

    /// Leaves 1 / the sum of each row's weights in `factors` and writes the logarithm of its sum of exponentials.
    pub fn finish(
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

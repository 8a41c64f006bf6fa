//! Sums of many f32 values, in f64.

use rayon::prelude::*;

/// Independent partial sums, so that additions needn't wait for each other.
const LANES: usize = 16;
/// Values that are summed in f32 before f64 takes over.
const BLOCK: usize = 1024;

multiversion! {
    /// The sum of `x`.
    pub fn sum(x: &[f32]) -> f64 {
        let mut all = 0.0;
        for block in x.chunks(BLOCK) {
            let mut lanes = [0f32; LANES];
            let chunks = block.chunks_exact(LANES);
            let rest: f64 = chunks.remainder().iter().map(|v| f64::from(*v)).sum();
            for chunk in chunks {
                for (lane, v) in lanes.iter_mut().zip(chunk) {
                    *lane += v;
                }
            }
            all += lanes.iter().map(|v| f64::from(*v)).sum::<f64>() + rest;
        }
        all
    }
}

/// `[b, c, plane]` -> `[c]`, summed over batch and plane.
pub fn channels(x: &[f32], c: usize, plane: usize) -> Vec<f32> {
    let planes: Vec<f64> = x.par_chunks(plane).map(sum).collect();
    (0..c).map(|c_| planes[c_..].iter().step_by(c).sum::<f64>() as f32).collect()
}

/// `[n, c]` -> `[c]`, summed over the rows.
pub fn columns(x: &[f32], c: usize) -> Vec<f32> {
    const ROWS: usize = 256;
    let parts: Vec<Vec<f32>> = x.par_chunks(ROWS * c).map(|rows| rows_sum(rows, c)).collect();
    let mut sums = vec![0f64; c];
    for part in &parts {
        sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += f64::from(*v));
    }
    sums.into_iter().map(|v| v as f32).collect()
}

multiversion! {
    fn rows_sum(rows: &[f32], c: usize) -> Vec<f32> {
        let mut sums = vec![0f32; c];
        for row in rows.chunks_exact(c) {
            for (sum, v) in sums.iter_mut().zip(row) {
                *sum += v;
            }
        }
        sums
    }
}

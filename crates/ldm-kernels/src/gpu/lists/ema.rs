//! Moving averages of a list of parameters.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{Kind, dense, launches, rooms, share};

/// Averages and values by turns to averages.
pub fn step(tensors: Vec<CubeTensor>, step: f64) -> Vec<CubeTensor> {
    let Some(like) = tensors.first() else { return tensors };
    let shapes: Vec<_> = tensors.iter().step_by(2).map(|average| average.meta.shape().clone()).collect();
    let mut rooms = rooms(like, &shapes, like.dtype).into_iter();
    let mut tensors = tensors.into_iter().map(dense);
    let mut pairs = Vec::new();
    while let (Some(to), Some(average), Some(value)) = (rooms.next(), tensors.next(), tensors.next()) {
        pairs.push([to, average, value]);
    }
    let kind = |i: usize| {
        let [to, ..]: &[CubeTensor; 3] = &pairs[i];
        (Kind { dtype: to.dtype, together: 1 }, to.meta.shape().num_elements())
    };
    for launch in launches(&pairs, size_of::<f32>(), kind) {
        let client = launch.client();
        // SAFETY: the tensors of a pair are as long as `lengths` says, and a unit stays below it.
        unsafe {
            ema_kernel::launch_unchecked(
                &client,
                launch.cubes(),
                launch.units.dim(),
                launch.vector,
                launch.buffers(0),
                launch.buffers(1),
                launch.buffers(2),
                launch.lengths(),
                step as f32,
                launch.units.across,
            );
        }
    }
    pairs.into_iter().map(|[to, ..]| to).collect()
}

#[cube(launch_unchecked)]
fn ema_kernel<N: Size>(
    to: &mut Sequence<Box<[Vector<f32, N>]>>,
    averages: &Sequence<Box<[Vector<f32, N>]>>,
    values: &Sequence<Box<[Vector<f32, N>]>>,
    lengths: &Sequence<usize>,
    step: f32,
    #[comptime] units: usize,
) {
    let mut before = 0usize;
    #[unroll]
    for i in 0..lengths.len() {
        let length = *lengths.index(i);
        let share = share(length, before, units);
        let mut at = share.first;
        while at < share.end {
            let average = averages.index(i)[at];
            to.index_mut(i)[at] = average + (values.index(i)[at] - average) * Vector::new(step);
            at += units;
        }
        before = share.after;
    }
}

//! Groups of which one kernel takes a whole, several to a cube where they are small.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::silu::Silu;
use super::super::statistics::{merge, moments};
use super::super::walk::{Extents, Known, Strides, Units, cubes, start};
use super::{Job, apply};

/// Output and statistics of all groups.
pub fn launch(job: &Job) {
    let Job { x, weight, bias, y, statistics, walk, eps, silu } = job;
    let client = x.tensor.client.clone();
    let units = Units::for_rows(&client, walk.group() / walk.vector);
    // SAFETY: every index is in the tensors' views; rows beyond the last group read and write nothing.
    unsafe {
        whole_kernel::launch_unchecked(
            &client,
            cubes(&client, walk.all().div_ceil(units.rows)),
            units.dim(),
            walk.vector,
            x.buffer(),
            weight.clone().into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            y.buffer(),
            statistics.clone().into_buffer_arg(),
            walk.extents(),
            walk.strides(x),
            walk.strides(y),
            *eps,
            units.across,
            units.rows,
            walk.channels_last,
            *silu,
            walk.known(x, y),
            x.elements(),
        );
    }
}

/// A group a row of the cube.
#[cube(launch_unchecked)]
fn whole_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[F],
    bias: &[F],
    y: &mut [Vector<F, N>],
    statistics: &mut [f32],
    extents: &Extents,
    from: &Strides,
    to: &Strides,
    eps: f32,
    #[comptime] units: usize,
    #[comptime] rows: usize,
    #[comptime] channels_last: bool,
    #[comptime] silu: Silu,
    #[comptime] known: Option<Known>,
    #[define(F)] _dtype: ElemType,
) {
    let extents = extents.or_known(known);
    let from = from.or_known(comptime![known.map(|known| known.from)]);
    let to = to.or_known(comptime![known.map(|known| known.to)]);
    let (extents, from, to) = (&extents, &from, &to);
    let unit = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let size = comptime![units * rows];
    let group = CUBE_POS * rows + row;
    let there = group < extents.all;
    let end = select(there, extents.outer * extents.inner, 0usize);
    let read = start(from, group, extents.groups);
    let mut shared = Shared::<[f32]>::new_slice(comptime![3 * size]);
    let slot = row * units + unit;
    moments::<F, N>(x, from, read, extents.inner, unit, end, &mut shared, slot, units, size);
    merge(&mut shared, slot, unit, units, size);
    let first = row * units;
    let mean = shared[size + first];
    let scale = 1.0f32 / (shared[2 * size + first] / shared[first] + eps).sqrt();
    if there && unit == 0 {
        statistics[2 * group] = mean;
        statistics[2 * group + 1] = scale;
    }
    apply::<F, N>(
        x,
        weight,
        bias,
        y,
        extents,
        from,
        to,
        group,
        unit,
        end,
        mean,
        scale,
        units,
        channels_last,
        silu,
    );
}

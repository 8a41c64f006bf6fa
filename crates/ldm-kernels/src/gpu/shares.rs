//! Attention's shares of a row of scores: softmax, read twice and written once.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::statistics::{add_up, lanes};
use super::walk::{Units, cubes};

/// Below all scores, and finite: shaders need not keep infinity.
const LOWEST: f32 = -3.0e38;

/// `[rows, keys]` in f32 -> of each row `exp(scale * score)`, divided by their sum, in `dtype`.
pub fn forward(scores: CubeTensor, scale: f32, dtype: DType) -> CubeTensor {
    let scores = into_contiguous(scores);
    let (client, device) = (scores.client.clone(), scores.device.clone());
    let [rows, keys] = scores.meta.shape().dims();
    let shares = empty_device_contiguous_dtype(client.clone(), device, scores.meta.shape().clone(), dtype);
    let vector =
        client.io_optimized_vector_sizes(size_of::<f32>()).find(|n| keys.is_multiple_of(*n)).unwrap_or(1);
    let units = Units::for_rows(&client, keys / vector);
    // SAFETY: every index is in a row; rows beyond the last read and write nothing.
    unsafe {
        shares_of_scores::launch_unchecked(
            &client,
            cubes(&client, rows.div_ceil(units.rows)),
            units.dim(),
            vector,
            scores.into_buffer_arg(),
            shares.clone().into_buffer_arg(),
            rows,
            keys / vector,
            scale,
            units.across,
            units.rows,
            dtype_to_storage_type(dtype),
        );
    }
    shares
}

/// A row of scores a row of the cube.
#[cube(launch_unchecked)]
fn shares_of_scores<F: Float, N: Size>(
    scores: &[Vector<f32, N>],
    shares: &mut [Vector<F, N>],
    all: usize,
    length: usize,
    scale: f32,
    #[comptime] units: usize,
    #[comptime] rows: usize,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let size = comptime![units * rows];
    let slot = row * units + unit;
    let at = CUBE_POS * rows + row;
    let end = select(at < all, length, 0usize);
    let start = at * length;
    let factor = Vector::<f32, N>::new(scale);

    // The largest so far of each lane, and the sum of what lies above it in exponentials.
    let mut largest = Vector::<f32, N>::new(LOWEST);
    let mut sum = Vector::<f32, N>::new(0.0f32);
    let mut i = unit;
    while i < end {
        let v = scores[start + i] * factor;
        let above = largest.max(v);
        sum = sum * (largest - above).exp() + (v - above).exp();
        largest = above;
        i += units;
    }
    let mut top = largest.extract(0usize);
    #[unroll]
    for k in 1..N::value() {
        let lane = largest.extract(k);
        top = select(lane > top, lane, top);
    }
    let mut tops = Shared::<[f32]>::new_slice(size);
    tops[slot] = top;
    sync_cube();
    #[unroll]
    for k in 0..comptime![units.ilog2() as usize] {
        let step = comptime![units >> (k + 1)];
        if unit < step {
            let ours = tops[slot];
            let theirs = tops[slot + step];
            tops[slot] = select(theirs > ours, theirs, ours);
        }
        sync_cube();
    }
    let top = Vector::<f32, N>::new(tops[row * units]);
    // Two runs, of which the second stays zero.
    let mut sums = Shared::<[f32]>::new_slice(comptime![2 * size]);
    sums[slot] = lanes::<N>(sum * (largest - top).exp());
    sums[size + slot] = 0.0f32;
    sync_cube();
    add_up(&mut sums, slot, unit, units, size);
    let part = Vector::<f32, N>::new(1.0f32 / sums[row * units]);
    let mut i = unit;
    while i < end {
        let v = scores[start + i] * factor;
        shares[start + i] = Vector::<F, N>::cast_from((v - top).exp() * part);
        i += units;
    }
}

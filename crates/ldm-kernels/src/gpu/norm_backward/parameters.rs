//! The weight's and the bias' gradient, from the parts of their sums.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::super::walk::{Units, cubes};

/// Adds up `sums` `[terms, channels, 2]` over the terms; the weight's gradient comes first.
pub fn gradients(
    sums: CubeTensor,
    terms: usize,
    channels: usize,
    weight: &CubeTensor,
) -> (CubeTensor, CubeTensor) {
    let client = weight.client.clone();
    let like = || {
        let shape = Shape::from([channels]);
        empty_device_contiguous_dtype(client.clone(), weight.device.clone(), shape, weight.dtype)
    };
    let (dw, db) = (like(), like());
    let units = Units::for_columns(&client, channels);
    // SAFETY: the sums are `[terms, channels, 2]`; units beyond the last channel end at once.
    unsafe {
        shares_kernel::launch_unchecked(
            &client,
            cubes(&client, channels.div_ceil(units.across)),
            CubeDim::new_1d(units.across as u32),
            sums.into_buffer_arg(),
            dw.clone().into_buffer_arg(),
            db.clone().into_buffer_arg(),
            terms,
            channels,
            dtype_to_storage_type(weight.dtype),
        );
    }
    (dw, db)
}

/// A channel a unit.
#[cube(launch_unchecked)]
fn shares_kernel<F: Float>(
    sums: &[f32],
    dw: &mut [F],
    db: &mut [F],
    terms: usize,
    channels: usize,
    #[define(F)] _dtype: ElemType,
) {
    let c = ABSOLUTE_POS;
    if c >= channels {
        terminate!();
    }
    let mut one = 0.0f32;
    let mut two = 0.0f32;
    let mut i = 0usize;
    while i < terms {
        let sum = 2 * (i * channels + c);
        one += sums[sum];
        two += sums[sum + 1];
        i += 1usize;
    }
    db[c] = F::cast_from(one);
    dw[c] = F::cast_from(two);
}

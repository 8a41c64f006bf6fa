//! Sums of which several cubes have a share each.

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

use super::super::walk::{Units, cubes};
use super::heads::Heads;

/// Room for so many shares of a tensor like `x` `[b, heads, n, d]`: f32 `[shares * b, heads, n, d]`, which lies
/// `[shares, b, n, heads, d]` in memory.
pub fn empty(x: &Heads, shares: usize) -> Heads {
    let [b, heads, n, d] = x.shape;
    let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
    let shape = Shape::from([shares * b, n, heads, d]);
    let lying = empty_device_contiguous_dtype(client, device, shape, DType::F32);
    Heads::new(permute(lying, &[0, 2, 1, 3]))
}

/// Writes the sum of so many shares to `y`, which lies as one of them.
pub fn add(parts: &CubeTensor, y: &Heads, shares: usize) {
    let client = &y.tensor.client;
    let count: usize = y.shape.iter().product();
    let units = Units::together(client);
    // SAFETY: both lie without gaps; units beyond the last element end at once.
    unsafe {
        add_kernel::launch_unchecked(
            client,
            cubes(client, count.div_ceil(units.across)),
            units.dim(),
            parts.clone().into_buffer_arg(),
            y.buffer(),
            count,
            shares,
            y.elements(),
        );
    }
}

/// An element a unit, the shares in order: the same sum every time.
#[cube(launch_unchecked)]
fn add_kernel<E: Float>(
    parts: &[f32],
    y: &mut [E],
    count: usize,
    shares: usize,
    #[define(E)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= count {
        terminate!();
    }
    let mut sum = 0.0f32;
    for share in 0..shares {
        sum += parts[share * count + i];
    }
    y[i] = E::cast_from(sum);
}

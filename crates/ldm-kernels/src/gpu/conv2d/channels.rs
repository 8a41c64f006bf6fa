//! Sums of channels: the gradients of biases and of time embeddings.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::{permute, reshape};
use burn_cubecl::tensor::CubeTensor;

use super::super::chunks::Chunks;
use super::super::walk::{Units, cubes};
use super::Added;
use super::combine::{Parts, combine};
use super::lines::{dims, strided};

/// The fewest pixels that a cube adds up.
const CHUNK: usize = 1 << 8;
/// The most cubes that share a sum.
const SHARES: usize = 1 << 8;

/// [`sums`]' shape.
#[cfg(feature = "fusion")]
pub fn sums_shape(x: &Shape, by_picture: bool) -> Shape {
    if by_picture { Shape::from([x[0], x[1]]) } else { Shape::from([x[1]]) }
}

/// `[b, c, h, w]` added up over pixels, `[b, c]`, or over all pictures' pixels, `[c]`.
pub fn sums(x: CubeTensor, by_picture: bool) -> CubeTensor {
    let [b, channels, height, width] = dims(&x);
    // Channels together: a view, where layers of these networks have left it.
    let pixels = into_contiguous(permute(strided(x), &[0, 2, 3, 1]));
    let (pictures, pixels_each) = if by_picture { (b, height * width) } else { (1, b * height * width) };
    let vector = pixels
        .client
        .io_optimized_vector_sizes(pixels.dtype.size())
        .find(|n| channels.is_multiple_of(*n))
        .unwrap_or(1);
    let across = channels / vector;
    let client = pixels.client.clone();
    let units = Units::for_columns(&client, across);
    let chunks = Chunks::new(pixels_each, CHUNK, SHARES);
    let parts = Parts::new(&pixels, [1, 1, pictures, channels], pixels.dtype, chunks.count);
    let elements = [&pixels, &parts.sums].map(|x| dtype_to_storage_type(x.dtype));
    // SAFETY: pixels end where the picture or the chunk does; units beyond the last column read and write nothing.
    unsafe {
        channels_kernel::launch_unchecked(
            &client,
            cubes(&client, pictures * across.div_ceil(units.across) * chunks.count),
            units.dim(),
            vector,
            pixels.into_buffer_arg(),
            parts.sums.clone().into_buffer_arg(),
            pictures,
            pixels_each,
            across,
            chunks.count,
            chunks.length,
            units.across,
            units.rows,
            elements[0],
            elements[1],
        );
    }
    let unused = || parts.sums.clone();
    let nothing = [unused(), unused(), unused()];
    let shape = if by_picture { vec![b, channels] } else { vec![channels] };
    reshape(combine(parts, nothing, Added::default()), Shape::from(shape))
}

/// A chunk of as many columns as a cube is wide; its rows take turns at the pixels.
#[cube(launch_unchecked)]
fn channels_kernel<F: Float, S: Float, N: Size>(
    x: &[Vector<F, N>],
    sums: &mut [S],
    pictures: usize,
    pixels: usize,
    across: usize,
    chunks: usize,
    length: usize,
    #[comptime] units: usize,
    #[comptime] rows: usize,
    #[define(F)] _from: ElemType,
    #[define(S)] _to: ElemType,
) {
    let unit = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let tiles = across.div_ceil(units);
    let chunk = CUBE_POS % chunks;
    let column = CUBE_POS / chunks % tiles * units + unit;
    let picture = CUBE_POS / chunks / tiles;
    let there = column < across && picture < pictures;
    let mut sum = Vector::<f32, N>::new(0.0f32);
    let mut pixel = chunk * length + row;
    let end = select(there, min((chunk + 1) * length, pixels), 0usize);
    while pixel < end {
        sum += Vector::<f32, N>::cast_from(x[(picture * pixels + pixel) * across + column]);
        pixel += rows;
    }
    let mut all = Shared::<[Vector<f32, N>]>::new_slice(comptime![units * rows]);
    all[row * units + unit] = sum;
    sync_cube();
    if there && row == 0 {
        let mut k = unit + units;
        while k < comptime![units * rows] {
            sum += all[k];
            k += units;
        }
        let to = ((chunk * pictures + picture) * across + column) * N::value();
        #[unroll]
        for k in 0..N::value() {
            sums[to + k] = S::cast_from(sum.extract(k));
        }
    }
}

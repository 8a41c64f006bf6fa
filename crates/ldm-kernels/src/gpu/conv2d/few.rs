//! Convolutions of few input channels, as a network's first: without matrix units, whose steps of the depth would be zeros for the
//! most part.
//!
//! A unit has a vector of the output's channels of a few pixels; the weights of its cube's channels lie in shared memory, and neighbouring
//! units read the same element of the picture.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::super::plane_tile::Columns;
use super::super::walk::{Units, cubes};
use super::combine::Parts;
use super::geometry::{Sizes, SizesLaunch, Strides, StridesLaunch};
use super::lines::{dims, strides};
use super::{Added, Convolution};

/// The most channels, fewer than half a step of the product's, and the deepest: channels and taps.
const CHANNELS: usize = 15;
const DEEPEST: usize = 96;
/// Pixels of a unit.
const PIXELS: usize = 4;
/// The most vectors of channels, and bytes of their weights, of a cube.
const ACROSS: usize = 32;
const BYTES: usize = 16 << 10;

/// What is known when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Few {
    /// Channels of the input.
    channels: usize,
    /// Rows and columns of the kernel.
    kernel: [usize; 2],
    /// Vectors of channels of a cube.
    across: usize,
    /// Units of a cube for each of them.
    rows: usize,
    added: Added,
}

/// Whether the kernel takes a convolution with such weights `[c_out, c_in, kh, kw]`.
pub fn takes([_, channels, height, width]: [usize; 4], convolution: &Convolution) -> bool {
    let Convolution { spread, mirrored, exact, columns, gated, work, .. } = *convolution;
    let plain = spread == [1, 1] && !mirrored && !exact && columns == Columns::One && !gated;
    // Who is told what a product is divided into wants to see that.
    plain && !work.is_told() && channels <= CHANNELS && channels * height * width <= DEEPEST
}

/// The output of `parts`, which are not split.
pub fn forward(
    x: CubeTensor,
    weight: CubeTensor,
    [bias, shift, addend]: [CubeTensor; 3],
    parts: Parts,
    added: Added,
    sizes: SizesLaunch,
) -> CubeTensor {
    let client = x.client.clone();
    let [_, channels, height, width] = dims(&weight);
    let Parts { sums: y, vector, .. } = parts;
    let columns = y.meta.shape()[3];
    let vectors = columns / vector;
    let each = channels * height * width * vector * y.dtype.size();
    let chunks = vectors.div_ceil((BYTES / each).clamp(1, ACROSS));
    let across = vectors.div_ceil(chunks);
    let rows = (Units::together(&client).across / across).max(1);
    let pixels = y.meta.shape().num_elements() / columns;
    let [from, taps] = [&x, &weight].map(|x| StridesLaunch::of(strides(x)));
    let dtype = dtype_to_storage_type(x.dtype);
    // SAFETY: what is read and written is in the tensors' bounds by comparisons.
    unsafe {
        few_kernel::launch_unchecked(
            &client,
            cubes(&client, pixels.div_ceil(rows * PIXELS) * chunks),
            CubeDim::new_2d(across as u32, rows as u32),
            vector,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            bias.into_buffer_arg(),
            shift.into_buffer_arg(),
            addend.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            sizes,
            from,
            taps,
            chunks,
            Few { channels, kernel: [height, width], across, rows, added },
            dtype,
        );
    }
    y
}

/// [`PIXELS`] pixels and a vector of channels a unit; cubes of the same pixels follow each other.
#[cube(launch_unchecked)]
fn few_kernel<E: Float, Y: Size>(
    x: &[E],
    weights: &[E],
    bias: &[Vector<E, Y>],
    shift: &[Vector<E, Y>],
    addend: &[Vector<E, Y>],
    y: &mut [Vector<E, Y>],
    sizes: &Sizes,
    from: &Strides,
    taps: &Strides,
    chunks: usize,
    #[comptime] few: Few,
    #[define(E)] _dtype: ElemType,
) {
    let (across, channels) = comptime![(few.across, few.channels)];
    let vectors = sizes.outputs / Y::value();
    let (column, row) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let vector = CUBE_POS % chunks * across + column;
    // Those beyond the last have the last's.
    let held = hold::<E, Y>(weights, min(vector, vectors - 1), taps, few);

    let pixels = sizes.batch * sizes.height * sizes.width;
    let first = (CUBE_POS / chunks * comptime![few.rows] + row) * PIXELS;
    if vector < vectors && first < pixels {
        // Each pixel's picture, first row and first column, which wrap around where they are outside.
        let mut corners = Array::<usize>::new(comptime![3 * PIXELS]);
        let mut sums = Array::<Vector<f32, Y>>::new(PIXELS);
        #[unroll]
        for p in 0..PIXELS {
            let pixel = min(first + p, pixels - 1);
            corners[comptime![3 * p]] = pixel / sizes.width / sizes.height * from.outer;
            corners[comptime![3 * p + 1]] = pixel / sizes.width % sizes.height * sizes.down - sizes.above;
            corners[comptime![3 * p + 2]] = pixel % sizes.width * sizes.across - sizes.left;
            sums[p] = Vector::new(0.0f32);
        }
        for tap_row in 0..comptime![few.kernel[0]] {
            for tap_column in 0..comptime![few.kernel[1]] {
                let tap = (tap_row * comptime![few.kernel[1]] + tap_column) * channels;
                let mut places = Array::<usize>::new(PIXELS);
                let mut there = Array::<bool>::new(PIXELS);
                #[unroll]
                for p in 0..PIXELS {
                    let row = corners[comptime![3 * p + 1]] + tap_row;
                    let column = corners[comptime![3 * p + 2]] + tap_column;
                    let inside = row < sizes.input_height && column < sizes.input_width;
                    let place = corners[comptime![3 * p]] + row * from.row + column * from.column;
                    places[p] = select(inside, place, 0usize);
                    there[p] = inside;
                }
                #[unroll]
                for channel in 0..channels {
                    let weight = Vector::<f32, Y>::cast_from(held[(tap + channel) * across + column]);
                    #[unroll]
                    for p in 0..PIXELS {
                        let value = f32::cast_from(x[places[p] + channel * from.channel]);
                        sums[p] += weight * Vector::new(select(there[p], value, 0.0f32));
                    }
                }
            }
        }
        #[unroll]
        for p in 0..PIXELS {
            let pixel = first + p;
            if pixel < pixels {
                let mut sum = sums[p];
                if comptime![few.added.bias] {
                    sum += Vector::<f32, Y>::cast_from(bias[vector]);
                }
                if comptime![few.added.shift] {
                    let picture = pixel / (sizes.height * sizes.width);
                    sum += Vector::<f32, Y>::cast_from(shift[picture * vectors + vector]);
                }
                let at = pixel * vectors + vector;
                if comptime![few.added.addend] {
                    sum += Vector::<f32, Y>::cast_from(addend[at]);
                }
                y[at] = Vector::<E, Y>::cast_from(sum);
            }
        }
    }
}

/// The weights of the cube's vectors of output channels, by taps and channels of the input; `vector` is this unit's.
#[cube]
fn hold<E: Float, Y: Size>(
    weights: &[E],
    vector: usize,
    taps: &Strides,
    #[comptime] few: Few,
) -> Shared<[Vector<E, Y>]> {
    let (across, channels) = comptime![(few.across, few.channels)];
    let depth = comptime![few.kernel[0] * few.kernel[1] * few.channels];
    let mut held = Shared::<[Vector<E, Y>]>::new_slice(comptime![depth * across]);
    let mut k = UNIT_POS_Y as usize;
    while k < depth {
        let (tap, channel) = (k / channels, k % channels);
        let place = tap / comptime![few.kernel[1]] * taps.row
            + tap % comptime![few.kernel[1]] * taps.column
            + channel * taps.channel;
        let mut lanes = Vector::<E, Y>::new(E::from_int(0));
        #[unroll]
        for lane in 0..Y::value() {
            lanes.insert(lane, weights[place + (vector * Y::value() + lane) * taps.outer]);
        }
        held[k * across + UNIT_POS_X as usize] = lanes;
        k += comptime![few.rows];
    }
    sync_cube();
    held
}

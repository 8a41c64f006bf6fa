//! Group norm with or without SiLU, and layer norm, which is group norm of a row.
//!
//! A row or a small group is one kernel's, which keeps it in registers ([`kept`]); a larger one its units read for mean
//! and variance, and again, from the cache, to write the output ([`whole`]). A large one would leave most of a device
//! idle that way, so its moments come in chunks from one kernel, and the next puts them together and writes a chunk of
//! the output ([`parts`]). Of a channels-last picture cubes read whole pixels then ([`pixels`]), and where launches are dear a small one
//! does with two kernels ([`merged`]).

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

mod kept;
mod merged;
mod parts;
pub mod pixels;
mod whole;

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::kept::Kept;
use super::known::is_known;
use super::silu::{Silu, activate};
use super::view::View;
use super::walk::{Extents, Strides, TOGETHER, Walk, at, channel, parameter, start, together};
use crate::group_norm::GroupNormOptions;

/// The most elements of a group that one kernel takes.
const WHOLE: usize = 1 << 15;

/// Which norm.
#[derive(Debug, Clone, Copy)]
pub struct Norm {
    /// Groups of the channels.
    pub groups: usize,
    /// Whether `x * sigmoid(x)` follows.
    pub silu: bool,
    /// Whether moments of small pictures are put together by the kernel that writes; `None` for what suits the device.
    pub merged: Option<bool>,
}

impl Norm {
    /// Group norm.
    pub fn of_groups(options: GroupNormOptions) -> Self {
        Self { groups: options.groups, silu: options.silu, merged: None }
    }

    /// Layer norm: a row is a group.
    pub fn of_rows() -> Self {
        Self { groups: 1, silu: false, merged: None }
    }
}

/// What the kernels read and write.
pub struct Job {
    x: View,
    weight: CubeTensor,
    bias: CubeTensor,
    y: View,
    statistics: CubeTensor,
    walk: Walk,
    eps: f32,
    silu: Silu,
}

/// Norm, scale, shift, and perhaps SiLU. Gives the output and, f32 `[groups of the batch, 2]`, mean and 1 / deviation.
pub fn forward(
    x: View,
    weight: CubeTensor,
    bias: CubeTensor,
    norm: Norm,
    eps: f64,
) -> (CubeTensor, CubeTensor) {
    let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
    let y = x.empty_like();
    let walk = Walk::new(&[&x, &y], norm.groups);
    let statistics = empty_device_contiguous_dtype(client, device, Shape::from([walk.all(), 2]), DType::F32);
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let silu = Silu::new(&x.tensor.client, norm.silu);
    let job = Job { x, weight, bias, y, statistics, walk, eps: eps as f32, silu };
    let client = &job.x.tensor.client;
    // By Vulkan a launch takes 3 us and more.
    let merged = norm.merged.unwrap_or_else(|| is_known(client));
    match (Kept::new(client, &job.walk), pixels::Pixels::new(&job)) {
        (Some(kept), _) => kept::launch(&job, kept),
        (None, Some(pixels)) if merged && merged::takes(&job, &pixels) => merged::launch(&job, pixels),
        (None, Some(pixels)) => pixels::launch(&job, pixels),
        (None, None) if walk.group() <= WHOLE => whole::launch(&job),
        (None, None) => parts::launch(&job),
    }
    (job.y.tensor, job.statistics)
}

/// The output of the group's vectors `first`, `first + units`, .. before `end`.
#[cube]
pub fn apply<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[F],
    bias: &[F],
    y: &mut [Vector<F, N>],
    extents: &Extents,
    from: &Strides,
    to: &Strides,
    group: usize,
    first: usize,
    end: usize,
    mean: f32,
    scale: f32,
    #[comptime] units: usize,
    #[comptime] channels_last: bool,
    #[comptime] silu: Silu,
) {
    let read = start(from, group, extents.groups);
    let write = start(to, group, extents.groups);
    let channels = group % extents.groups * extents.width;
    let mean = Vector::<f32, N>::new(mean);
    let scale = Vector::<f32, N>::new(scale);
    let mut i = first;
    while i < end {
        let values = together::<F, N>(x, from, read, extents.inner, i, end, units);
        #[unroll]
        for k in 0..TOGETHER {
            let i = i + comptime![k * units];
            if i < end {
                let outer = i / extents.inner;
                let inner = i % extents.inner;
                let c = channels + channel(outer, inner, N::value(), channels_last);
                let weight = parameter::<F, N>(weight, c, channels_last);
                let bias = parameter::<F, N>(bias, c, channels_last);
                let v = Vector::<f32, N>::cast_from(values[k]);
                let u = activate::<N>((v - mean) * scale * weight + bias, silu);
                y[at(to, write, outer, inner)] = Vector::<F, N>::cast_from(u);
            }
        }
        i += comptime![TOGETHER * units];
    }
}

//! Kernels for burn's CubeCL devices (CUDA, ROCm, Vulkan, Metal, WebGPU), written once.
//!
//! They take f32 (but convolution, linear layers and attention), f16 and bf16, add up in f32, and read tensors where they lie: a convolution's
//! channels-last result is normalised as it is and stays channels-last. Under fusion each is one opaque operation among
//! burn's ([`ops`]).

mod attention;
#[cfg(feature = "autodiff")]
pub mod autodiff;
mod bridge;
mod chunks;
mod conv2d;
mod elementary;
mod fours;
mod fragments;
mod geglu;
mod join;
mod kept;
mod known;
pub mod lists;
mod norm;
#[cfg(feature = "autodiff")]
mod norm_backward;
mod ops;
mod plane_tile;
mod processors;
mod ptx;
mod shares;
mod silu;
mod spirv;
mod statistics;
#[cfg(test)]
mod tests;
mod view;
mod waiting;
mod walk;
mod ways;
mod wide;

use burn::tensor::{DType, Tensor};

use crate::conv2d::Conv2dOptions;
use crate::group_norm::GroupNormOptions;
use attention::{Plans, Sizes, Units};
use bridge::{Gpu, Primitive, client, primitive, tensor};
use conv2d::{Added, Convolution, Work};
pub use lists::{
    adamw, copies, ema, laid_together, linear_layers, linear_together, orders, sum_of_squares, takes_adamw,
    takes_copies, takes_ema, takes_linear_layers,
};
use ops::Kernels;
pub use plane_tile::Columns;
pub use ways::{attention_ways, ways};

/// See [`crate::group_norm`]; `None` where the kernel does not take the tensors.
pub fn group_norm<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    options: GroupNormOptions,
) -> Option<Tensor<D>> {
    if !takes_group_norm(x, weight, bias, options) {
        return None;
    }
    let (y, _) = Gpu::group_norm(primitive(x)?, primitive(weight)?, primitive(bias)?, options);
    tensor(y)
}

/// See [`crate::layer_norm`]; `None` where the kernel does not take the tensors.
pub fn layer_norm<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Option<Tensor<D>> {
    if !takes_layer_norm(x, weight, bias) {
        return None;
    }
    let (y, _) = Gpu::layer_norm(primitive(x)?, primitive(weight)?, primitive(bias)?, eps);
    tensor(y)
}

/// See [`crate::conv2d`] and [`crate::conv2d_add`]; `None` where the kernel does not take the tensors.
///
/// A shift, `[b, c_out]`, is as in [`crate::conv2d_shift`].
pub fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
    shift: Option<&Tensor<2>>,
    addend: Option<&Tensor<4>>,
) -> Option<Tensor<4>> {
    if !takes_conv2d(x, weight, bias, options, addend) || !takes_shift(x, weight, shift) {
        return None;
    }
    let input = primitive(x)?;
    let work = conv2d::work(&client(&input), x.dtype())?;
    convolve(input, primitive(weight)?, bias, options, shift, addend, work)
}

/// Of the first of an enlarged picture's pixels' taps; those of the others begin a pixel further.
pub const PIXELS: Conv2dOptions = Conv2dOptions { stride: [1, 1], padding: [[1, 0]; 2] };

/// Whether [`crate::upsample_conv2d`] of these is [`conv2d_pixels`].
pub fn merges(x: &Tensor<4>, weight: &Tensor<4>) -> bool {
    let ([_, channels, ..], [outputs, inputs, height, width]) = (x.dims(), weight.dims());
    let work = || conv2d::work(&client(&primitive(x)?), x.dtype());
    channels == inputs
        && [height, width] == [3, 3]
        && x.dtype() == weight.dtype()
        && primitive(weight).is_some()
        && work().is_some_and(|work| work.merges(outputs))
}

/// See [`crate::upsample_conv2d`], of whose taps `[4 c_out, c_in, 2, 2]` are the merged ones; `None` where the kernel does not take the
/// tensors or has no tile whose columns divide the output's channels. By the device's `work` where there is none.
pub fn conv2d_pixels(
    x: &Tensor<4>,
    taps: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    work: Option<Work>,
) -> Option<Tensor<4>> {
    let outputs = taps.dims()[0] / Columns::Pixels.count();
    if !takes_conv2d(x, taps, None, PIXELS, None)
        || !bias.is_none_or(|bias| bias.dims() == [outputs] && bias.dtype() == x.dtype())
    {
        return None;
    }
    let (input, taps) = (primitive(x)?, primitive(taps)?);
    let work = work.or_else(|| conv2d::work(&client(&input), x.dtype()))?;
    if !work.divides(outputs) {
        return None;
    }
    let added = Added { bias: bias.is_some(), ..Added::default() };
    let convolution = Convolution { added, columns: Columns::Pixels, ..Convolution::new(PIXELS, work) };
    let bias = bias.map_or(Some(taps.clone()), primitive)?;
    tensor(Gpu::conv2d(input, taps.clone(), bias, taps.clone(), taps, convolution))
}

/// Whether these are the same elements of the same memory on a device of the kernels'.
pub fn same<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> bool {
    matches!((primitive(a), primitive(b)), (Some(a), Some(b)) if bridge::shares(&a, &b))
}

/// Whether convolutions of such weights are the kernel's.
pub fn convolves<const D: usize>(weight: &Tensor<D>) -> bool {
    primitive(weight).is_some_and(|x| conv2d::work(&client(&x), weight.dtype()).is_some())
}

/// The convolution of tensors that the kernel takes, by `work`.
fn convolve(
    x: Primitive,
    weight: Primitive,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
    shift: Option<&Tensor<2>>,
    addend: Option<&Tensor<4>>,
    work: Work,
) -> Option<Tensor<4>> {
    let convolution = Convolution {
        options,
        added: Added { bias: bias.is_some(), shift: shift.is_some(), addend: addend.is_some() },
        ..Convolution::new(options, work)
    };
    // The weights stand in for what isn't there.
    let bias = bias.map_or(Some(weight.clone()), primitive)?;
    let shift = shift.map_or(Some(weight.clone()), primitive)?;
    let addend = addend.map_or(Some(weight.clone()), primitive)?;
    tensor(Gpu::conv2d(x, weight, bias, shift, addend, convolution))
}

/// See [`crate::linear`]; `None` where the kernel does not take the tensors.
pub fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    addend: Option<&Tensor<D>>,
) -> Option<Tensor<D>> {
    if !takes_linear(x, weight, bias, addend) {
        return None;
    }
    let input = primitive(x)?;
    let work = conv2d::work(&client(&input), x.dtype())?;
    project(input, primitive(weight)?, bias, addend, false, work)
}

/// See [`crate::linear::linear_geglu`]; `None` where the kernel does not take the tensors. By the device's `work` where there is
/// none.
pub fn linear_geglu<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    work: Option<Work>,
) -> Option<Tensor<D>> {
    if !takes_linear(x, weight, bias, None) || !weight.dims()[0].is_multiple_of(2 * conv2d::HALF) {
        return None;
    }
    let (input, weight) = (primitive(x)?, primitive(weight)?);
    let work = work.or_else(|| conv2d::work(&client(&input), x.dtype()))?;
    let options = Conv2dOptions { stride: [1, 1], padding: [[0, 0]; 2] };
    let added = Added { bias: bias.is_some(), ..Added::default() };
    // A sum of splits would have to be put together before it is a gate's.
    let work = Work { splits: Some(1), ..work };
    let convolution = Convolution { added, gated: true, ..Convolution::new(options, work) };
    let bias = bias.map_or(Some(weight.clone()), primitive)?;
    tensor(Gpu::linear(input, weight.clone(), bias, weight, convolution))
}

/// The linear layer of tensors that the kernel takes, by `work`; its result in f32 where `exact`.
fn project<const D: usize>(
    x: Primitive,
    weight: Primitive,
    bias: Option<&Tensor<1>>,
    addend: Option<&Tensor<D>>,
    exact: bool,
    work: Work,
) -> Option<Tensor<D>> {
    let options = Conv2dOptions { stride: [1, 1], padding: [[0, 0]; 2] };
    let convolution = Convolution {
        added: Added { bias: bias.is_some(), shift: false, addend: addend.is_some() },
        exact,
        ..Convolution::new(options, work)
    };
    let bias = bias.map_or(Some(weight.clone()), primitive)?;
    let addend = addend.map_or(Some(weight.clone()), primitive)?;
    tensor(Gpu::linear(x, weight, bias, addend, convolution))
}

/// See [`crate::geglu`]; `None` where the kernel does not take the tensor.
pub fn geglu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    if !takes_geglu(x) {
        return None;
    }
    tensor(Gpu::geglu(primitive(x)?))
}

/// See [`crate::join_channels`]; `None` where the kernel does not take the tensors.
pub fn join_channels(a: &Tensor<4>, b: &Tensor<4>) -> Option<Tensor<4>> {
    if !takes_join(a, b) {
        return None;
    }
    tensor(Gpu::join_channels(primitive(a)?, primitive(b)?))
}

/// Whether the tensor is on a device of the kernels', without a graph.
pub fn holds<const D: usize>(x: &Tensor<D>) -> bool {
    primitive(x).is_some()
}

/// See [`crate::attention()`]; `None` where the kernel does not take the tensors, as without matrix units for their type.
/// `by` are the device's where it is `None`.
pub fn attention(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, by: Option<Units>) -> Option<Tensor<4>> {
    let primitives = [primitive(q)?, primitive(k)?, primitive(v)?];
    let Some(plans) = attention_plans(q, k, v, &primitives[0], by) else {
        return wide::attention(q, k, v, &client(&primitives[0]), by.is_some_and(|units| !units.hardware()));
    };
    let [q, k, v] = primitives;
    let (y, _) = Gpu::attention(q, k, v, plans.forward);
    tensor(y)
}

fn attention_plans(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    on: &Primitive,
    by: Option<Units>,
) -> Option<Plans> {
    let [[b, heads, n, d], [.., m, _]] = [q.dims(), k.dims()];
    let alike = [k, v].into_iter().all(|x| x.dims() == [b, heads, m, d] && x.dtype() == q.dtype());
    if !alike || ![q, k, v].into_iter().all(takes) {
        return None;
    }
    let sizes = Sizes { heads: b * heads, n, m, d, size: q.dtype().size() };
    Plans::new(&client(on), sizes, q.dtype(), by)
}

fn takes_group_norm<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    options: GroupNormOptions,
) -> bool {
    let channels = if D < 2 { 0 } else { x.dims()[1] };
    takes(x)
        && channels.is_multiple_of(options.groups)
        && [weight, bias].into_iter().all(|p| p.dims() == [channels] && p.dtype() == x.dtype())
}

fn takes_layer_norm<const D: usize>(x: &Tensor<D>, weight: &Tensor<1>, bias: &Tensor<1>) -> bool {
    takes(x) && [weight, bias].into_iter().all(|p| p.dims() == [x.dims()[D - 1]] && p.dtype() == x.dtype())
}

fn takes_shift(x: &Tensor<4>, weight: &Tensor<4>, shift: Option<&Tensor<2>>) -> bool {
    let dims = [x.dims()[0], weight.dims()[0]];
    shift.is_none_or(|shift| shift.dims() == dims && shift.dtype() == x.dtype())
}

fn takes_conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
    addend: Option<&Tensor<4>>,
) -> bool {
    let (dims, w_dims, dtype) = (x.dims(), weight.dims(), x.dtype());
    takes(x)
        && takes(weight)
        && weight.dtype() == dtype
        && conv2d::fits(dims, w_dims, options)
        && bias.is_none_or(|bias| bias.dims() == [w_dims[0]] && bias.dtype() == dtype)
        && addend.is_none_or(|addend| {
            addend.dims() == conv2d::output(dims, w_dims, options) && addend.dtype() == dtype
        })
}

fn takes_linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    addend: Option<&Tensor<D>>,
) -> bool {
    let ([outputs, inputs], dtype) = (weight.dims(), x.dtype());
    let mut shape = x.dims();
    shape[D - 1] = outputs;
    takes(x)
        && takes(weight)
        && weight.dtype() == dtype
        && x.dims()[D - 1] == inputs
        && x.shape().num_elements() / inputs * outputs <= MOST
        && bias.is_none_or(|bias| bias.dims() == [outputs] && bias.dtype() == dtype)
        && addend.is_none_or(|addend| addend.dims() == shape && addend.dtype() == dtype)
}

fn takes_join(a: &Tensor<4>, b: &Tensor<4>) -> bool {
    let ([n, _, height, width], [n2, _, height2, width2]) = (a.dims(), b.dims());
    let alike = [n, height, width] == [n2, height2, width2] && a.dtype() == b.dtype();
    alike && takes(a) && takes(b) && a.shape().num_elements() + b.shape().num_elements() <= MOST
}

fn takes_geglu<const D: usize>(x: &Tensor<D>) -> bool {
    takes(x) && x.dims()[D - 1].is_multiple_of(2)
}

/// The kernels count elements in 32 bits.
const MOST: usize = i32::MAX as usize;

fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    let count = x.shape().num_elements();
    matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16) && (1..=MOST).contains(&count)
}

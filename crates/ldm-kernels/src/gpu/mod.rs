//! Kernels for burn's CubeCL devices (CUDA, ROCm, Vulkan, Metal, WebGPU), written once.
//!
//! They take f32 (but convolution and attention), f16 and bf16, add up in f32, and read tensors where they lie: a convolution's
//! channels-last result is normalised as it is and stays channels-last. Under fusion each is one opaque operation among
//! burn's ([`ops`]).

mod attention;
#[cfg(feature = "autodiff")]
pub mod autodiff;
mod bridge;
mod chunks;
mod conv2d;
mod geglu;
mod norm;
#[cfg(feature = "autodiff")]
mod norm_backward;
mod ops;
mod plane_tile;
mod statistics;
#[cfg(test)]
mod tests;
mod view;
mod walk;

use burn::tensor::{DType, Tensor};

use crate::conv2d::Conv2dOptions;
use crate::group_norm::GroupNormOptions;
use attention::{Plans, Sizes};
use bridge::{Gpu, Primitive, client, primitive, tensor};
use conv2d::{Convolution, Work};
use ops::Kernels;

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
pub fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
    addend: Option<&Tensor<4>>,
) -> Option<Tensor<4>> {
    if !takes_conv2d(x, weight, bias, options, addend) {
        return None;
    }
    let input = primitive(x)?;
    let work = conv2d::work(&client(&input), x.dtype())?;
    convolve(input, primitive(weight)?, bias, options, addend, work)
}

/// The convolution of tensors that the kernel takes, by `work`.
fn convolve(
    x: Primitive,
    weight: Primitive,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
    addend: Option<&Tensor<4>>,
    work: Work,
) -> Option<Tensor<4>> {
    let convolution = Convolution {
        options,
        spread: [1, 1],
        mirrored: false,
        bias: bias.is_some(),
        addend: addend.is_some(),
        work,
    };
    // The weights stand in for what isn't there.
    let bias = bias.map_or(Some(weight.clone()), primitive)?;
    let addend = addend.map_or(Some(weight.clone()), primitive)?;
    tensor(Gpu::conv2d(x, weight, bias, addend, convolution))
}

/// See [`crate::geglu`]; `None` where the kernel does not take the tensor.
pub fn geglu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    if !takes_geglu(x) {
        return None;
    }
    tensor(Gpu::geglu(primitive(x)?))
}

/// See [`crate::attention()`]; `None` where the kernel does not take the tensors, as without matrix units for their type.
/// `emulated` does without: slow, for tests.
pub fn attention(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, emulated: bool) -> Option<Tensor<4>> {
    let primitives = [primitive(q)?, primitive(k)?, primitive(v)?];
    let plans = attention_plans(q, k, v, &primitives[0], emulated)?;
    let [q, k, v] = primitives;
    let (y, _) = Gpu::attention(q, k, v, plans.forward);
    tensor(y)
}

fn attention_plans(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    on: &Primitive,
    emulated: bool,
) -> Option<Plans> {
    let [[b, heads, n, d], [.., m, _]] = [q.dims(), k.dims()];
    let alike = [k, v].into_iter().all(|x| x.dims() == [b, heads, m, d] && x.dtype() == q.dtype());
    if !alike || ![q, k, v].into_iter().all(takes) {
        return None;
    }
    let sizes = Sizes { heads: b * heads, n, m, d, size: q.dtype().size() };
    Plans::new(&client(on), sizes, q.dtype(), emulated)
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

fn takes_geglu<const D: usize>(x: &Tensor<D>) -> bool {
    takes(x) && x.dims()[D - 1].is_multiple_of(2)
}

/// The kernels count elements in 32 bits.
fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    let count = x.shape().num_elements();
    matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16) && (1..=i32::MAX as usize).contains(&count)
}

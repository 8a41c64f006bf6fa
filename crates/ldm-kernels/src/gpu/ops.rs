//! The kernels as an extension of burn's backend, which fusion needs: it computes shapes now and runs kernels later.

// burn's macro implements the trait for its dispatching backend too; it lists no backend there, since tensors are told
// apart in `bridge`, and so leaves the arguments unused.
#![allow(unused_variables)]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;

#[cfg(feature = "autodiff")]
use super::attention::Plans;
use super::attention::{self, Plan};
use super::conv2d::{self, Convolution};
use super::norm::{self, Norm};
#[cfg(feature = "autodiff")]
use super::norm_backward;
use super::view::View;
use super::{geglu, join, shares};
use crate::group_norm::GroupNormOptions;

/// Every output is a new tensor. Gradients are in the order of the inputs.
#[backend_extension(Fusion: cfg(feature = "fusion"))]
pub trait Kernels: Backend {
    /// The output and, f32 `[b * groups, 2]`, each group's mean and 1 / deviation.
    #[fusion(meta = |x, weight, bias, options| (x.clone(), means(x.shape[0] * options.groups)))]
    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: GroupNormOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Of [`group_norm`](Self::group_norm), from the gradient of its first output.
    #[cfg(feature = "autodiff")]
    #[fusion(meta = |x, weight, bias, statistics, gradient, options| (x.clone(), weight.clone(), bias.clone()))]
    fn group_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: GroupNormOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The output and, f32 `[rows, 2]`, each row's mean and 1 / deviation.
    #[fusion(meta = |x, weight, bias, eps| {
        (x.clone(), means(x.shape.num_elements() / weight.shape[0]))
    })]
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Of [`layer_norm`](Self::layer_norm), from the gradient of its first output.
    #[cfg(feature = "autodiff")]
    #[fusion(meta = |x, weight, statistics, gradient| (x.clone(), weight.clone(), weight.clone()))]
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Convolution, see [`conv2d::forward`].
    #[fusion(dtype = x, shape = conv2d::shape(x, weight, convolution))]
    fn conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        convolution: Convolution,
    ) -> FloatTensor<Self>;

    /// A linear layer, see [`conv2d::linear`].
    #[fusion(meta = |x, weight, bias, addend, convolution| conv2d::linear_spec(x, weight, convolution))]
    fn linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        convolution: Convolution,
    ) -> FloatTensor<Self>;

    /// Channels side by side, see [`join::forward`].
    #[fusion(dtype = left, shape = {
        let mut shape = left.clone();
        shape[1] += right[1];
        shape
    })]
    fn join_channels(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Of [`join_channels`](Self::join_channels), whose first map has `left` channels.
    #[cfg(feature = "autodiff")]
    #[fusion(meta = |gradient, left| join_specs(gradient, *left))]
    fn join_channels_backward(
        gradient: FloatTensor<Self>,
        left: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Of [`conv2d`](Self::conv2d), the weights' gradient from the output's.
    #[cfg(feature = "autodiff")]
    #[fusion(dtype = weight, shape = weight)]
    fn conv2d_weight_gradient(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        convolution: Convolution,
    ) -> FloatTensor<Self>;

    /// Gradients of biases and shifts, see [`conv2d::sums`].
    #[cfg(feature = "autodiff")]
    #[fusion(dtype = x, shape = conv2d::sums_shape(x, *by_picture))]
    fn channel_sums(x: FloatTensor<Self>, by_picture: bool) -> FloatTensor<Self>;

    /// Softmax of the rows of scaled scores, see [`shares::forward`].
    #[fusion(meta = |scores, scale, dtype| of_type(scores, *dtype))]
    fn shares(scores: FloatTensor<Self>, scale: f32, dtype: DType) -> FloatTensor<Self>;

    /// `a * gelu(b)` of the last axis' halves.
    #[fusion(dtype = x, shape = {
        let mut half = x.clone();
        let last = half.num_dims() - 1;
        half[last] /= 2;
        half
    })]
    fn geglu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Of [`geglu`](Self::geglu).
    #[cfg(feature = "autodiff")]
    #[fusion(dtype = x, shape = x)]
    fn geglu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The output and, f32 `[b, heads, n]`, the logarithm of each row's sum of exponentials.
    #[fusion(meta = |q, k, v, plan| (q.clone(), logarithms(&q.shape)))]
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Of [`attention`](Self::attention), from its outputs and the gradient of the first.
    #[cfg(feature = "autodiff")]
    #[fusion(meta = |q, k, v, y, logarithms, gradient, plans| (q.clone(), k.clone(), v.clone()))]
    fn attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        y: FloatTensor<Self>,
        logarithms: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        plans: Plans,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// The same shape in another type.
#[cfg(feature = "fusion")]
fn of_type(
    x: &burn::backend::fusion::custom::TensorSpec,
    dtype: DType,
) -> burn::backend::fusion::custom::TensorSpec {
    burn::backend::fusion::custom::TensorSpec::new(x.shape.clone(), dtype)
}

/// Of both parts of a joined map.
#[cfg(all(feature = "fusion", feature = "autodiff"))]
fn join_specs(
    joined: &burn::backend::fusion::custom::TensorSpec,
    left: usize,
) -> (burn::backend::fusion::custom::TensorSpec, burn::backend::fusion::custom::TensorSpec) {
    let part = |channels: usize| {
        let mut part = joined.clone();
        part.shape[1] = channels;
        part
    };
    (part(left), part(joined.shape[1] - left))
}

/// One of each row of a tensor of heads.
#[cfg(feature = "fusion")]
fn logarithms(heads: &burn::tensor::Shape) -> burn::backend::fusion::custom::TensorSpec {
    let shape = burn::tensor::Shape::from([heads[0], heads[1], heads[2]]);
    burn::backend::fusion::custom::TensorSpec::new(shape, burn::tensor::DType::F32)
}

/// Mean and 1 / deviation of so many groups.
#[cfg(feature = "fusion")]
fn means(groups: usize) -> burn::backend::fusion::custom::TensorSpec {
    let shape = burn::tensor::Shape::from([groups, 2]);
    burn::backend::fusion::custom::TensorSpec::new(shape, burn::tensor::DType::F32)
}

impl Kernels for CubeBackend {
    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: GroupNormOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::forward(View::planes(x), weight, bias, Norm::of_groups(options), options.eps)
    }

    #[cfg(feature = "autodiff")]
    fn group_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: GroupNormOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (x, gradient) = (View::planes(x), View::planes(gradient));
        norm_backward::of_groups(x, weight, bias, statistics, gradient, Norm::of_groups(options))
    }

    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        norm::forward(View::rows(x), weight, bias, Norm::of_rows(), eps)
    }

    #[cfg(feature = "autodiff")]
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        norm_backward::of_rows(View::rows(x), weight, statistics, View::rows(gradient))
    }

    fn conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        convolution: Convolution,
    ) -> FloatTensor<Self> {
        conv2d::forward(x, weight, bias, shift, addend, convolution)
    }

    fn linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        convolution: Convolution,
    ) -> FloatTensor<Self> {
        conv2d::linear(x, weight, bias, addend, convolution)
    }

    #[cfg(feature = "autodiff")]
    fn conv2d_weight_gradient(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        convolution: Convolution,
    ) -> FloatTensor<Self> {
        conv2d::weight_gradient(x, weight.meta.shape(), gradient, convolution)
    }

    #[cfg(feature = "autodiff")]
    fn channel_sums(x: FloatTensor<Self>, by_picture: bool) -> FloatTensor<Self> {
        conv2d::sums(x, by_picture)
    }

    fn join_channels(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self> {
        join::forward(left, right)
    }

    #[cfg(feature = "autodiff")]
    fn join_channels_backward(
        gradient: FloatTensor<Self>,
        left: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        join::backward(gradient, left)
    }

    fn shares(scores: FloatTensor<Self>, scale: f32, dtype: DType) -> FloatTensor<Self> {
        shares::forward(scores, scale, dtype)
    }

    fn geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        geglu::forward(x)
    }

    #[cfg(feature = "autodiff")]
    fn geglu_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        geglu::backward(x, gradient)
    }

    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::forward(q, k, v, plan)
    }

    #[cfg(feature = "autodiff")]
    fn attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        y: FloatTensor<Self>,
        logarithms: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        plans: Plans,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        attention::backward(q, k, v, y, logarithms, gradient, plans)
    }
}

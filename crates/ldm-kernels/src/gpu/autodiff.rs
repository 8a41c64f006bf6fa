//! The kernels under autodiff: their gradients are kernels too.
//!
//! As on the CPU, a kernel takes the tensors out of the graph, computes its output as without a graph, and records how
//! the inputs' gradients follow from the output's. With burn's gradient checkpointing it steps aside.

mod conv2d;
mod linear;

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Cube};
use burn::tensor::Tensor;

use super::attention::{Plans, Units};
use super::bridge::{Gpu, Primitive, same};
use super::ops::Kernels;
use super::{attention_plans, takes_geglu, takes_group_norm, takes_join, takes_layer_norm};
use crate::gpu_kernels::{GpuKernels, runs};
use crate::group_norm::GroupNormOptions;
pub use conv2d::conv2d;
#[cfg(test)]
pub use conv2d::{More, convolve};
pub use linear::linear;
#[cfg(test)]
pub use linear::project;

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
    let nodes = [node(x)?, node(weight)?, node(bias)?];
    let [x, weight, bias] = [value(&nodes[0])?, value(&nodes[1])?, value(&nodes[2])?];
    let (y, statistics) = Gpu::group_norm(x.clone(), weight.clone(), bias.clone(), options);
    record(nodes.each_ref(), y, GroupNorm { x, weight, bias, statistics, options })
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
    let nodes = [node(x)?, node(weight)?, node(bias)?];
    let [x, weight, bias] = [value(&nodes[0])?, value(&nodes[1])?, value(&nodes[2])?];
    let (y, statistics) = Gpu::layer_norm(x.clone(), weight.clone(), bias, eps);
    record(nodes.each_ref(), y, LayerNorm { x, weight, statistics })
}

/// See [`crate::geglu`]; `None` where the kernel does not take the tensor.
pub fn geglu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    if !takes_geglu(x) {
        return None;
    }
    let node = node(x)?;
    let x = value(&node)?;
    record([&node], Gpu::geglu(x.clone()), Geglu { x })
}

/// See [`crate::join_channels`]; `None` where the kernel does not take the tensors.
pub fn join_channels(a: &Tensor<4>, b: &Tensor<4>) -> Option<Tensor<4>> {
    if !takes_join(a, b) {
        return None;
    }
    let nodes = [node(a)?, node(b)?];
    let y = Gpu::join_channels(value(&nodes[0])?, value(&nodes[1])?);
    record(nodes.each_ref(), y, Join { left: a.dims()[1] })
}

/// See [`crate::attention()`]; `None` where the kernel does not take the tensors. `by` as in [`super::attention`].
pub fn attention(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, by: Option<Units>) -> Option<Tensor<4>> {
    let nodes = [node(q)?, node(k)?, node(v)?];
    let primitives = [value(&nodes[0])?, value(&nodes[1])?, value(&nodes[2])?];
    let plans = attention_plans(q, k, v, &primitives[0], by)?;
    let [q, k, v] = primitives;
    let (y, logarithms) = Gpu::attention(q.clone(), k.clone(), v.clone(), plans.forward);
    record(nodes.each_ref(), y.clone(), Attention { q, k, v, y, logarithms, plans })
}

#[derive(Debug, Clone)]
struct GroupNorm {
    x: Primitive,
    weight: Primitive,
    bias: Primitive,
    statistics: Primitive,
    options: GroupNormOptions,
}

impl Gradient<3> for GroupNorm {
    fn gradients(self, output: Primitive, _: [bool; 3]) -> [Option<Primitive>; 3] {
        let Self { x, weight, bias, statistics, options } = self;
        all(Gpu::group_norm_backward(x, weight, bias, statistics, output, options))
    }
}

#[derive(Debug, Clone)]
struct LayerNorm {
    x: Primitive,
    weight: Primitive,
    statistics: Primitive,
}

impl Gradient<3> for LayerNorm {
    fn gradients(self, output: Primitive, _: [bool; 3]) -> [Option<Primitive>; 3] {
        let Self { x, weight, statistics } = self;
        all(Gpu::layer_norm_backward(x, weight, statistics, output))
    }
}

#[derive(Debug, Clone)]
struct Geglu {
    x: Primitive,
}

impl Gradient<1> for Geglu {
    fn gradients(self, output: Primitive, _: [bool; 1]) -> [Option<Primitive>; 1] {
        [Some(Gpu::geglu_backward(self.x, output))]
    }
}

#[derive(Debug, Clone)]
struct Join {
    /// Channels of the first map.
    left: usize,
}

impl Gradient<2> for Join {
    fn gradients(self, output: Primitive, _: [bool; 2]) -> [Option<Primitive>; 2] {
        let (left, right) = Gpu::join_channels_backward(output, self.left);
        [Some(left), Some(right)]
    }
}

#[derive(Debug, Clone)]
struct Attention {
    q: Primitive,
    k: Primitive,
    v: Primitive,
    y: Primitive,
    logarithms: Primitive,
    plans: Plans,
}

impl Gradient<3> for Attention {
    fn gradients(self, output: Primitive, _: [bool; 3]) -> [Option<Primitive>; 3] {
        let Self { q, k, v, y, logarithms, plans } = self;
        all(Gpu::attention_backward(q, k, v, y, logarithms, output, plans))
    }
}

/// A tensor with its node in the graph.
pub(super) type Node = FloatTensor<Autodiff<Cube>>;

/// What an operation keeps for its backward, and the backward.
trait Gradient<const N: usize>: Clone + Debug + Send + 'static {
    /// The inputs' gradients from the output's, at least those that are wanted.
    fn gradients(self, output: Primitive, wanted: [bool; N]) -> [Option<Primitive>; N];
}

/// As [`Gradient`] has them.
fn all((a, b, c): (Primitive, Primitive, Primitive)) -> [Option<Primitive>; 3] {
    [Some(a), Some(b), Some(c)]
}

/// The tensor under autodiff that `x` is, or becomes as a constant beside others that are; `None` where it is not on a
/// CubeCL device.
pub(super) fn node<const D: usize>(x: &Tensor<D>) -> Option<Node> {
    let node = |x: Tensor<D>| x.try_into_primitive::<Autodiff<Cube>>().ok();
    node(x.clone()).or_else(|| if x.device().is_autodiff() { None } else { node(x.clone().autodiff()) })
}

/// The same values outside the graph, where kernels run.
fn value(x: &Node) -> Option<Primitive> {
    if runs(GpuKernels::Portable) { same(x.primitive().clone()) } else { None }
}

/// Puts `output`, computed from `inputs` outside the graph, into it.
fn record<const N: usize, const D: usize>(
    inputs: [&Node; N],
    output: Primitive,
    gradient: impl Gradient<N>,
) -> Option<Tensor<D>> {
    let output: FloatTensor<Cube> = same(output)?;
    let step = Step(PhantomData).prepare::<NoCheckpointing>(inputs.map(|x| x.node()));
    let output = match step.compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(gradient, output),
        OpsKind::UnTracked(step) => step.finish(output),
    };
    Some(Tensor::from_primitive::<Autodiff<Cube>>(output))
}

/// burn's form of a [`Gradient`].
#[derive(Debug)]
struct Step<G>(PhantomData<G>);

impl<G: Gradient<N>, const N: usize> Backward<Cube, N> for Step<G> {
    type State = G;

    fn backward(self, ops: Ops<G, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        // Both are the same type wherever a step was recorded.
        let Some(output) = same(gradients.consume::<Cube>(&ops.node)) else { return };
        let wanted = ops.parents.each_ref().map(Option::is_some);
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state.gradients(output, wanted)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient.and_then(same)) {
                gradients.register::<Cube>(parent.id, gradient);
            }
        }
    }
}

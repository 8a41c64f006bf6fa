//! Kernels under autodiff: their gradients are written by hand too.
//!
//! A kernel of this folder takes the tensors out of the graph, computes its output as without a graph, and records how
//! the inputs' gradients follow from the output's. With burn's gradient checkpointing it steps aside.

mod attention;
mod conv2d;
mod geglu;
mod group_norm;
mod layer_norm;
mod linear;
mod sums;
#[cfg(test)]
mod tests;
mod upsample;

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Tensor};

pub use attention::attention;
pub use conv2d::conv2d;
pub use geglu::geglu;
pub use group_norm::group_norm;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use upsample::upsample_twice;

/// A tensor with its node in the graph.
type Node = FloatTensor<Autodiff<Flex>>;

/// What an operation keeps for its backward, and the backward.
trait Gradient<const N: usize>: Clone + Debug + Send + 'static {
    /// Whether the output's gradient may be a view. Else it is contiguous.
    const VIEWS: bool = false;

    /// The inputs' gradients, where `wanted`, from the output's.
    fn gradients(self, output: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

/// The f32 tensor on flex under autodiff that `x` is, if it is one.
fn node<const D: usize>(x: &Tensor<D>) -> Option<Node> {
    if x.dtype() != DType::F32 {
        return None;
    }
    x.clone().try_into_primitive::<Autodiff<Flex>>().ok()
}

/// The same values outside the graph.
fn value<const D: usize>(x: &Node) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(x.primitive().clone())
}

/// The flex tensor behind a plain tensor.
fn primitive<const D: usize>(x: Tensor<D>) -> Option<FlexTensor> {
    x.try_into_primitive::<Flex>().ok()
}

/// Puts `output`, computed from `inputs` outside the graph, into it.
fn record<const N: usize, const D: usize>(
    inputs: [&Node; N],
    output: Tensor<D>,
    gradient: impl Gradient<N>,
) -> Option<Tensor<D>> {
    let output = primitive(output)?;
    let step = Step(PhantomData).prepare::<NoCheckpointing>(inputs.map(|x| x.node()));
    let output = match step.compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(gradient, output),
        OpsKind::UnTracked(step) => step.finish(output),
    };
    Some(Tensor::from_primitive::<Autodiff<Flex>>(output))
}

/// burn's form of a [`Gradient`].
#[derive(Debug)]
struct Step<G>(PhantomData<G>);

impl<G: Gradient<N>, const N: usize> Backward<Flex, N> for Step<G> {
    type State = G;

    fn backward(self, ops: Ops<G, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let output = gradients.consume::<Flex>(&ops.node);
        let output = if G::VIEWS { output } else { output.to_contiguous() };
        let wanted = ops.parents.each_ref().map(Option::is_some);
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state.gradients(output, wanted)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

//! Kernels over lists of tensors of any lengths: a model has hundreds of parameters, most of them too small for a launch each.
//!
//! Here is what takes tensors; how several go into one launch is in [`launch`].

mod adamw;
mod copies;
mod ema;
mod launch;
mod linear;
mod ops;
mod squares;
pub mod together;

use super::bridge::{Gpu, Primitive, client, own, primitive, tensor};
use super::conv2d::{self, Work};
use super::{takes, takes_linear};
use crate::optimizer::{AdamWFactors, AdamWTensors};
use burn::tensor::{DType, Tensor};
#[cfg(test)]
pub use ops::Lists;
#[cfg(not(test))]
use ops::Lists;

/// Whether [`adamw`] takes them.
pub fn takes_adamw(parameters: &[AdamWTensors]) -> bool {
    let alike = |AdamWTensors { value, gradient, first, second }: &AdamWTensors| {
        takes(gradient)
            && [value, first, second].iter().all(|x| x.dtype() == DType::F32 && x.dims() == gradient.dims())
    };
    let all = || parameters.iter().flat_map(|p| [&p.value, &p.gradient, &p.first, &p.second]);
    parameters.iter().all(alike) && together(all())
}

/// See [`crate::optimizer::adamw`].
pub fn adamw(parameters: Vec<AdamWTensors>, factors: AdamWFactors) -> Vec<[Tensor<1>; 3]> {
    let all = parameters.into_iter().flat_map(|p| [p.value, p.gradient, p.first, p.second]);
    triples(Gpu::adamw(all.filter_map(own).collect(), factors))
}

/// Whether [`ema`] takes them.
pub fn takes_ema(pairs: &[[Tensor<1>; 2]]) -> bool {
    let alike = |[average, value]: &[Tensor<1>; 2]| {
        takes(value)
            && average.dims() == value.dims()
            && [average, value].iter().all(|x| x.dtype() == DType::F32)
    };
    pairs.iter().all(alike) && together(pairs.iter().flatten())
}

/// See [`crate::optimizer::ema`].
pub fn ema(pairs: Vec<[Tensor<1>; 2]>, step: f64) -> Vec<Tensor<1>> {
    let all = pairs.into_iter().flatten().filter_map(own).collect();
    Gpu::ema(all, step).into_iter().filter_map(tensor).collect()
}

/// See [`crate::optimizer::sum_of_squares`]; `None` where the kernel does not take the tensors.
pub fn sum_of_squares(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    if !tensors.iter().all(takes) || !together(tensors.iter()) {
        return None;
    }
    tensor(Gpu::sum_of_squares(tensors.iter().filter_map(primitive).collect())?)
}

/// See [`crate::optimizer::orders`].
pub fn orders(weight: &Tensor<1>, dtype: DType) -> bool {
    primitive(weight).is_some_and(|x| conv2d::work(&client(&x), dtype).is_some())
}

/// Whether [`copies`] takes them.
pub fn takes_copies(weights: &[(Tensor<1>, [usize; 3])]) -> bool {
    weights.iter().all(|(x, _)| x.dtype() == DType::F32 && takes(x))
        && together(weights.iter().map(|(x, _)| x))
}

/// See [`crate::optimizer::copies`].
pub fn copies(weights: Vec<(Tensor<1>, [usize; 3])>, dtype: DType) -> Vec<Tensor<1>> {
    let (weights, shapes): (Vec<_>, Vec<_>) = weights.into_iter().unzip();
    let weights = weights.into_iter().filter_map(own).collect();
    Gpu::copies(weights, shapes, dtype).into_iter().filter_map(tensor).collect()
}

/// Whether [`linear_layers`] takes them.
pub fn takes_linear_layers(x: &Tensor<2>, layers: &[(Tensor<2>, Option<Tensor<1>>)]) -> bool {
    let [rows, depth] = x.dims();
    let biased = layers.first().is_some_and(|(_, bias)| bias.is_some());
    let fits = |(weight, bias): &(Tensor<2>, Option<Tensor<1>>)| {
        let [outputs, inputs] = weight.dims();
        takes(weight)
            && inputs == depth
            && weight.dtype() == x.dtype()
            && bias.is_some() == biased
            && bias.as_ref().is_none_or(|bias| bias.dims() == [outputs] && bias.dtype() == x.dtype())
    };
    let units = linear::UNITS;
    let room = |x: &Primitive| client(x).properties().hardware.max_units_per_cube >= units;
    !layers.is_empty()
        && rows <= linear::ROWS
        && takes(x)
        && layers.iter().all(fits)
        && primitive(x).is_some_and(|x| room(&x))
        && layers.iter().all(|(weight, _)| weight.device() == x.device() && primitive(weight).is_some())
        && layers.iter().filter_map(|(_, bias)| bias.as_ref()).all(|bias| primitive(bias).is_some())
}

/// See [`crate::linear::linear_layers`].
pub fn linear_layers(x: Tensor<2>, layers: Vec<(Tensor<2>, Option<Tensor<1>>)>) -> Vec<Tensor<2>> {
    let biased = layers.first().is_some_and(|(_, bias)| bias.is_some());
    let mut tensors: Vec<Primitive> = own(x).into_iter().collect();
    for (weight, bias) in layers {
        tensors.extend(own(weight));
        tensors.extend(bias.and_then(own));
    }
    Gpu::linear_layers(tensors, biased).into_iter().filter_map(tensor).collect()
}

/// See [`crate::linear::laid_together`]; `None` where they stay as they are.
pub fn laid_together<const N: usize>(weights: &[Tensor<2>; N]) -> Option<[Tensor<2>; N]> {
    let alike = |x: &Tensor<2>| x.dims() == weights[0].dims() && x.dtype() == weights[0].dtype();
    if !weights.iter().all(|x| takes(x) && alike(x) && x.device() == weights[0].device()) {
        return None;
    }
    let all: Option<Vec<Primitive>> = weights.iter().map(primitive).collect();
    let all = all.filter(|all| conv2d::work(&client(&all[0]), weights[0].dtype()).is_some())?;
    let laid: Option<Vec<_>> = Gpu::lay_together(all).into_iter().map(tensor).collect();
    laid?.try_into().ok()
}

/// See [`crate::linear::linear_together`]; `None` where the kernel does not take the tensors. By the device's `work` where there is
/// none.
pub fn linear_together<const D: usize, const N: usize>(
    x: &Tensor<D>,
    weights: &[Tensor<2>; N],
    work: Option<Work>,
) -> Option<[Tensor<D>; N]> {
    if !weights.iter().all(|weight| takes_linear(x, weight, None, None)) {
        return None;
    }
    let input = primitive(x)?;
    let work = work.or_else(|| conv2d::work(&client(&input), x.dtype()))?;
    let weights: Option<Vec<_>> = weights.iter().map(primitive).collect();
    let tensors = [input].into_iter().chain(weights?).collect();
    let outputs: Option<Vec<_>> = Gpu::project(tensors, work).into_iter().map(tensor).collect();
    outputs?.try_into().ok()
}

/// Whether all are on one device of the kernels', without a graph.
fn together<'a>(mut all: impl Iterator<Item = &'a Tensor<1>>) -> bool {
    let Some(first) = all.next() else { return false };
    let device = first.device();
    primitive(first).is_some() && all.all(|x| x.device() == device && primitive(x).is_some())
}

fn triples(all: Vec<Primitive>) -> Vec<[Tensor<1>; 3]> {
    let mut all = all.into_iter().filter_map(tensor);
    let mut triples = Vec::new();
    while let (Some(a), Some(b), Some(c)) = (all.next(), all.next(), all.next()) {
        triples.push([a, b, c]);
    }
    triples
}

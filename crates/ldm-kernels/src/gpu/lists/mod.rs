//! Kernels over lists of tensors of any lengths: a model has hundreds of parameters, most of them too small for a launch each.
//!
//! A launch takes up to [`MOST`] members (a parameter, its gradient, ..). Its cubes are shared out among them in order, and each
//! finds its member by counting.

mod adamw;
mod copies;
mod follow;
mod linear;
mod ops;
pub mod together;

use burn::tensor::{DType, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::bridge::{Gpu, Primitive, client, own, primitive, tensor};
use super::conv2d::{self, Work};
use super::walk::{Units, cubes};
use super::{takes, takes_linear};
use crate::optimizer::{AdamWFactors, AdamWTensors};
#[cfg(test)]
pub use ops::Lists;
#[cfg(not(test))]
use ops::Lists;

/// Members of a launch.
const MOST: usize = 16;
/// What a unit takes of a member, one after the other.
const EACH: usize = 4;

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

/// Whether [`follow`] takes them.
pub fn takes_follow(pairs: &[[Tensor<1>; 2]]) -> bool {
    let alike = |[average, value]: &[Tensor<1>; 2]| {
        takes(value)
            && average.dims() == value.dims()
            && [average, value].iter().all(|x| x.dtype() == DType::F32)
    };
    pairs.iter().all(alike) && together(pairs.iter().flatten())
}

/// See [`crate::optimizer::follow`].
pub fn follow(pairs: Vec<[Tensor<1>; 2]>, step: f64) -> Vec<Tensor<1>> {
    let all = pairs.into_iter().flatten().filter_map(own).collect();
    Gpu::follow(all, step).into_iter().filter_map(tensor).collect()
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
    rows <= linear::ROWS
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

/// What members of one launch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// Of the tensor that has not the others' type.
    dtype: DType,
    /// Vectors that a unit takes together.
    together: usize,
}

/// Members of one launch, each of tensors of one length.
struct Launch<'a, const T: usize> {
    all: &'a [[CubeTensor; T]],
    /// Which of all.
    members: Vec<usize>,
    kind: Kind,
    /// Elements of a vector.
    vector: usize,
    units: Units,
}

/// Launches for all members, those of different kinds apart. `size` is the largest element's, in bytes; `kind` gives a
/// member's and, in elements, what a vector has to divide.
fn launches<const T: usize>(
    all: &[[CubeTensor; T]],
    size: usize,
    kind: impl Fn(usize) -> (Kind, usize),
) -> Vec<Launch<'_, T>> {
    let Some(client) = all.first().and_then(|member| member.first()).map(|x| &x.client) else {
        return Vec::new();
    };
    // A launch binds lengths and factors beside the members' tensors.
    let room = client.properties().hardware.max_bindings.saturating_sub(2) as usize / T;
    let most = room.clamp(1, MOST);
    let mut launches: Vec<Launch<'_, T>> = Vec::new();
    for i in 0..all.len() {
        let (kind, along) = kind(i);
        let mut widths = client.io_optimized_vector_sizes(size);
        let vector = widths.find(|n| along.is_multiple_of(*n)).unwrap_or(1);
        let open = launches
            .iter_mut()
            .find(|launch| launch.kind == kind && launch.vector == vector && launch.members.len() < most);
        match open {
            Some(launch) => launch.members.push(i),
            None => {
                let units = Units::together(client);
                launches.push(Launch { all, members: vec![i], kind, vector, units });
            }
        }
    }
    launches
}

impl<'a, const T: usize> Launch<'a, T> {
    fn client(&self) -> Client {
        self.all[0][0].client.clone()
    }

    /// Of every member, what its units take one after the other.
    fn lengths(&self) -> SequenceArg<usize> {
        self.counts().collect()
    }

    fn counts(&self) -> impl Iterator<Item = usize> {
        let taken = self.vector * self.kind.together;
        self.members.iter().map(move |i| self.all[*i][0].meta.shape().num_elements() / taken)
    }

    fn cubes(&self) -> CubeCount {
        let piece = self.units.across * EACH;
        cubes(&self.client(), self.counts().map(|count| count.div_ceil(piece)).sum())
    }

    /// The `tensor`th of every member, as a kernel takes them.
    fn buffers<C: CubePrimitive>(&self, tensor: usize) -> SequenceArg<Box<[C]>> {
        self.members.iter().map(|i| self.all[*i][tensor].clone().into_buffer_arg()).collect()
    }
}

/// The tensor, its elements in order.
fn dense(x: CubeTensor) -> CubeTensor {
    into_contiguous(x)
}

/// The tensor or, where it has other holders, a copy, to be written over.
fn sole(x: CubeTensor) -> CubeTensor {
    if x.can_mut() { x } else { x.copy() }
}

/// What a unit does of a member.
#[derive(CubeType, Clone, Copy)]
struct Share {
    /// What it takes first; the next are `units` further each.
    first: usize,
    /// Where they end.
    end: usize,
    /// The first cube of the next member.
    after: usize,
}

/// Of a member of such a length whose first cube is `before`.
#[cube]
fn share(length: usize, before: usize, #[comptime] units: usize) -> Share {
    let piece = comptime![units * EACH];
    let after = before + length.div_ceil(piece);
    let cube = CUBE_POS;
    let mut first = length;
    let mut end = 0usize;
    if cube >= before && cube < after {
        let start = (cube - before) * piece;
        first = start + UNIT_POS as usize;
        end = (start + piece).min(length);
    }
    Share { first, end, after }
}

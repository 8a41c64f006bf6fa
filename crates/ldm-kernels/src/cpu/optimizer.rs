//! Steps of all parameters, cut into pieces for all threads.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use super::bridge;
use super::buffer::Buffer;
use crate::optimizer::{AdamWFactors, AdamWTensors};

/// Values of a piece: what it reads and writes stays in a core's cache while it lasts.
const PIECE: usize = 1 << 14;

/// Whether all are plain f32 flex tensors, of alike lengths.
pub fn takes_adamw(parameters: &[AdamWTensors]) -> bool {
    let alike = |AdamWTensors { value, gradient, first, second }: &AdamWTensors| {
        are_alike(&[value, gradient, first, second])
    };
    parameters.iter().all(alike)
}

/// As [`takes_adamw`], of averages and values.
pub fn takes_ema(pairs: &[[Tensor<1>; 2]]) -> bool {
    pairs.iter().all(|pair| are_alike(&pair.each_ref()))
}

fn are_alike(tensors: &[&Tensor<1>]) -> bool {
    tensors.iter().all(|x| x.dims() == tensors[0].dims() && bridge::flex(x).is_some())
}

/// See [`crate::optimizer::adamw`]; for tensors that [`takes_adamw`] takes.
pub fn adamw(parameters: Vec<AdamWTensors>, factors: AdamWFactors) -> Vec<[Tensor<1>; 3]> {
    let factors = Factors::from(factors);
    let mut all: Vec<Parameter> = parameters.into_iter().filter_map(Parameter::new).collect();
    let pieces: Vec<_> = all.iter_mut().flat_map(Parameter::pieces).collect();
    pieces.into_par_iter().for_each(|(to, [first, second], [value, gradient])| {
        step(to, first, second, value, gradient, factors);
    });
    all.into_iter().map(Parameter::done).collect()
}

/// See [`crate::optimizer::ema`]; for tensors that [`takes_ema`] takes.
pub fn ema(pairs: Vec<[Tensor<1>; 2]>, step: f64) -> Vec<Tensor<1>> {
    let step = step as f32;
    let flex = |[average, value]: [Tensor<1>; 2]| {
        Some((Buffer::take(average.shape().num_elements()), dense(average)?, dense(value)?))
    };
    let mut all: Vec<_> = pairs.into_iter().filter_map(flex).collect();
    let pieces = all.iter_mut().flat_map(|(to, average, value)| {
        let given = bridge::slice(average).chunks(PIECE).zip(bridge::slice(value).chunks(PIECE));
        to.chunks_mut(PIECE).zip(given)
    });
    let pieces: Vec<_> = pieces.collect();
    pieces.into_par_iter().for_each(|(to, (average, value))| nearer(to, average, value, step));
    all.into_iter().map(|(to, average, _)| primitive(to, &average)).collect()
}

/// See [`crate::optimizer::sum_of_squares`]; `None` where a tensor is not a plain f32 flex tensor.
pub fn sum_of_squares(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    let all: Option<Vec<FlexTensor>> = tensors.iter().map(bridge::contiguous).collect();
    let all = all.filter(|all| !all.is_empty())?;
    let pieces: Vec<&[f32]> = all.iter().flat_map(|x| bridge::slice(x).chunks(PIECE)).collect();
    // Put together in their order, whichever thread was first.
    let parts: Vec<f32> = pieces.into_par_iter().map(squares).collect();
    let sum = parts.into_iter().map(f64::from).sum::<f64>() as f32;
    Some(Tensor::from_data([sum], (&tensors[0].device(), DType::F32)))
}

/// A tensor of these values, of another's shape.
fn primitive(values: Buffer, like: &FlexTensor) -> Tensor<1> {
    let shape = like.layout().shape().clone();
    Tensor::from_primitive::<Flex>(FlexTensor::from_data(values.into_data(shape)))
}

/// The tensor's own primitive, its elements in order.
fn dense(x: Tensor<1>) -> Option<FlexTensor> {
    let x = x.try_into_primitive::<Flex>().ok()?;
    Some(if x.is_contiguous() { x } else { x.to_contiguous() })
}

/// The elements of a [`dense`] tensor, which is copied where it has other holders.
fn values(x: &mut FlexTensor) -> &mut [f32] {
    let (from, to) = x.layout().contiguous_offsets().unwrap_or_default();
    &mut x.storage_mut()[from..to]
}

struct Parameter {
    to: Buffer,
    value: FlexTensor,
    gradient: FlexTensor,
    first: FlexTensor,
    second: FlexTensor,
}

/// Of the value to be, the moments, the value and its gradient.
type Piece<'a> = (&'a mut [f32], [&'a mut [f32]; 2], [&'a [f32]; 2]);

impl Parameter {
    fn new(tensors: AdamWTensors) -> Option<Self> {
        let AdamWTensors { value, gradient, first, second } = tensors;
        Some(Self {
            to: Buffer::take(value.shape().num_elements()),
            value: dense(value)?,
            gradient: dense(gradient)?,
            first: dense(first)?,
            second: dense(second)?,
        })
    }

    fn pieces(&mut self) -> impl Iterator<Item = Piece<'_>> {
        let moments =
            values(&mut self.first).chunks_mut(PIECE).zip(values(&mut self.second).chunks_mut(PIECE));
        let given = bridge::slice(&self.value).chunks(PIECE).zip(bridge::slice(&self.gradient).chunks(PIECE));
        let all = self.to.chunks_mut(PIECE).zip(moments).zip(given);
        all.map(|((to, moments), given)| (to, moments.into(), given.into()))
    }

    fn done(self) -> [Tensor<1>; 3] {
        let value = primitive(self.to, &self.value);
        let [first, second] = [self.first, self.second].map(Tensor::from_primitive::<Flex>);
        [value, first, second]
    }
}

/// [`AdamWFactors`] in f32.
#[derive(Debug, Clone, Copy)]
struct Factors {
    kept: [f32; 2],
    new: [f32; 2],
    eps: f32,
    rate: f32,
    root: f32,
    value: f32,
}

impl From<AdamWFactors> for Factors {
    fn from(AdamWFactors { betas, eps, rate, root, kept }: AdamWFactors) -> Self {
        let [rate, root, eps, value] = [rate, root, eps, kept].map(|x| x as f32);
        Self { kept: betas.map(|x| x as f32), new: betas.map(|x| (1.0 - x) as f32), eps, rate, root, value }
    }
}

multiversion! {
    fn step(
        to: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        value: &[f32],
        gradient: &[f32],
        by: Factors,
    ) {
        let moments = first.iter_mut().zip(second);
        for ((to, (first, second)), (value, gradient)) in to.iter_mut().zip(moments).zip(value.iter().zip(gradient)) {
            *first = *first * by.kept[0] + gradient * by.new[0];
            *second = *second * by.kept[1] + gradient * gradient * by.new[1];
            let change = *first / (second.sqrt() / by.root + by.eps) * by.rate;
            *to = value * by.value - change;
        }
    }
}

multiversion! {
    fn nearer(to: &mut [f32], average: &[f32], value: &[f32], step: f32) {
        for (to, (average, value)) in to.iter_mut().zip(average.iter().zip(value)) {
            *to = average + (value - average) * step;
        }
    }
}

/// Sums that go on beside each other, so that they are vectors.
const BESIDE: usize = 32;

multiversion! {
    fn squares(values: &[f32]) -> f32 {
        let mut sums = [0f32; BESIDE];
        let chunks = values.chunks_exact(BESIDE);
        let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
        for chunk in chunks {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += x * x;
            }
        }
        sums.iter().sum::<f32>() + rest
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;
    use crate::optimizer::{adamw, ema, plain_adamw, plain_ema, plain_sum_of_squares, sum_of_squares};

    fn named(name: &str, lengths: &[usize]) -> Vec<Tensor<1>> {
        let device = Device::flex();
        let lengths = lengths.iter().enumerate();
        lengths.map(|(i, n)| seeded_input(&format!("{name} {i}"), [*n], &device)).collect()
    }

    const LENGTHS: [usize; 4] = [1, 37, PIECE, 3 * PIECE + 5];

    #[test]
    fn adamw_is_plain_burns() {
        let [values, gradients, firsts, seconds] = ["v", "g", "m", "s"].map(|name| named(name, &LENGTHS));
        let parameters = || {
            let moments = firsts.iter().cloned().zip(seconds.iter().map(|x| x.clone().abs()));
            let given = values.iter().cloned().zip(gradients.iter().cloned());
            let all = given.zip(moments).map(|((value, gradient), (first, second))| AdamWTensors {
                value,
                gradient,
                first,
                second,
            });
            all.collect::<Vec<_>>()
        };
        for (decay, t) in [(0.0, 1), (1e-2, 7)] {
            let factors = AdamWFactors::new([0.9, 0.999], 1e-8, decay, 1e-2, t);
            assert!(takes_adamw(&parameters()));
            // Here the first moments have another holder, the second ones have none.
            let ours = adamw(parameters(), factors);
            for (i, (ours, plain)) in ours.iter().zip(plain_adamw(parameters(), factors)).enumerate() {
                for (name, (ours, plain)) in ["value", "first", "second"].iter().zip(ours.iter().zip(&plain))
                {
                    assert_close(&format!("{i} {name}, step {t}"), ours, plain, 1e-6);
                }
            }
        }
        for (i, first) in named("m", &LENGTHS).iter().enumerate() {
            assert_close("the other holder's", &firsts[i], first, 0.0);
        }
    }

    #[test]
    fn averages_follow_as_plain_burns() {
        let [averages, values] = ["a", "v"].map(|name| named(name, &LENGTHS));
        let pairs = || {
            averages
                .iter()
                .cloned()
                .zip(values.iter().cloned())
                .map(<[Tensor<1>; 2]>::from)
                .collect::<Vec<_>>()
        };
        assert!(takes_ema(&pairs()));
        for (ours, plain) in ema(pairs(), 0.3).iter().zip(plain_ema(pairs(), 0.3)) {
            assert_close("average", ours, &plain, 1e-6);
        }
    }

    #[test]
    fn squares_are_added_up() {
        let all = named("x", &LENGTHS);
        let expected: f64 =
            all.iter().flat_map(|x| x.to_data().iter::<f64>().collect::<Vec<_>>()).map(|x| x.powi(2)).sum();
        for found in [sum_of_squares(&all), plain_sum_of_squares(&all)] {
            let found = f64::from(found.expect("there are some").into_scalar::<f32>());
            assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
        }
        assert!(sum_of_squares(&[]).is_none());
    }

    #[test]
    fn other_tensors_are_not_taken() {
        let [x, y] = [3, 4].map(|n| Tensor::<1>::zeros([n], &Device::flex()));
        assert!(!takes_ema(&[[x.clone(), y]]));
        assert!(!takes_ema(&[[x.clone(), x.clone().cast(DType::F16)]]));
        assert!(!takes_ema(&[[x.clone(), x.autodiff()]]));
    }
}

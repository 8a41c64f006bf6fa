//! What changes all parameters of a model between two steps of training, at once: a parameter alone is too little work
//! for a GPU's launch or a processor's threads.

use burn::tensor::{DType, Tensor};

/// A parameter as AdamW sees it: flat tensors of one length. Its gradient may be of a smaller float type.
#[derive(Debug, Clone)]
pub struct AdamWTensors {
    /// The parameter.
    pub value: Tensor<1>,
    /// The loss' gradient.
    pub gradient: Tensor<1>,
    /// The first moment (`exp_avg`).
    pub first: Tensor<1>,
    /// The second moment (`exp_avg_sq`).
    pub second: Tensor<1>,
}

/// The numbers of a step of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWFactors {
    /// How much of each moment is kept.
    pub betas: [f64; 2],
    /// Added to the corrected second moment's root.
    pub eps: f64,
    /// The learning rate by the first moment's correction, `1 - beta_1^t`.
    pub rate: f64,
    /// The root of the second moment's correction, `1 - beta_2^t`.
    pub root: f64,
    /// What decay leaves of a value: 1 less learning rate times decay.
    pub kept: f64,
}

impl AdamWFactors {
    /// Of step `t`, the first of which is 1.
    pub fn new(betas: [f64; 2], eps: f64, weight_decay: f64, rate: f64, t: u64) -> Self {
        let [first, second] = betas.map(|beta| 1.0 - beta.powf(t as f64));
        Self { betas, eps, rate: rate / first, root: second.sqrt(), kept: 1.0 - rate * weight_decay }
    }
}

/// A step of AdamW: the parameters' values and moments after it, in their order.
///
/// Moments that nobody else holds are written over.
///
/// Source: Loshchilov & Hutter 2019, algorithm 2, in the order of operations of `torch.optim.AdamW`.
pub fn adamw(parameters: Vec<AdamWTensors>, factors: AdamWFactors) -> Vec<[Tensor<1>; 3]> {
    #[cfg(feature = "flex")]
    if crate::cpu::takes_adamw(&parameters) {
        return crate::cpu::adamw(parameters, factors);
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if crate::gpu::takes_adamw(&parameters) {
        return crate::gpu::adamw(parameters, factors);
    }
    plain_adamw(parameters, factors)
}

/// [`adamw`] in burn's own operations.
pub fn plain_adamw(parameters: Vec<AdamWTensors>, factors: AdamWFactors) -> Vec<[Tensor<1>; 3]> {
    let AdamWFactors { betas: [beta_1, beta_2], eps, rate, root, kept } = factors;
    let step = |AdamWTensors { value, gradient, first, second }: AdamWTensors| {
        let gradient = gradient.cast(value.dtype());
        let first = first * beta_1 + gradient.clone() * (1.0 - beta_1);
        let second = second * beta_2 + gradient.square() * (1.0 - beta_2);
        let change = first.clone() / (second.clone().sqrt() / root + eps) * rate;
        let value = if kept == 1.0 { value } else { value * kept };
        [value - change, first, second]
    };
    parameters.into_iter().map(step).collect()
}

/// Moving averages a step nearer to what they follow: `average + (value - average) * step` of each pair of them, flat tensors of
/// one length.
pub fn ema(pairs: Vec<[Tensor<1>; 2]>, step: f64) -> Vec<Tensor<1>> {
    #[cfg(feature = "flex")]
    if crate::cpu::takes_ema(&pairs) {
        return crate::cpu::ema(pairs, step);
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if crate::gpu::takes_ema(&pairs) {
        return crate::gpu::ema(pairs, step);
    }
    plain_ema(pairs, step)
}

/// [`ema`] in burn's own operations.
pub fn plain_ema(pairs: Vec<[Tensor<1>; 2]>, step: f64) -> Vec<Tensor<1>> {
    pairs.into_iter().map(|[average, value]| average.clone() + (value - average) * step).collect()
}

/// The sum of the squares of all elements of all tensors, `[1]`, in f32; `None` where there are none. Of gradients it is their
/// norm's square.
pub fn sum_of_squares(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    #[cfg(feature = "flex")]
    if let Some(sum) = crate::cpu::sum_of_squares(tensors) {
        return Some(sum);
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(sum) = crate::gpu::sum_of_squares(tensors) {
        return Some(sum);
    }
    plain_sum_of_squares(tensors)
}

/// [`sum_of_squares`] in burn's own operations.
pub fn plain_sum_of_squares(tensors: &[Tensor<1>]) -> Option<Tensor<1>> {
    let squares: Vec<_> = tensors.iter().map(|x| x.clone().cast(DType::F32).square().sum()).collect();
    (!squares.is_empty()).then(|| Tensor::cat(squares, 0).sum())
}

/// Whether [`copies`] is to change the order of such weights: the device's convolutions in `dtype` are faster with it.
pub fn orders(weight: &Tensor<1>, dtype: DType) -> bool {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    return crate::gpu::orders(weight, dtype);
    #[cfg(not(all(feature = "gpu-kernels", feature = "gpu")))]
    {
        let _ = (weight, dtype);
        false
    }
}

/// Copies of weights in another float type, as a step of mixed precision makes them. Each weight `[rows, columns, taps]` is
/// flat, and its copy is so in the order `[rows, taps, columns]`, which is another where it has several of both.
pub fn copies(weights: Vec<(Tensor<1>, [usize; 3])>, dtype: DType) -> Vec<Tensor<1>> {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if crate::gpu::takes_copies(&weights) {
        return crate::gpu::copies(weights, dtype);
    }
    plain_copies(weights, dtype)
}

/// [`copies`] in burn's own operations.
pub fn plain_copies(weights: Vec<(Tensor<1>, [usize; 3])>, dtype: DType) -> Vec<Tensor<1>> {
    let copy = |(weight, [rows, columns, taps]): (Tensor<1>, [usize; 3])| {
        let weight = weight.cast(dtype);
        if taps == 1 || columns == 1 {
            return weight;
        }
        weight.reshape([rows, columns, taps]).swap_dims(1, 2).reshape([rows * columns * taps])
    };
    weights.into_iter().map(copy).collect()
}

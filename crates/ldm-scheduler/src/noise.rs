use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::Error;

/// A source of standard normal numbers.
///
/// Draws are made on the host, so a seed means the same on every device. [`crate::TorchRng`] gives
/// PyTorch's numbers, [`crate::NativeRng`] our own. A `Vec` of generators draws each item of a batch from
/// its own, as diffusers does with a list of generators.
pub trait Noise {
    /// Standard normal numbers for a tensor of this shape, in its order; not yet rounded to `dtype`, which
    /// is passed because PyTorch's order of draws depends on it.
    fn normal(&mut self, shape: &[usize], dtype: DType) -> Result<Vec<f32>, Error>;

    /// For each number of a tensor of this shape whether it is kept, which it is with this probability in
    /// [0, 1]: what dropout leaves.
    fn keep(&mut self, shape: &[usize], probability: f64) -> Result<Vec<bool>, Error>;
}

impl<N: Noise> Noise for Vec<N> {
    fn normal(&mut self, shape: &[usize], dtype: DType) -> Result<Vec<f32>, Error> {
        each(self, shape, |rng, shape| rng.normal(shape, dtype))
    }

    fn keep(&mut self, shape: &[usize], probability: f64) -> Result<Vec<bool>, Error> {
        each(self, shape, |rng, shape| rng.keep(shape, probability))
    }
}

fn each<N: Noise, T: Clone>(
    generators: &mut [N],
    shape: &[usize],
    draw: impl Fn(&mut N, &[usize]) -> Result<Vec<T>, Error>,
) -> Result<Vec<T>, Error> {
    let batch = shape.first().copied().unwrap_or(0);
    match generators {
        [only] => draw(only, shape), // diffusers: a list of one is that one
        each if each.len() == batch => {
            let item = [&[1], &shape[1..]].concat();
            let items: Vec<_> = each.iter_mut().map(|rng| draw(rng, &item)).collect::<Result<_, _>>()?;
            Ok(items.concat())
        }
        each => Err(Error::Generators { generators: each.len(), batch }),
    }
}

impl Noise for Box<dyn Noise> {
    fn normal(&mut self, shape: &[usize], dtype: DType) -> Result<Vec<f32>, Error> {
        self.as_mut().normal(shape, dtype)
    }

    fn keep(&mut self, shape: &[usize], probability: f64) -> Result<Vec<bool>, Error> {
        self.as_mut().keep(shape, probability)
    }
}

/// A tensor of standard normal numbers (diffusers' `randn_tensor`), drawn in f32 and rounded to `dtype`.
pub fn randn<const D: usize>(
    noise: &mut dyn Noise,
    shape: [usize; D],
    device: &Device,
    dtype: DType,
) -> Result<Tensor<D>, Error> {
    let values = noise.normal(&shape, dtype)?;
    Ok(Tensor::from_data(TensorData::new(values, shape).convert_dtype(dtype), (device, dtype)))
}

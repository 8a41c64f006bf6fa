use burn::module::{LoraAdapter, Module, Param, Reparameterizer};
use burn::tensor::{Tensor, TensorData};

use super::{LoraConfig, LoraError};

/// Freezes a module and attaches trainable factors to its matrices whose path ends in one of `targets`
/// (`.to_q.weight`).
///
/// As in peft, `A` is drawn from `U(-1/sqrt(in), 1/sqrt(in))` and `B` is zero, so that nothing changes at first; the
/// draw depends on `seed` and the parameter's path alone. The factors have the weight's type.
///
/// # Errors
/// [`LoraError::Config`]; [`LoraError::NoTarget`] where no path ends so.
pub fn attach<M: Module>(
    module: M,
    config: &LoraConfig,
    targets: &[&str],
    seed: u64,
) -> Result<M, LoraError> {
    let LoraConfig { r, lora_alpha } = *config;
    if r == 0 || !lora_alpha.is_finite() {
        return Err(LoraError::Config { r, lora_alpha });
    }
    let mut found = 0;
    let module = module.apply_reparameterization(Attach { config, targets, seed, found: &mut found });
    if found == 0 {
        return Err(LoraError::NoTarget { targets: targets.join(", ") });
    }
    Ok(module)
}

struct Attach<'a> {
    config: &'a LoraConfig,
    targets: &'a [&'a str],
    seed: u64,
    found: &'a mut usize,
}

impl Reparameterizer for Attach<'_> {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let shape = param.lazy_shape();
        let param = param.set_require_grad(false);
        let &[out, input] = shape.as_slice() else { return (param, None) };
        if !self.targets.iter().any(|target| path.ends_with(target)) {
            return (param, None);
        }
        *self.found += 1;
        let r = self.config.r;
        let weight = param.val();
        let (device, dtype) = (weight.device(), weight.dtype());
        let bound = 1.0 / (input as f64).sqrt();
        let values: Vec<f32> = uniform(self.seed, path).take(r * input).map(|u| (u * bound) as f32).collect();
        let down = Tensor::<2>::from_data(TensorData::new(values, [r, input]), (&device, dtype));
        let up = Tensor::<2>::zeros([out, r], (&device, dtype));
        // burn multiplies `a b` in the weight's own layout, which is `B A` here.
        let (a, b) = (Param::from_tensor(up), Param::from_tensor(down));
        (param, Some(LoraAdapter { a, b, scale: self.config.lora_alpha / r as f64 }))
    }
}

/// Uniform in [-1, 1): the path's FNV-1a hash and the seed start SplitMix64.
fn uniform(seed: u64, path: &str) -> impl Iterator<Item = f64> {
    let fnv = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = path.bytes().chain(seed.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, fnv);
    (1..).map(move |i: u64| {
        let mut z = hash.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    })
}

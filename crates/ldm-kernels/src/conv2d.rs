//! 2-d convolution.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor, module};

/// What [`conv2d`] needs beside its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Of rows and of columns.
    pub stride: [usize; 2],
    /// Zeros `[[above, below], [left, right]]`.
    pub padding: [[usize; 2]; 2],
}

/// `x` `[b, c_in, h, w]`, `weight` `[c_out, c_in, kh, kw]`, `bias` `[c_out]` -> `[b, c_out, h', w']`.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: Conv2dOptions) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(y) = crate::cpu::conv2d(&x, &weight, bias.as_ref(), options, None) {
        return y;
    }
    #[cfg(all(feature = "flex", feature = "autodiff"))]
    if let Some(y) = crate::cpu::autodiff::conv2d(&x, &weight, bias.as_ref(), options) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(y) = crate::gpu::conv2d(&x, &weight, bias.as_ref(), options, None, None) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu", feature = "autodiff"))]
    if let Some(y) = crate::gpu::autodiff::conv2d(&x, &weight, bias.as_ref(), options, None, None) {
        return y;
    }
    if x.dtype() == DType::F16 && adds_up_in_f16(&x.device()) {
        let f32 = DType::F32;
        return plain(x.cast(f32), weight.cast(f32), bias.map(|b| b.cast(f32)), options).cast(DType::F16);
    }
    plain(x, weight, bias, options)
}

/// [`conv2d`] plus `addend` `[b, c_out, h', w']`, the other branch of a residual block: in the pass that writes the
/// result, where a kernel has it.
pub fn conv2d_add(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: Conv2dOptions,
    addend: Tensor<4>,
) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(y) = crate::cpu::conv2d(&x, &weight, bias.as_ref(), options, Some(&addend)) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(y) = crate::gpu::conv2d(&x, &weight, bias.as_ref(), options, None, Some(&addend)) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu", feature = "autodiff"))]
    if let Some(y) = crate::gpu::autodiff::conv2d(&x, &weight, bias.as_ref(), options, None, Some(&addend)) {
        return y;
    }
    addend + conv2d(x, weight, bias, options)
}

/// [`conv2d`] plus `shift` `[b, c_out]`, one value a picture and channel, as a time embedding is: with the bias, where a
/// kernel has it.
pub fn conv2d_shift(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: Conv2dOptions,
    shift: Tensor<2>,
) -> Tensor<4> {
    let [b, c] = shift.dims();
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if let Some(y) = crate::gpu::conv2d(&x, &weight, bias.as_ref(), options, Some(&shift), None) {
        return y;
    }
    #[cfg(all(feature = "gpu-kernels", feature = "gpu", feature = "autodiff"))]
    if let Some(y) = crate::gpu::autodiff::conv2d(&x, &weight, bias.as_ref(), options, Some(&shift), None) {
        return y;
    }
    #[cfg(feature = "flex")]
    if b == 1 {
        let both = shift.clone().reshape([c]);
        let both = bias.iter().fold(both, |both, bias| both + bias.clone());
        if let Some(y) = crate::cpu::conv2d(&x, &weight, Some(&both), options, None) {
            return y;
        }
    }
    conv2d(x, weight, bias, options) + shift.reshape([b, c, 1, 1])
}

/// The same weight, `[c_out, c_in, kh, kw]` of a convolution, as the device's kernel reads it fastest: to be called once,
/// when weights are made. On GPUs that means channels of the input together in memory; anything else, and where burn
/// convolves, comes back as it is.
pub fn laid_out<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    #[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
    if D == 4 && crate::gpu::convolves(&weight.clone().without_autodiff()) {
        let shape = weight.dims();
        let last: [usize; D] = std::array::from_fn(|i| [0, 2, 3, 1][i]);
        let back: [usize; D] = std::array::from_fn(|i| [0, 3, 1, 2][i]);
        // Through one axis, as elements come to lie in order only where the shape changes.
        let flat = weight.permute(last.map(|axis| axis as isize)).reshape([shape.iter().product::<usize>()]);
        return flat.reshape(last.map(|axis| shape[axis])).permute(back.map(|axis| axis as isize));
    }
    weight
}

/// Whether burn's f16 convolution sums its products in f16 there, which loses three digits over a few thousand
/// terms. Shader devices (WGSL, SPIR-V) do, and they are those with f16 but without bf16.
fn adds_up_in_f16(device: &Device) -> bool {
    !device.supports_dtype(DType::BF16)
}

/// [`conv2d`] as burn has it.
pub fn plain(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: Conv2dOptions) -> Tensor<4> {
    let padding = options.padding.map(|[before, after]| (before, after));
    module::conv2d(x, weight, bias, ConvOptions::new_with_padding(options.stride, padding, [1, 1], 1))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;

    /// One picture, whose shift goes with the bias, and two, whose don't; with a bias and without.
    #[test]
    fn a_shift_is_added_to_every_pixel_of_its_channel() {
        let device = Device::flex();
        let options = Conv2dOptions { stride: [1, 1], padding: [[1, 1]; 2] };
        let weight = seeded_input::<4>("weight", [6, 5, 3, 3], &device);
        for (b, with) in [(1, true), (1, false), (2, true), (2, false)] {
            let x = seeded_input::<4>("x", [b, 5, 7, 9], &device);
            let shift = seeded_input::<2>("shift", [b, 6], &device);
            let bias = with.then(|| seeded_input::<1>("bias", [6], &device));
            let twin = plain(x.clone(), weight.clone(), bias.clone(), options);
            let y = conv2d_shift(x, weight.clone(), bias, options, shift.clone());
            assert_close(&format!("{b} {with}"), &y, &(twin + shift.reshape([b, 6, 1, 1])), 1e-5);
        }
    }
}

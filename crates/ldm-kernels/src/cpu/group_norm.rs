use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge;
use super::buffer::Buffer;
use super::exp::silu;
use super::moments::moments;
use crate::group_norm::GroupNormOptions;

/// See [`crate::group_norm`]; `None` where the tensors are not plain f32 flex tensors.
pub fn group_norm<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    options: GroupNormOptions,
) -> Option<Tensor<D>> {
    let (input, weight, bias) =
        (bridge::contiguous(x)?, bridge::contiguous(weight)?, bridge::contiguous(bias)?);
    let (input, weight, bias) = (bridge::slice(&input), bridge::slice(&weight), bridge::slice(&bias));
    let (shape, channels) = (x.shape(), weight.len());
    let width = channels / options.groups;
    let plane: usize = shape[2..].iter().product();
    let mut output = Buffer::take(input.len());
    if !output.is_empty() {
        let group = width * plane;
        let groups = output.par_chunks_mut(group).zip(input.par_chunks(group)).enumerate();
        groups.for_each(|(i, (output, input))| {
            let (mean, variance) = moments(input);
            let scale = 1.0 / (variance + options.eps).sqrt();
            let first = i % options.groups * width;
            let planes = output.chunks_exact_mut(plane).zip(input.chunks_exact(plane));
            for (c, (output, input)) in (first..).zip(planes) {
                let scale = (scale * f64::from(weight[c])) as f32;
                let apply = if options.silu { shift_scale_silu } else { shift_scale };
                apply(output, input, mean as f32, scale, bias[c]);
            }
        });
    }
    Some(bridge::tensor(output, shape, &x.device()))
}

multiversion! {
    fn shift_scale(y: &mut [f32], x: &[f32], mean: f32, scale: f32, bias: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = (x - mean) * scale + bias;
        }
    }
}

multiversion! {
    fn shift_scale_silu(y: &mut [f32], x: &[f32], mean: f32, scale: f32, bias: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = silu((x - mean) * scale + bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{assert_close, relative_difference, seeded_input};

    use super::*;
    use crate::group_norm::plain;

    fn check<const D: usize>(shape: [usize; D], groups: usize, offset: f32) {
        let device = Device::flex();
        let x = seeded_input("x", shape, &device) + offset;
        let (w, b) = (seeded_input("w", [shape[1]], &device), seeded_input("b", [shape[1]], &device));
        for silu in [false, true] {
            let options = GroupNormOptions { groups, eps: 1e-5, silu };
            let ours = group_norm(&x, &w, &b, options).expect("plain f32 on flex");
            let twin = plain(x.clone(), w.clone(), b.clone(), options);
            assert_close(&format!("{shape:?} / {groups}"), &ours, &twin, 1e-5);
        }
    }

    #[test]
    fn equals_plain_burn() {
        check([2, 6, 5, 7], 3, 0.0);
        check([1, 32, 33, 65], 32, 0.0);
        check([3, 4, 1], 2, 0.0);
        check([1, 8, 64, 64], 1, 3.0);
    }

    #[test]
    fn a_large_mean_costs_no_accuracy() {
        let device = Device::flex();
        let x = seeded_input("x", [1, 2, 64, 64], &device);
        let one = Tensor::ones([2], &device);
        let options = GroupNormOptions { groups: 1, eps: 1e-5, silu: false };
        let near = group_norm(&x, &one, &one, options).expect("flex");
        let far = group_norm(&(x + 100.0), &one, &one, options).expect("flex");
        // What is lost was lost in adding 100 to the input: half an ulp of 128.
        assert!(relative_difference(&far, &near) < 1e-5);
    }

    #[test]
    fn views_are_read_in_their_own_order() {
        let device = Device::flex();
        let x = seeded_input("x", [2, 5, 4, 6], &device).swap_dims(1, 3);
        let (w, b) = (seeded_input("w", [6], &device), seeded_input("b", [6], &device));
        let options = GroupNormOptions { groups: 2, eps: 1e-6, silu: true };
        let ours = group_norm(&x, &w, &b, options).expect("flex");
        assert_close("view", &ours, &plain(x, w, b, options), 1e-5);
    }

    #[test]
    fn autodiff_and_other_types_are_left_to_burn() {
        let one = |device: &Device| Tensor::<1>::ones([4], device);
        let options = GroupNormOptions { groups: 2, eps: 1e-5, silu: false };
        let device = Device::flex().autodiff();
        let x = Tensor::<3>::ones([1, 4, 2], &device);
        assert!(group_norm(&x, &one(&device), &one(&device), options).is_none());
        let device = Device::flex();
        let x = Tensor::<3>::ones([1, 4, 2], &device).cast(burn::tensor::DType::F64);
        assert!(group_norm(&x, &one(&device), &one(&device), options).is_none());
    }
}

use burn::tensor::Tensor;

use super::bridge;
use super::buffer::Buffer;
use super::convolution::{Added, convolution};
use super::im2col::Geometry;
use super::simd::Level;
use super::winograd;
use crate::conv2d::Conv2dOptions;

/// See [`crate::conv2d`] and [`crate::conv2d::conv2d_add`]; `None` where the tensors are not plain f32 flex tensors of fitting
/// shapes.
pub fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
    addend: Option<&Tensor<4>>,
) -> Option<Tensor<4>> {
    let [b, c_in, height, width] = x.dims();
    let [c_out, c_weight, kh, kw] = weight.dims();
    let Conv2dOptions { stride, padding } = options;
    let side = |n: usize, [before, after]: [usize; 2], k: usize, stride: usize| {
        (n + before + after).checked_sub(k).map(|free| free / stride + 1)
    };
    let output = [side(height, padding[0], kh, stride[0])?, side(width, padding[1], kw, stride[1])?];
    let empty = b * c_in * c_out * height * width * kh * kw == 0;
    let shape = [b, c_out, output[0], output[1]];
    if empty || c_in != c_weight || addend.is_some_and(|addend| addend.dims() != shape) {
        return None;
    }
    let geometry = Geometry {
        input: [height, width],
        output,
        kernel: [kh, kw],
        stride,
        padding: [padding[0][0], padding[1][0]],
    };

    let (input, weight) = (bridge::contiguous(x)?, bridge::contiguous(weight)?);
    let bias = match bias {
        Some(bias) => Some(bridge::contiguous(bias)?),
        None => None,
    };
    let addend = match addend {
        Some(addend) => Some(bridge::contiguous(addend)?),
        None => None,
    };
    let mut values = Buffer::take(b * c_out * geometry.outputs());
    let run = if winograd::pays(&geometry, [c_in, c_out], b) { winograd::winograd } else { convolution };
    run(
        Level::best(),
        bridge::slice(&input),
        bridge::slice(&weight),
        Added { bias: bias.as_ref().map(bridge::slice), addend: addend.as_ref().map(bridge::slice) },
        &mut values,
        [c_in, c_out],
        &geometry,
    );
    Some(bridge::tensor(values, shape, &x.device()))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;
    use crate::conv2d::plain;

    #[test]
    fn equals_plain_burn() {
        let device = Device::flex();
        let cases = [
            ([2, 8, 9, 7], [5, 3], [1, 1], [[1, 1], [1, 1]]),
            ([1, 20, 16, 16], [33, 3], [1, 1], [[1, 1], [1, 1]]),
            ([1, 40, 37, 50], [33, 3], [1, 1], [[1, 1], [1, 1]]),
            ([1, 4, 33, 65], [6, 3], [2, 2], [[0, 1], [0, 1]]),
            ([1, 4, 33, 65], [6, 3], [2, 2], [[1, 1], [1, 1]]),
            ([3, 40, 5, 6], [7, 1], [1, 1], [[0, 0], [0, 0]]),
            ([1, 3, 20, 21], [4, 4], [4, 3], [[2, 1], [0, 3]]),
        ];
        for (shape, [c_out, k], stride, padding) in cases {
            let x = seeded_input("x", shape, &device);
            let w = seeded_input("w", [c_out, shape[1], k, k], &device);
            let bias = seeded_input("b", [c_out], &device);
            let options = Conv2dOptions { stride, padding };
            for bias in [None, Some(bias)] {
                let ours = conv2d(&x, &w, bias.as_ref(), options, None).expect("plain f32 on flex");
                let twin = plain(x.clone(), w.clone(), bias.clone(), options);
                assert_close(&format!("{shape:?} {options:?}"), &ours, &twin, 1e-5);
                let addend = seeded_input("addend", ours.dims(), &device);
                let sum = conv2d(&x, &w, bias.as_ref(), options, Some(&addend)).expect("plain f32 on flex");
                let name = format!("{shape:?} {options:?}, and a sum");
                assert_close(&name, &sum, &(ours + addend), 1e-7);
            }
        }
    }
}

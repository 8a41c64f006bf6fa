//! 2-d convolution.

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, module};

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
    if let Some(y) = crate::cpu::conv2d(&x, &weight, bias.as_ref(), options) {
        return y;
    }
    plain(x, weight, bias, options)
}

/// [`conv2d`] as burn has it.
pub fn plain(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: Conv2dOptions) -> Tensor<4> {
    let padding = options.padding.map(|[before, after]| (before, after));
    module::conv2d(x, weight, bias, ConvOptions::new_with_padding(options.stride, padding, [1, 1], 1))
}

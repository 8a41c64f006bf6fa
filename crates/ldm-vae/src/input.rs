//! What every first stage asks of the tensors it is given.

use burn::tensor::Tensor;

use crate::{DdConfig, VaeError};

/// A picture that the encoder can take: channels, and sides that f divides.
pub(crate) fn check_picture(x: &Tensor<4>, config: &DdConfig) -> Result<(), VaeError> {
    check("picture", x, config.in_channels)?;
    let ([_, _, height, width], factor) = (x.dims(), config.factor());
    if height % factor != 0 || width % factor != 0 {
        return Err(VaeError::Size { height, width, factor });
    }
    Ok(())
}

/// `[b, expected, h, w]`, no axis of length 0.
pub(crate) fn check(what: &'static str, x: &Tensor<4>, expected: usize) -> Result<(), VaeError> {
    let actual = x.dims()[1];
    if actual != expected {
        return Err(VaeError::Channels { what, expected, actual });
    }
    if x.dims().contains(&0) {
        let (expected, actual) = ("no axis of length 0".into(), x.dims().to_vec());
        return Err(VaeError::Shape { what, expected, actual });
    }
    Ok(())
}

/// The whole batch at once, or with `slicing` one item at a time.
pub(crate) fn each(slicing: bool, x: Tensor<4>, network: impl Fn(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
    if !slicing || x.dims()[0] == 1 {
        return network(x);
    }
    Tensor::cat(x.split(1, 0).into_iter().map(network).collect(), 0)
}

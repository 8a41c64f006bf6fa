//! From burn's tensors to slices and back.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Device, Shape, Tensor};

use super::buffer::Buffer;

/// The flex tensor behind `x`, where it is f32 and no gradient is recorded. Shares the data.
pub fn flex<const D: usize>(x: &Tensor<D>) -> Option<FlexTensor> {
    if x.dtype() != DType::F32 {
        return None;
    }
    x.clone().try_into_primitive::<Flex>().ok()
}

/// As [`flex`], copied where its elements don't lie in order.
pub fn contiguous<const D: usize>(x: &Tensor<D>) -> Option<FlexTensor> {
    let x = flex(x)?;
    Some(if x.as_slice::<f32>().is_some() { x } else { x.to_contiguous() })
}

/// The elements of a tensor that [`contiguous`] gave.
pub fn slice(x: &FlexTensor) -> &[f32] {
    x.as_slice().unwrap_or_default()
}

/// A tensor of these values; nothing is copied.
pub fn tensor<const D: usize>(values: Buffer, shape: impl Into<Shape>, device: &Device) -> Tensor<D> {
    Tensor::from_data(values.into_data(shape), (device, DType::F32))
}

/// A flex tensor of these values; nothing is copied.
#[cfg(feature = "autodiff")]
pub fn primitive(values: impl Into<Buffer>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(values.into().into_data(shape))
}

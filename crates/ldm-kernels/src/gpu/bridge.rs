//! From burn's tensors to CubeCL's and back.

use std::any::Any;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Tensor;
use burn_cubecl::cubecl::prelude::Client;

use crate::gpu_kernels::{GpuKernels, runs};

/// burn's CubeCL backend as the kernels run on it: with the feature `fusion` inside burn's fusion.
#[cfg(feature = "fusion")]
pub type Gpu = Cube;
/// burn's CubeCL backend as the kernels run on it.
#[cfg(not(feature = "fusion"))]
pub type Gpu = burn_cubecl::CubeBackend;

/// A float tensor of [`Gpu`].
pub type Primitive = FloatTensor<Gpu>;

/// The tensor behind `x`, where it is on a CubeCL device, no gradient is recorded and kernels run. Shares the data.
pub fn primitive<const D: usize>(x: &Tensor<D>) -> Option<Primitive> {
    if runs(GpuKernels::Portable) { own(x.clone()) } else { None }
}

/// The tensor behind `x`, which has no other holder if `x` has none.
pub fn own<const D: usize>(x: Tensor<D>) -> Option<Primitive> {
    same(x.try_into_primitive::<Cube>().ok()?)
}

/// What launches kernels on the tensor's device.
pub fn client(x: &Primitive) -> Client {
    x.device().client()
}

/// burn's tensor of a primitive.
pub fn tensor<const D: usize>(x: Primitive) -> Option<Tensor<D>> {
    Some(Tensor::from_primitive::<Cube>(same(x)?))
}

/// Whether two are the same elements of the same memory.
#[cfg(feature = "fusion")]
pub fn shares(a: &Primitive, b: &Primitive) -> bool {
    a.id == b.id
}

/// Whether two are the same elements of the same memory.
#[cfg(not(feature = "fusion"))]
pub fn shares(a: &Primitive, b: &Primitive) -> bool {
    std::ptr::eq(a.handle.memory.descriptor(), b.handle.memory.descriptor())
        && a.handle.offset_start == b.handle.offset_start
        && a.meta.shape() == b.meta.shape()
        && a.meta.strides() == b.meta.strides()
        && a.dtype == b.dtype
}

/// From a type to the same type under another name. [`Gpu`] is burn's `Cube`, except where another crate of the build
/// switched burn's fusion on without this crate's feature: there no kernel takes a tensor.
pub fn same<A: 'static, B: 'static>(a: A) -> Option<B> {
    (&mut Some(a) as &mut dyn Any).downcast_mut::<Option<B>>()?.take()
}

//! Every kernel, and its gradients, against the plain twin in f32 on the CPU, from the same rounded values.
//!
//! `BURN_DEVICE` names the device; on one that no kernel is for, each test says that it is skipped.

mod attention;
mod conv2d;
mod elements;
mod geglu;
mod group_norm;
mod layer_norm;
mod layout;
mod linear;
mod lists;
mod plane_tile;
mod upsample;

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Device, Tensor};
use burn_cubecl::cubecl::prelude::Client;
use ldm_test_support::{assert_close, seeded_input};

use super::conv2d::Work;

/// The float types of the kernels, and how far from the twin one may be: of the halves one unit in the last place of 1.
const TYPES: [(DType, f64); 3] = [(DType::F32, 1e-5), (DType::F16, 1e-3), (DType::BF16, 8e-3)];

/// How far burn's operations on the device may be from the same ones on the CPU, in f32.
const TWIN: f64 = 1e-4;

const TAKEN: &str = "the kernel takes it";

/// The device under test, where it is one that the kernels are for. What is left out is told.
fn device() -> Option<Device> {
    let device = Device::default();
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    if super::bridge::primitive(&Tensor::<1>::zeros([1], (&device, DType::F32))).is_none() {
        // Only devices on a GPU keep pools of memory; there no kernel may step aside.
        assert!(device.memory_pool_usage().is_none(), "the kernels don't take {device:?}'s tensors");
        eprintln!("{test}: skipped, no GPU but {device:?} (BURN_DEVICE=wgpu, vulkan, metal, cuda or rocm)");
        return None;
    }
    for (dtype, _) in TYPES.into_iter().filter(|(dtype, _)| !device.supports_dtype(*dtype)) {
        eprintln!("{test}: {dtype:?} skipped, {device:?} does not compute with it");
    }
    Some(device)
}

/// Those of [`TYPES`] that the device computes with.
fn types(device: &Device) -> impl Iterator<Item = (DType, f64)> {
    TYPES.into_iter().filter(|(dtype, _)| device.supports_dtype(*dtype))
}

/// Whether a tile's sums can be changed where they are: what the device says, or this where CubeCL can't tell (lavapipe's can).
fn changes(client: &Client) -> bool {
    super::plane_tile::changes(client) || std::env::var_os("COOPERATIVE_MATRIX2").is_some()
}

/// The same values in f32 on the CPU.
fn exact<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    let device = Device::flex();
    Tensor::from_data(x.to_data().convert_dtype(DType::F32), (&device, DType::F32))
}

/// The same tensor, its elements one after the other in memory as they come.
fn laid<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_data(x.to_data(), (&x.device(), x.dtype()))
}

type Function<'a, const D: usize> = &'a dyn Fn(Tensor<D>, Tensor<1>, Tensor<1>) -> Tensor<D>;

/// A norm's output, and the gradients of its input, weight and bias.
type Outcome<const D: usize> = (Tensor<D>, Tensor<D>, [Tensor<1>; 2]);

/// Under a loss that weighs every output differently.
fn gradients<const D: usize>(
    f: Function<'_, D>,
    x: Tensor<D>,
    [weight, bias]: [Tensor<1>; 2],
    loss: Tensor<D>,
) -> Outcome<D> {
    let x = x.autodiff().require_grad();
    let [weight, bias] = [weight, bias].map(|p| p.autodiff().require_grad());
    let y = f(x.clone(), weight.clone(), bias.clone());
    let gradients = (y.clone() * loss.autodiff()).sum().backward();
    let missing = "a gradient";
    let parameters = [weight, bias].map(|p| p.grad(&gradients).expect(missing));
    (y.inner(), x.grad(&gradients).expect(missing), parameters)
}

/// A kernel alone and under autodiff against its twin; in f32 also the twin on the device, which is what runs there
/// without the feature.
fn compare<const D: usize>(
    name: &str,
    x: Tensor<D>,
    channels: usize,
    tolerance: f64,
    [alone, ours, twin]: [Function<'_, D>; 3],
) {
    let (device, dtype) = (x.device(), x.dtype());
    let parameters = ["w", "b"].map(|name| seeded_input::<1>(name, [channels], &device).cast(dtype));
    let loss = seeded_input::<D>("loss", x.dims(), &device).cast(dtype);
    let expected = gradients(twin, exact(&x), parameters.each_ref().map(exact), exact(&loss));
    let [weight, bias] = parameters.clone();
    let y = alone(x.clone(), weight, bias);
    assert_close(&format!("{name}: alone"), &y, &expected.0, tolerance);
    if dtype == DType::F32 {
        let there = gradients(twin, x.clone(), parameters.clone(), loss.clone());
        assert_alike(&format!("{name}: the twin"), &there, &expected, TWIN);
    }
    let found = gradients(ours, x, parameters, loss);
    let (y, dx, [dw, db]) = &found;
    assert_eq!([y.dtype(), dx.dtype(), dw.dtype(), db.dtype()], [dtype; 4]);
    assert_alike(name, &found, &expected, tolerance);
}

fn assert_alike<const D: usize>(name: &str, found: &Outcome<D>, expected: &Outcome<D>, tolerance: f64) {
    let ((y, dx, [dw, db]), (y2, dx2, [dw2, db2])) = (found, expected);
    assert_close(&format!("{name}: output"), y, y2, tolerance);
    assert_close(&format!("{name}: x"), dx, dx2, tolerance);
    assert_close(&format!("{name}: weight"), dw, dw2, tolerance);
    assert_close(&format!("{name}: bias"), db, db2, tolerance);
}

/// Who makes products: matrix units where the device has them, else their emulation.
fn work(client: &Client, dtype: DType) -> Work {
    let emulated = || Work::new(client, dtype_to_storage_type(dtype), true);
    super::conv2d::work(client, dtype).or_else(emulated).expect("room for the tiles")
}

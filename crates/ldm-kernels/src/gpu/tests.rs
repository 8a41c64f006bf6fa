//! Every kernel, and its gradients, against the plain twin in f32 on the CPU, from the same rounded values.

use burn::tensor::{DType, Device, Tensor};
use ldm_test_support::{assert_close, seeded_input};

use crate::GroupNormOptions;

/// The device under test, where `BURN_DEVICE` names one that the kernels are for.
fn device() -> Option<Device> {
    let device = Device::default();
    let there = super::bridge::primitive(&Tensor::<1>::zeros([1], &device)).is_some();
    if !there {
        println!("skipped: {device:?} is not a CubeCL device");
    }
    there.then_some(device)
}

/// The float types that the device computes with, and how far from the twin a kernel may be.
fn types(device: &Device) -> impl Iterator<Item = (DType, f64)> {
    let all = [(DType::F32, 1e-5), (DType::F16, 1e-3), (DType::BF16, 4e-3)];
    all.into_iter().filter(|(dtype, _)| device.supports_dtype(*dtype))
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

/// How a picture lies in memory.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Contiguous,
    ChannelsLast,
    /// Columns before rows, which no kernel walks: it is copied.
    ColumnsFirst,
}

const LAYOUTS: [Layout; 3] = [Layout::Contiguous, Layout::ChannelsLast, Layout::ColumnsFirst];

fn picture(shape: [usize; 4], dtype: DType, layout: Layout, device: &Device) -> Tensor<4> {
    let x = seeded_input::<4>("x", shape, device).cast(dtype);
    match layout {
        Layout::Contiguous => x,
        Layout::ChannelsLast => laid(&x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2]),
        Layout::ColumnsFirst => laid(&x.swap_dims(2, 3)).swap_dims(2, 3),
    }
}

type Function<'a, const D: usize> = &'a dyn Fn(Tensor<D>, Tensor<1>, Tensor<1>) -> Tensor<D>;

/// Output and gradients under a loss that weighs every output differently.
fn gradients<const D: usize>(
    f: Function<'_, D>,
    x: Tensor<D>,
    [weight, bias]: [Tensor<1>; 2],
    loss: Tensor<D>,
) -> (Tensor<D>, Tensor<D>, [Tensor<1>; 2]) {
    let x = x.autodiff().require_grad();
    let [weight, bias] = [weight, bias].map(|p| p.autodiff().require_grad());
    let y = f(x.clone(), weight.clone(), bias.clone());
    let gradients = (y.clone() * loss.autodiff()).sum().backward();
    let missing = "a gradient";
    let parameters = [weight, bias].map(|p| p.grad(&gradients).expect(missing));
    (y.inner(), x.grad(&gradients).expect(missing), parameters)
}

/// A kernel alone and under autodiff against its twin.
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
    let (y2, dx2, [dw2, db2]) = gradients(twin, exact(&x), parameters.each_ref().map(exact), exact(&loss));
    let [weight, bias] = parameters.clone();
    let y = alone(x.clone(), weight, bias);
    assert_close(&format!("{name}: alone"), &y, &y2, tolerance);
    let (y, dx, [dw, db]) = gradients(ours, x, parameters, loss);
    assert_eq!([y.dtype(), dx.dtype(), dw.dtype(), db.dtype()], [dtype; 4]);
    assert_close(&format!("{name}: output"), &y, &y2, tolerance);
    assert_close(&format!("{name}: x"), &dx, &dx2, tolerance);
    assert_close(&format!("{name}: weight"), &dw, &dw2, tolerance);
    assert_close(&format!("{name}: bias"), &db, &db2, tolerance);
}

const TAKEN: &str = "the kernel takes it";

fn compare_group_norm<const D: usize>(name: &str, x: Tensor<D>, options: GroupNormOptions, tolerance: f64) {
    let channels = x.dims()[1];
    let alone =
        |x: Tensor<D>, w: Tensor<1>, b: Tensor<1>| super::group_norm(&x, &w, &b, options).expect(TAKEN);
    let ours = |x: Tensor<D>, w: Tensor<1>, b: Tensor<1>| {
        super::autodiff::group_norm(&x, &w, &b, options).expect(TAKEN)
    };
    let twin = |x: Tensor<D>, w: Tensor<1>, b: Tensor<1>| crate::group_norm::plain(x, w, b, options);
    compare(name, x, channels, tolerance, [&alone, &ours, &twin]);
}

#[test]
fn group_norm_equals_its_twin() {
    let Some(device) = device() else { return };
    // Widths and planes that vectors divide and that they don't.
    let cases = [
        ([2, 6, 5, 7], 3),
        ([3, 32, 8, 8], 32),
        ([1, 64, 16, 16], 32),
        ([2, 40, 9, 9], 5),
        ([2, 16, 1, 1], 2),
        ([1, 3, 33, 20], 1),
    ];
    for ((shape, groups), silu) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let options = GroupNormOptions { groups, eps: 1e-5, silu };
        for layout in LAYOUTS {
            for (dtype, tolerance) in types(&device) {
                let name = format!("{shape:?} {layout:?} {dtype:?} {options:?}");
                compare_group_norm(&name, picture(shape, dtype, layout, &device), options, tolerance);
            }
        }
    }
}

/// Groups that take several cubes each, and planes and columns whose sums do.
#[test]
fn group_norm_of_large_groups_equals_its_twin() {
    let Some(device) = device() else { return };
    for (shape, groups) in [([1, 4, 129, 127], 1), ([2, 16, 96, 96], 2), ([1, 8, 300, 40], 2)] {
        let options = GroupNormOptions { groups, eps: 1e-6, silu: true };
        for layout in [Layout::Contiguous, Layout::ChannelsLast] {
            for (dtype, tolerance) in types(&device) {
                let name = format!("{shape:?} {layout:?} {dtype:?} {options:?}");
                compare_group_norm(&name, picture(shape, dtype, layout, &device), options, tolerance);
            }
        }
    }
}

#[test]
fn group_norm_takes_any_rank() {
    let Some(device) = device() else { return };
    let options = GroupNormOptions { groups: 3, eps: 1e-5, silu: true };
    compare_group_norm("[2, 6, 9]", seeded_input::<3>("x", [2, 6, 9], &device), options, 1e-5);
    compare_group_norm("[5, 12]", seeded_input::<2>("x", [5, 12], &device), options, 1e-5);
}

/// Fusion shows no strides.
#[cfg(not(feature = "fusion"))]
#[test]
fn group_norm_keeps_channels_last() {
    let Some(device) = device() else { return };
    let x = picture([2, 8, 5, 3], DType::F32, Layout::ChannelsLast, &device);
    let view = super::view::View::planes;
    let input = x.clone().try_into_primitive::<burn_cubecl::CubeBackend>().ok().map(view);
    let y = super::group_norm(
        &x,
        &Tensor::ones([8], &device),
        &Tensor::ones([8], &device),
        GroupNormOptions { groups: 2, eps: 1e-5, silu: false },
    );
    let output = y.expect(TAKEN).try_into_primitive::<burn_cubecl::CubeBackend>().ok().map(view);
    for strides in [input, output].map(|view| view.expect("on the device").strides) {
        assert_eq!(strides, [120, 1, 8]);
    }
}

/// Values that f32 holds exactly with and without the mean, in one kernel and in chunks.
#[test]
fn a_large_mean_costs_no_accuracy() {
    let Some(device) = device() else { return };
    let one = Tensor::<1>::ones([2], &device);
    let options = GroupNormOptions { groups: 1, eps: 1e-5, silu: false };
    for side in [32, 160] {
        let x = (seeded_input::<4>("x", [1, 2, side, side], &device) * 64.0).round() / 64.0;
        let near = super::group_norm(&x, &one, &one, options).expect(TAKEN);
        let far = super::group_norm(&(x + 64.0), &one, &one, options).expect(TAKEN);
        assert_close(&format!("{side}"), &far, &near, 1e-5);
    }
}

fn compare_layer_norm(name: &str, x: Tensor<3>, tolerance: f64) {
    let channels = x.dims()[2];
    let alone = |x: Tensor<3>, w: Tensor<1>, b: Tensor<1>| super::layer_norm(&x, &w, &b, 1e-5).expect(TAKEN);
    let ours = |x: Tensor<3>, w: Tensor<1>, b: Tensor<1>| {
        super::autodiff::layer_norm(&x, &w, &b, 1e-5).expect(TAKEN)
    };
    let twin = |x: Tensor<3>, w: Tensor<1>, b: Tensor<1>| crate::layer_norm::plain(x, w, b, 1e-5);
    compare(name, x, channels, tolerance, [&alone, &ours, &twin]);
}

#[test]
fn layer_norm_equals_its_twin() {
    let Some(device) = device() else { return };
    let cases = [[1, 2, 9], [2, 3, 5], [1, 77, 130], [2, 5, 320], [1, 3, 1280], [1, 2, 3001], [3, 700, 6]];
    for ([b, n, c], (dtype, tolerance)) in
        cases.into_iter().flat_map(|case| types(&device).map(move |t| (case, t)))
    {
        let x = seeded_input::<3>("x", [b, n, c], &device).cast(dtype);
        compare_layer_norm(&format!("{b} {n} {c} {dtype:?}"), x.clone(), tolerance);
        let turned = laid(&x.swap_dims(1, 2)).swap_dims(1, 2);
        compare_layer_norm(&format!("{b} {n} {c} {dtype:?}, turned"), turned, tolerance);
    }
}

/// The twin's gradient is right on flex alone: elsewhere burn's GELU has that of the tanh approximation.
#[test]
fn geglu_equals_its_twin() {
    let Some(device) = device() else { return };
    let cases = [[1, 2, 2], [2, 3, 10], [3, 77, 640], [1, 5, 642]];
    for ([b, n, c], (dtype, tolerance)) in
        cases.into_iter().flat_map(|case| types(&device).map(move |t| (case, t)))
    {
        let x = (seeded_input::<3>("x", [b, n, c], &device) * 3.0).cast(dtype);
        for (name, x) in [("", x.clone()), (", turned", laid(&x.swap_dims(1, 2)).swap_dims(1, 2))] {
            let name = format!("{b} {n} {c} {dtype:?}{name}");
            let loss = seeded_input::<3>("loss", [b, n, c / 2], &device).cast(dtype);
            let run = |f: &dyn Fn(Tensor<3>) -> Tensor<3>, x: Tensor<3>, loss: Tensor<3>| {
                let x = x.autodiff().require_grad();
                let y = f(x.clone());
                let gradients = (y.clone() * loss.autodiff()).sum().backward();
                (y.inner(), x.grad(&gradients).expect("a gradient"))
            };
            let (y2, dx2) = run(&crate::geglu::plain, exact(&x), exact(&loss));
            assert_close(&format!("{name}: alone"), &super::geglu(&x).expect(TAKEN), &y2, tolerance);
            let (y, dx) = run(&|x| super::autodiff::geglu(&x).expect(TAKEN), x, loss);
            assert_eq!([y.dtype(), dx.dtype()], [dtype; 2]);
            assert_close(&format!("{name}: output"), &y, &y2, tolerance);
            assert_close(&format!("{name}: x"), &dx, &dx2, tolerance);
        }
    }
}

/// Parameters that never were under autodiff, as a frozen norm's are beside a trained one.
#[test]
fn constants_from_outside_are_taken() {
    let Some(device) = device() else { return };
    let options = GroupNormOptions { groups: 2, eps: 1e-5, silu: true };
    let [w, b] = ["w", "b"].map(|name| seeded_input::<1>(name, [4], &device));
    let x = seeded_input::<3>("x", [2, 4, 5], &device).autodiff().require_grad();
    let y = super::autodiff::group_norm(&x, &w, &b, options).expect(TAKEN);
    let gradient = x.grad(&y.square().sum().backward()).expect("a gradient");
    let twin = exact(&x.inner()).autodiff().require_grad();
    let y = crate::group_norm::plain(twin.clone(), exact(&w).autodiff(), exact(&b).autodiff(), options);
    let expected = twin.grad(&y.square().sum().backward()).expect("a gradient");
    assert_close("x", &gradient, &expected, 1e-5);
}

#[test]
fn what_the_kernels_do_not_take_is_left_to_burn() {
    let Some(device) = device() else { return };
    let options = GroupNormOptions { groups: 2, eps: 1e-5, silu: false };
    let one = |dtype| Tensor::<1>::ones([4], (&device, dtype));
    let x = |device: &Device, dtype| Tensor::<3>::ones([1, 4, 2], (device, dtype));
    let f32 = DType::F32;
    // Under autodiff without its feature's kernel, beside parameters of another type, and on the CPU.
    assert!(super::group_norm(&x(&device.clone().autodiff(), f32), &one(f32), &one(f32), options).is_none());
    assert!(super::group_norm(&x(&device, f32), &one(f32), &one(DType::F16), options).is_none());
    assert!(super::group_norm(&x(&Device::flex(), f32), &one(f32), &one(f32), options).is_none());
}

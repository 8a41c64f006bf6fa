use burn::tensor::{DType, Device, Tensor};
use ldm_test_support::{assert_close, seeded_input};

use super::{TAKEN, compare, device, exact, laid, types};
use crate::{GroupNormOptions, gpu, group_norm};

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

fn compare_group_norm<const D: usize>(name: &str, x: Tensor<D>, options: GroupNormOptions, tolerance: f64) {
    let channels = x.dims()[1];
    let alone = |x: Tensor<D>, w: Tensor<1>, b: Tensor<1>| {
        assert!(gpu::group_norm(&x, &w, &b, options).is_some(), "{TAKEN}");
        group_norm(x, w, b, options)
    };
    let ours = |x: Tensor<D>, w: Tensor<1>, b: Tensor<1>| {
        assert!(gpu::autodiff::group_norm(&x, &w, &b, options).is_some(), "{TAKEN}");
        group_norm(x, w, b, options)
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
        // More vectors, and more groups, than a cube has units.
        ([1, 1100, 3, 5], 11),
        ([2, 300, 2, 3], 300),
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

/// Groups that a cube reads twice, groups that take several cubes each, and planes and columns whose sums do.
#[test]
fn group_norm_of_large_groups_equals_its_twin() {
    let Some(device) = device() else { return };
    // The first are too large to be kept and small enough for a cube; the last are few and not so large, and vectors hold
    // channels of two groups.
    let cases = [
        ([1, 6, 60, 61], 2),
        ([1, 4, 129, 127], 1),
        ([2, 16, 96, 96], 2),
        ([1, 8, 300, 40], 2),
        ([1, 20, 64, 65], 4),
    ];
    for (shape, groups) in cases {
        let options = GroupNormOptions { groups, eps: 1e-6, silu: true };
        for layout in [Layout::Contiguous, Layout::ChannelsLast] {
            for (dtype, tolerance) in types(&device) {
                let name = format!("{shape:?} {layout:?} {dtype:?} {options:?}");
                compare_group_norm(&name, picture(shape, dtype, layout, &device), options, tolerance);
            }
        }
    }
}

/// Moments of chunks that the kernel which writes puts together, and a kernel of its own: output and statistics, of groups and chunks that
/// units don't divide too, and of one chunk.
#[cfg(not(feature = "fusion"))]
#[test]
fn chunks_are_put_together_in_two_ways() {
    use gpu::bridge::{primitive, tensor};
    use gpu::norm::{Norm, forward};
    use gpu::view::View;
    let Some(device) = device() else { return };
    // Not kept in registers: more than 16,384 elements.
    for (shape, groups) in
        [([2, 48, 64, 64], 6), ([1, 40, 65, 63], 5), ([3, 24, 70, 60], 3), ([1, 640, 6, 5], 1)]
    {
        for (dtype, tolerance) in types(&device) {
            let options = GroupNormOptions { groups, eps: 1e-5, silu: true };
            let x = picture(shape, dtype, Layout::ChannelsLast, &device);
            let [w, b] = ["w", "b"].map(|name| seeded_input::<1>(name, [shape[1]], &device).cast(dtype));
            let expected = crate::group_norm::plain(exact(&x), exact(&w), exact(&b), options);
            let both = [true, false].map(|merged| {
                let [w, b] = [&w, &b].map(|x| primitive(x).expect("on the device"));
                let x = View::planes(primitive(&x).expect("on the device"));
                let norm = Norm { groups, silu: true, merged: Some(merged) };
                let (y, statistics) = forward(x, w, b, norm, 1e-5);
                let y = tensor::<4>(y).expect("the device's tensor");
                assert_close(&format!("{shape:?} {dtype:?}, merged: {merged}"), &y, &expected, tolerance);
                tensor::<2>(statistics).expect("the device's tensor")
            });
            assert_close(&format!("{shape:?} {dtype:?}: statistics"), &both[0], &both[1], 1e-5);
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
    let view = gpu::view::View::planes;
    let input = x.clone().try_into_primitive::<burn_cubecl::CubeBackend>().ok().map(view);
    let y = gpu::group_norm(
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
        let near = gpu::group_norm(&x, &one, &one, options).expect(TAKEN);
        let far = gpu::group_norm(&(x + 64.0), &one, &one, options).expect(TAKEN);
        assert_close(&format!("{side}"), &far, &near, 1e-5);
    }
}

/// Parameters that never were under autodiff, as a frozen norm's are beside a trained one.
#[test]
fn constants_from_outside_are_taken() {
    let Some(device) = device() else { return };
    let options = GroupNormOptions { groups: 2, eps: 1e-5, silu: true };
    let [w, b] = ["w", "b"].map(|name| seeded_input::<1>(name, [4], &device));
    let x = seeded_input::<3>("x", [2, 4, 5], &device).autodiff().require_grad();
    assert!(gpu::autodiff::group_norm(&x, &w, &b, options).is_some(), "{TAKEN}");
    let y = group_norm(x.clone(), w.clone(), b.clone(), options);
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
    assert!(gpu::group_norm(&x(&device.clone().autodiff(), f32), &one(f32), &one(f32), options).is_none());
    assert!(gpu::group_norm(&x(&device, f32), &one(f32), &one(DType::F16), options).is_none());
    assert!(gpu::group_norm(&x(&Device::flex(), f32), &one(f32), &one(f32), options).is_none());
}

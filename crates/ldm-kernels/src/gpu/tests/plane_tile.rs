//! Tiles by themselves: products of matrices in shared memory, whole, in each order of memory.

// Fusion hands out no buffers.
#![cfg(not(feature = "fusion"))]

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Device, Shape, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::cmma::MatrixLayout;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use ldm_test_support::{assert_close, seeded_input};

use super::{device, exact, laid, types};
use crate::gpu::bridge::{primitive, tensor};
use crate::gpu::fours::{COUNT, Four, neighbours};
use crate::gpu::plane_tile::{ALIGNMENT, PlaneTile, SIDE, TileForm, native};

/// How deep the product is.
const DEPTH: usize = 3 * SIDE;

/// Lines of `length` elements into shared memory, `length + 8` apart.
#[cube]
fn fetch<E: Float, N: Size>(
    from: &[Vector<E, N>],
    to: &mut Shared<[Vector<E, N>]>,
    #[comptime] lines: usize,
    #[comptime] length: usize,
    #[comptime] units: usize,
) {
    let n = N::value();
    let across = comptime![length / n];
    let mut i = UNIT_POS_X as usize;
    while i < comptime![lines * across] {
        to[i / across * comptime![(length + 8) / n] + i % across] = from[i];
        i += units;
    }
}

/// `a b` of one plane.
#[cube(launch_unchecked)]
fn product<E: Float, N: Size>(
    a: &[Vector<E, N>],
    b: &[Vector<E, N>],
    y: &mut [f32],
    #[comptime] form: TileForm,
    #[comptime] a_layout: MatrixLayout,
    #[comptime] b_layout: MatrixLayout,
    #[define(E)] _dtype: ElemType,
) {
    let rows = comptime![form.rows * SIDE];
    let columns = comptime![form.columns * SIDE];
    let a_lines = comptime![if a_layout == MatrixLayout::RowMajor { (rows, DEPTH) } else { (DEPTH, rows) }];
    let b_lines =
        comptime![if b_layout == MatrixLayout::RowMajor { (DEPTH, columns) } else { (columns, DEPTH) }];
    let (a_count, a_length) = comptime![a_lines];
    let (b_count, b_length) = comptime![b_lines];
    let n = N::value();
    let a_stride = comptime![a_length + 8];
    let b_stride = comptime![b_length + 8];
    let mut left = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![a_count * a_stride / n], ALIGNMENT);
    let mut right = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![b_count * b_stride / n], ALIGNMENT);
    let mut out =
        Shared::<[Vector<f32, Four>]>::new_aligned_slice(comptime![rows * (columns + 4) / COUNT], ALIGNMENT);
    fetch::<E, N>(a, &mut left, a_count, a_length, form.units);
    fetch::<E, N>(b, &mut right, b_count, b_length, form.units);
    sync_cube();
    let mut tile = PlaneTile::zero(form);
    for k in 0..comptime![DEPTH / SIDE] {
        let a_step = comptime![SIDE * if a_layout == MatrixLayout::RowMajor { 1 } else { a_stride } / n];
        let b_step = comptime![SIDE * if b_layout == MatrixLayout::RowMajor { b_stride } else { 1 } / n];
        tile.multiply_add::<E, E, N, E, N>(
            &left[k * a_step..left.len()],
            a_stride,
            a_layout,
            &right[k * b_step..right.len()],
            b_stride,
            b_layout,
            [1, 1],
        );
    }
    tile.store(&mut out, comptime![columns + 4]);
    sync_cube();
    let mut i = UNIT_POS_X as usize;
    while i < comptime![rows * columns] {
        let place = i / columns * comptime![columns + 4] + i % columns;
        y[i] = neighbours::<f32, Four, Const<1>>(&out[0usize..out.len()], place).extract(0usize);
        i += form.units;
    }
}

/// A matrix in one order of memory; the other way round to the outside where it is column-major.
fn lines(x: &Tensor<2>, layout: MatrixLayout) -> Tensor<2> {
    if layout == MatrixLayout::RowMajor { x.clone() } else { laid(&x.clone().swap_dims(0, 1)) }
}

fn compare(device: &Device, dtype: DType, form: TileForm, layouts: [MatrixLayout; 2], n: usize) {
    let a = seeded_input::<2>("a", [form.rows * SIDE, DEPTH], device).cast(dtype);
    let b = seeded_input::<2>("b", [DEPTH, form.columns * SIDE], device).cast(dtype);
    let [left, right] = [(&a, layouts[0]), (&b, layouts[1])].map(|(x, layout)| lines(x, layout));
    // CUDA pads rows.
    let [left, right] = [left, right].map(|x| into_contiguous(primitive(&x).expect("on the device")));
    let client = left.client.clone();
    let shape = Shape::from([form.rows * SIDE, form.columns * SIDE]);
    let y = empty_device_contiguous_dtype(client.clone(), left.device.clone(), shape, DType::F32);
    // SAFETY: the matrices are of the form's sizes.
    unsafe {
        product::launch_unchecked(
            &client,
            CubeCount::new_single(),
            CubeDim::new_1d(form.units as u32),
            n,
            left.into_buffer_arg(),
            right.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            form,
            layouts[0],
            layouts[1],
            dtype_to_storage_type(dtype),
        );
    }
    let y = tensor::<2>(y).expect("the device's tensor");
    let name = format!("{form:?} {layouts:?} {dtype:?}, vectors of {n}");
    // Sums are in f32 whatever the operands are.
    assert_close(&name, &y, &exact(&a).matmul(exact(&b)), 1e-5);
}

#[test]
fn a_tile_is_a_product() {
    let Some(device) = device() else { return };
    let client = primitive(&Tensor::<1>::zeros([1], &device)).expect("on the device").client.clone();
    let plane = client.properties().hardware.plane_size_max as usize;
    let orders = [MatrixLayout::RowMajor, MatrixLayout::ColMajor];
    for (dtype, _) in types(&device) {
        let native = native(&client, dtype_to_storage_type(dtype));
        for layouts in orders.into_iter().flat_map(|a| orders.map(|b| [a, b])) {
            let emulated = [(1, 1, 8, 1), (2, 3, 32, 4), (1, 4, 64, 2)].map(|case| (case, None));
            let real = [(1, 1, plane, 4), (2, 3, plane, 1)].map(|case| (case, native));
            for ((rows, columns, units, n), native) in
                emulated.into_iter().chain(real.into_iter().filter(|_| native.is_some()))
            {
                let form = TileForm { rows, columns, units, native };
                compare(&device, dtype, form, layouts, n);
            }
        }
    }
}

//! What is done to a tile's sums where they are, by itself.

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

use super::{changes, device, exact, types};
use crate::gpu::bridge::{primitive, tensor};
use crate::gpu::fours::{COUNT, Four};
use crate::gpu::plane_tile::{ALIGNMENT, PlaneTile, SIDE, TileForm, native};

/// From here on columns are hidden.
const THERE: usize = 21;
const HIDDEN: f32 = -3.0;
const SCALE: f32 = 0.5;

/// What is done, one after the other, each to what was before: `x`, columns like the first, `x` with the last columns hidden,
/// exponentials of it, its rounded values times `b` and the sums of their rows.
const STAGES: usize = 6;

/// Fours of a tile in memory.
fn fours(form: TileForm) -> usize {
    form.rows * SIDE * stride(form) / COUNT
}

/// From a row to the next.
fn stride(form: TileForm) -> usize {
    form.columns * SIDE + COUNT
}

/// Writes so many columns of a tile to its stage of `y` `[stages, rows, columns]`.
#[cube]
fn out(
    tile: &PlaneTile,
    memory: &mut Shared<[Vector<f32, Four>]>,
    y: &mut [f32],
    #[comptime] stage: usize,
    #[comptime] form: TileForm,
    #[comptime] columns: usize,
) {
    let end = memory.len();
    sync_cube();
    tile.store(&mut memory[0usize..end], comptime![stride(form)]);
    sync_cube();
    let mut i = UNIT_POS_X as usize;
    while i < comptime![form.rows * SIDE * columns] {
        let place = i / columns * comptime![stride(form)] + i % columns;
        let start = comptime![stage * form.rows * form.columns * SIDE * SIDE];
        y[start + i / columns * comptime![form.columns * SIDE] + i % columns] =
            memory[place / COUNT].extract_dynamic(place % COUNT);
        i += form.units;
    }
}

#[cube(launch_unchecked)]
fn elements<E: Float>(
    x: &[f32],
    b: &[Vector<E, Const<1>>],
    y: &mut [f32],
    scale: f32,
    there: usize,
    #[comptime] form: TileForm,
    #[define(E)] _dtype: ElemType,
) {
    let (rows, columns) = comptime![(form.rows * SIDE, form.columns * SIDE)];
    let mut memory = Shared::<[Vector<f32, Four>]>::new_aligned_slice(comptime![fours(form)], ALIGNMENT);
    let mut column = Shared::<[f32]>::new_aligned_slice(rows, ALIGNMENT);
    let mut right = Shared::<[Vector<E, Const<1>>]>::new_aligned_slice(comptime![columns * SIDE], ALIGNMENT);
    let mut i = UNIT_POS_X as usize;
    while i < comptime![rows * columns / COUNT] {
        let mut four = Vector::<f32, Four>::new(0.0f32);
        #[unroll]
        for k in 0..COUNT {
            four.insert(k, x[i * COUNT + k]);
        }
        memory[i * COUNT / columns * comptime![stride(form) / COUNT] + i % comptime![columns / COUNT]] = four;
        i += form.units;
    }
    let mut i = UNIT_POS_X as usize;
    while i < rows {
        column[i] = x[i * columns];
        i += form.units;
    }
    let mut i = UNIT_POS_X as usize;
    while i < comptime![columns * SIDE] {
        right[i] = b[i];
        i += form.units;
    }
    sync_cube();
    let mut tile = PlaneTile::zero(form);
    tile.set_columns(&column[0usize..column.len()]);
    let mut found = PlaneTile::zero(form);
    found.load(&memory[0usize..memory.len()], comptime![stride(form)]);
    out(&found, &mut memory, y, 0usize, form, columns);
    out(&tile, &mut memory, y, 1usize, form, columns);
    found.hide(there, HIDDEN);
    out(&found, &mut memory, y, 2usize, form, columns);
    found.exponentiate(scale);
    out(&found, &mut memory, y, 3usize, form, columns);
    if comptime![form.native.is_some()] {
        let narrow = comptime![TileForm { columns: 1, ..form }];
        let rounded = found.rounded::<E>();
        let mut product = PlaneTile::zero(narrow);
        let right = &right[0usize..right.len()];
        product.add_product::<E, E, Const<1>>(&rounded, right, SIDE, MatrixLayout::RowMajor, 1usize);
        out(&product, &mut memory, y, 4usize, form, SIDE);
        let mut sums = PlaneTile::zero(narrow);
        sums.add_rows::<E>(&rounded);
        out(&sums, &mut memory, y, 5usize, form, SIDE);
    }
}

fn compare(device: &Device, dtype: DType, form: TileForm) {
    let [rows, columns] = [form.rows * SIDE, form.columns * SIDE];
    let x = seeded_input::<2>("x", [rows, columns], device);
    let b = seeded_input::<2>("b", [columns, SIDE], device).cast(dtype);
    // CUDA pads rows.
    let [of, right] = [&x, &b].map(|x| into_contiguous(primitive(x).expect("on the device")));
    let client = of.client.clone();
    let shape = Shape::from([STAGES, rows, columns]);
    let y = empty_device_contiguous_dtype(client.clone(), of.device.clone(), shape, DType::F32);
    // SAFETY: the matrices are of the form's sizes.
    unsafe {
        elements::launch_unchecked(
            &client,
            CubeCount::new_single(),
            CubeDim::new_1d(form.units as u32),
            of.into_buffer_arg(),
            right.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            SCALE,
            THERE,
            form,
            dtype_to_storage_type(dtype),
        );
    }
    let y = exact(&tensor::<3>(y).expect("the device's tensor"));
    let stage =
        |i: usize, width: usize| y.clone().slice([i..i + 1, 0..rows, 0..width]).reshape([rows, width]);
    let x = exact(&x);
    let like_the_first = x.clone().slice([0..rows, 0..1]).expand([rows, columns]);
    let shown = x.clone().slice([0..rows, 0..THERE]);
    let hidden = Tensor::cat(vec![shown, Tensor::full([rows, columns - THERE], HIDDEN, &x.device())], 1);
    let weights = (hidden.clone() * SCALE).exp();
    for (i, (what, expected, tolerance)) in [
        ("what was loaded", x, 0.0),
        ("one column", like_the_first, 0.0),
        ("hidden", hidden, 0.0),
        ("exponentials", weights.clone(), 1e-6),
    ]
    .into_iter()
    .enumerate()
    {
        assert_close(&format!("{form:?} {dtype:?}: {what}"), &stage(i, columns), &expected, tolerance);
    }
    if form.native.is_some() {
        let weights = exact(&weights.cast(dtype));
        let product = weights.clone().matmul(exact(&b));
        let sums = weights.sum_dim(1).expand([rows, SIDE]);
        // An exponential's last bit may round the other way.
        let tolerance = if dtype == DType::BF16 { 4e-3 } else { 5e-4 };
        assert_close(&format!("{form:?} {dtype:?}: product"), &stage(4, SIDE), &product, tolerance);
        assert_close(&format!("{form:?} {dtype:?}: sums"), &stage(5, SIDE), &sums, tolerance);
    }
}

#[test]
fn sums_are_changed_where_they_are() {
    let Some(device) = device() else { return };
    let client = primitive(&Tensor::<1>::zeros([1], &device)).expect("on the device").client.clone();
    let plane = client.properties().hardware.plane_size_max as usize;
    for (dtype, _) in types(&device) {
        let native = native(&client, dtype_to_storage_type(dtype)).filter(|_| changes(&client));
        let emulated = [(1, 2, 8, None), (2, 3, 32, None)];
        let real = [(1, 2, plane, native), (2, 3, plane, native)];
        for (rows, columns, units, native) in
            emulated.into_iter().chain(real.into_iter().filter(|_| native.is_some()))
        {
            compare(&device, dtype, TileForm { rows, columns, units, native });
        }
    }
}

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_test_support::{assert_close, seeded_input};

use super::{TAKEN, changes, device, exact, types};
use crate::gpu::attention::{Pass, Plan, Plans, Products, Sizes, Units};
use crate::gpu::bridge::{Gpu, client, primitive, tensor};
use crate::gpu::ops::Kernels;
use crate::gpu::{fragments, plane_tile};
use crate::{attention, gpu};

/// Batch, heads, queries, keys, width of a head.
type Case = [usize; 5];

type Inputs = [Tensor<4>; 3];

/// `[b, heads, n, d]`, as a view of `[b, n, heads * d]`.
fn split(name: &str, factor: f64, [b, heads, n, d]: [usize; 4], dtype: DType, device: &Device) -> Tensor<4> {
    let x = (seeded_input::<3>(name, [b, n, heads * d], device) * factor).cast(dtype);
    x.reshape([b, n, heads, d]).swap_dims(1, 2)
}

fn inputs([b, heads, n, m, d]: Case, dtype: DType, device: &Device) -> Inputs {
    let q = split("q", 2.0, [b, heads, n, d], dtype, device);
    let k = split("k", 2.0, [b, heads, m, d], dtype, device);
    [q, k, split("v", 1.0, [b, heads, m, d], dtype, device)]
}

fn twin(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    attention::plain(q, k, v, None)
}

/// Attention under autodiff by these units.
fn ours(by: Units) -> impl Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4> {
    move |q, k, v| gpu::autodiff::attention(&q, &k, &v, Some(by)).expect(TAKEN)
}

/// The widest heads for which fragments are emulated: wider ones would take minutes to compile.
const NARROW: usize = 24;

/// All kinds of products, by the device's matrix units where it has those for the tensor's type.
fn ways(x: &Tensor<4>) -> Vec<Units> {
    let (client, elements) =
        (client(&primitive(x).expect("on the device")), dtype_to_storage_type(x.dtype()));
    let native = plane_tile::native(&client, elements);
    // Emulated elsewhere: a CPU would compile large cubes for minutes.
    let changes = plane_tile::changes(&client);
    let tiles = Units { products: Products::Tiles, native };
    let by_elements = Units { products: Products::Elements, native: native.filter(|_| changes) };
    let fragments = Units { products: Products::Fragments, native: fragments::native(&client, elements) };
    [tiles, by_elements, fragments]
        .into_iter()
        .filter(|by| by.hardware() || by.products != Products::Fragments || x.dims()[3] <= NARROW)
        .collect()
}

/// The output and the gradients of queries, keys and values, under a loss that weighs every output differently.
fn gradients(
    f: &dyn Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    inputs: Inputs,
    loss: Tensor<4>,
) -> [Tensor<4>; 4] {
    let inputs = inputs.map(|x| x.autodiff().require_grad());
    let [q, k, v] = inputs.clone();
    let y = f(q, k, v);
    let gradients = (y.clone() * loss.autodiff()).sum().backward();
    let [dq, dk, dv] = inputs.map(|x| x.grad(&gradients).expect("a gradient"));
    [y.inner(), dq, dk, dv]
}

/// A loss for the output of these queries.
fn loss(q: &Tensor<4>) -> Tensor<4> {
    seeded_input::<4>("loss", q.dims(), &q.device()).cast(q.dtype())
}

fn assert_alike(name: &str, found: &[Tensor<4>; 4], expected: &[Tensor<4>; 4], tolerance: f64) {
    for ((of, found), expected) in ["output", "q", "k", "v"].into_iter().zip(found).zip(expected) {
        assert_close(&format!("{name}: {of}"), found, expected, tolerance);
    }
}

fn compare(name: &str, inputs: Inputs, tolerance: f64) {
    let dtype = inputs[0].dtype();
    let loss = loss(&inputs[0]);
    let expected = gradients(&twin, inputs.each_ref().map(exact), exact(&loss));
    for by in ways(&inputs[0]) {
        let name = format!("{name}, {by:?}");
        let y = gpu::attention(&inputs[0], &inputs[1], &inputs[2], Some(by)).expect(TAKEN);
        assert_close(&format!("{name}: alone"), &y, &expected[0], tolerance);
        let found = gradients(&ours(by), inputs.clone(), loss.clone());
        assert_eq!(found.each_ref().map(|x| x.dtype()), [dtype; 4]);
        assert_alike(&name, &found, &expected, tolerance);
    }
}

fn compare_all(cases: &[Case], only: impl Fn(DType) -> bool) {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in types(&device).filter(|(dtype, _)| only(*dtype)) {
        for case in cases {
            compare(&format!("{case:?} {dtype:?}"), inputs(*case, dtype, &device), tolerance);
        }
    }
}

/// One query and one key; few. What is small is what is left of larger terms, in which f16's rounding shows.
#[test]
fn attention_of_few_equals_its_twin() {
    compare_all(&[[2, 3, 5, 7, 9]], |dtype| dtype == DType::F32);
}

/// A softmax of one key is 1 whatever the score: queries and the key have no gradient.
#[test]
fn attention_of_one_key_gives_its_value() {
    let Some(device) = device() else { return };
    let inputs = inputs([1, 1, 1, 1, 3], DType::F32, &device);
    let (loss, v) = (loss(&inputs[0]), inputs[2].clone());
    for by in ways(&v) {
        let [y, dq, dk, dv] = gradients(&ours(by), inputs.clone(), loss.clone());
        assert_close(&format!("{by:?}: output"), &y, &v, 1e-6);
        assert_close(&format!("{by:?}: v"), &dv, &loss, 1e-6);
        for (of, gradient) in [("q", dq), ("k", dk)] {
            let largest = gradient.abs().max().into_scalar::<f32>();
            assert!(largest <= 1e-6, "{by:?}: {of}: {largest}");
        }
    }
}

/// A prompt's 77 keys, which are one tile, and several tiles of odd sizes.
#[test]
fn attention_equals_its_twin() {
    compare_all(&[[1, 2, 40, 77, 40], [2, 1, 37, 43, 20]], |_| true);
    compare_all(&[[2, 1, 67, 130, 64]], |dtype| dtype == DType::F32);
}

/// Vectors of one element, and blocks that the heads don't fill.
#[test]
fn attention_of_odd_heads_equals_its_twin() {
    compare_all(&[[1, 1, 50, 100, 33]], |dtype| dtype != DType::F32);
}

/// In f32 few devices have the memory for these.
#[test]
fn attention_of_the_widest_heads_equals_its_twin() {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in types(&device).filter(|(dtype, _)| *dtype != DType::F32) {
        let [q, k, v] = inputs([1, 2, 9, 20, 160], dtype, &device);
        let expected = twin(exact(&q), exact(&k), exact(&v));
        for by in ways(&q) {
            let y = gpu::attention(&q, &k, &v, Some(by)).expect(TAKEN);
            assert_close(&format!("{dtype:?} {by:?}"), &y, &expected, tolerance);
        }
    }
}

/// What each kernel would do on a device with much memory, many planes at work and another number of units: the same.
#[test]
fn any_division_of_the_work_gives_the_same() {
    let Some(device) = device() else { return };
    let (dtype, case) = (DType::F32, [1, 1, 70, 60, 20]);
    let inputs = inputs(case, dtype, &device);
    let loss = loss(&inputs[0]);
    let expected = gradients(&twin, inputs.each_ref().map(exact), exact(&loss));
    let [_, heads, n, m, d] = case;
    let on = client(&primitive(&inputs[0]).expect("on the device"));
    let [tiles, elements, fragments] = [Products::Tiles, Products::Elements, Products::Fragments];
    // Of tiles fewer rows than units, and more.
    for (products, planes, units, blocks, columns, shares) in [
        (tiles, 2, 64, 1, 1, 1),
        (tiles, 2, 8, 1, 2, 1),
        (tiles, 1, 32, 1, 1, 3),
        (elements, 2, 8, 1, 2, 1),
        (elements, 1, 64, 1, 1, 1),
        (fragments, 1, 32, 2, 1, 1),
        (fragments, 2, 32, 1, 2, 3),
    ] {
        let by = Units { products, native: None };
        let plans = Plans::new(&on, Sizes { heads, n, m, d, size: 4 }, dtype, Some(by)).expect(TAKEN);
        // Rows in registers, and read anew.
        let held = columns == 1;
        let plan = |plan: Plan| Plan { planes, units, blocks, columns, held, ..plan };
        let [forward, queries, keys] = [plans.forward, plans.queries, plans.keys].map(plan);
        let plans = Plans { forward, queries, keys, shares };
        let [q, k, v, g] =
            [&inputs[0], &inputs[1], &inputs[2], &loss].map(|x| primitive(x).expect("on the device"));
        let (y, logarithms) = Gpu::attention(q.clone(), k.clone(), v.clone(), plans.forward);
        let (dq, dk, dv) = Gpu::attention_backward(q, k, v, y.clone(), logarithms, g, plans);
        let found = [y, dq, dk, dv].map(|x| tensor::<4>(x).expect("the device's tensor"));
        let name = format!("{products:?}, {planes} planes of {units}, {shares} shares");
        assert_alike(&name, &found, &expected, 1e-5);
    }
}

/// Small cubes, whose kernels are compiled soon where units are a CPU's, and where there is room a large one; keys that divide into turns
/// and others.
#[test]
fn weights_may_stay_in_registers() {
    let Some(device) = device() else { return };
    let types = types(&device).filter(|(dtype, _)| *dtype != DType::F32);
    for ((dtype, tolerance), m) in types.flat_map(|of| [50, 48].map(|m| (of, m))) {
        let [q, k, v] = inputs([2, 2, 40, m, 20], dtype, &device);
        let (on, elements) = (client(&primitive(&q).expect("on the device")), dtype_to_storage_type(dtype));
        let native = plane_tile::native(&on, elements).filter(|_| changes(&on));
        let by = Units { products: Products::Elements, native };
        let sizes = Sizes { heads: 4, n: 40, m, d: 20, size: 2 };
        let plan = Plans::new(&on, sizes, dtype, Some(by)).expect(TAKEN).forward;
        let mut plans = plan.others(&on.properties().hardware, m).collect::<Vec<_>>();
        let some = [(1, 1, 1), (2, 1, 2), (1, 2, 1), (8, 1, 3)];
        plans.retain(|plan| some.contains(&(plan.planes, plan.blocks, plan.columns)));
        assert!(plans.len() >= 3, "{plans:?}");
        // As they come, of both signs, and rising from key to key.
        let rise: Vec<f32> = (0..m).map(|i| i as f32 / 4.0).collect();
        let rise = Tensor::<1>::from_floats(rise.as_slice(), &device).reshape([1, 1, m, 1]);
        let rising = (k.clone().cast(DType::F32).abs() * rise).cast(dtype);
        for (name, q, k) in [("as they come", q.clone(), k), ("rising", q.abs(), rising)] {
            let expected = twin(exact(&q), exact(&k), exact(&v));
            for plan in &plans {
                let [q, k, v] = [&q, &k, &v].map(|x| primitive(x).expect("on the device"));
                let y = tensor::<4>(Gpu::attention(q, k, v, *plan).0).expect("the device's tensor");
                let Plan { planes, blocks, columns, .. } = plan;
                let name =
                    format!("{name}, {m} keys, {dtype:?}, {planes} planes of {blocks}, {columns} columns");
                assert_close(&name, &y, &expected, tolerance);
            }
        }
    }
}

/// Products beyond f16's largest, and scores that rise from tile to tile, so that every reference is left behind.
#[test]
fn large_and_rising_scores_do_not_overflow() {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in types(&device) {
        let [q, k, v] = inputs([1, 1, 40, 150, 40], dtype, &device);
        let rise: Vec<f32> = (0..150).map(|i| i as f32 / 40.0).collect();
        let rise = Tensor::<1>::from_floats(rise.as_slice(), &device);
        let rising = (k.clone().cast(DType::F32).abs() * rise.reshape([1, 1, 150, 1])).cast(dtype);
        // Of a softmax near one key, gradients are what is left of larger terms (2.3e-3 in f16, where each is rounded).
        compare(&format!("rising {dtype:?}"), [q.clone().abs(), rising, v.clone()], 2.5 * tolerance);
        // Nearly every row has one key, and hardly a gradient: the output alone.
        let [q, k] = [q * 200.0, k * 200.0];
        let expected = twin(exact(&q), exact(&k), exact(&v));
        for by in ways(&q) {
            let y = gpu::attention(&q, &k, &v, Some(by)).expect(TAKEN);
            assert_close(&format!("large {dtype:?} {by:?}"), &y, &expected, 10.0 * tolerance);
        }
    }
}

#[test]
fn the_same_bits_every_time() {
    let Some(device) = device() else { return };
    let inputs = inputs([2, 1, 67, 130, 64], DType::F32, &device);
    for by in ways(&inputs[0]) {
        let run = || {
            let found = gradients(&ours(by), inputs.clone(), loss(&inputs[0]));
            found.map(|x| x.to_data().as_bytes().to_vec())
        };
        assert!(run() == run(), "{by:?}");
    }
}

/// Fusion shows no strides.
#[cfg(not(feature = "fusion"))]
#[test]
fn merging_heads_copies_nothing() {
    let Some(device) = device() else { return };
    let [q, k, v] = inputs([2, 3, 5, 7, 9], DType::F32, &device);
    for by in ways(&q) {
        let y = gpu::attention(&q, &k, &v, Some(by)).expect(TAKEN);
        let y = primitive(&y).expect("on the device");
        assert_eq!(&y.meta.strides()[..], [5 * 27, 9, 27, 1], "{by:?}");
    }
}

#[test]
fn what_the_kernel_does_not_take_is_left_to_burn() {
    let Some(device) = device() else { return };
    let takes = |[q, k, v]: Inputs, by| gpu::attention(&q, &k, &v, by).is_some();
    let emulated = Some(Units { products: Products::Tiles, native: None });
    // Tensors of different types; f32 without emulation; under autodiff, where another does, but not the widest heads.
    let wide = inputs([1, 1, 2, 2, 161], DType::F32, &device).map(|x| x.autodiff());
    assert!(gpu::autodiff::attention(&wide[0], &wide[1], &wide[2], emulated).is_none());
    let [q, k, v] = inputs([1, 1, 2, 2, 8], DType::F32, &device);
    assert!(!takes([q.clone(), k.clone(), v.clone().cast(DType::F16)], emulated));
    assert!(!takes([q.clone(), k.clone(), v.clone()], None));
    assert!(!takes([q, k, v].map(|x| x.autodiff()), emulated));
    assert!(!takes(inputs([1, 1, 2, 2, 8], DType::F32, &Device::flex()), emulated));
}

/// Attention as it is written, in f64 but for the result.
fn in_f64(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> Tensor<4> {
    let ([b, heads, n, d], m) = (q.dims(), k.dims()[2]);
    let [q, k, v] = [q, k, v].map(|x| x.to_data().iter::<f64>().collect::<Vec<_>>());
    let rows = |x: &[f64]| x.chunks_exact(d).map(<[f64]>::to_vec).collect::<Vec<_>>();
    let (q, k, v) = (rows(&q), rows(&k), rows(&v));
    let scale = 1.0 / (d as f64).sqrt();
    let row = |i: usize| {
        let of_head = i / n * m..(i / n + 1) * m;
        let dot = |key: &Vec<f64>| q[i].iter().zip(key).map(|(a, b)| a * b).sum::<f64>() * scale;
        let scores: Vec<f64> = k[of_head.clone()].iter().map(dot).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let shares: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let all: f64 = shares.iter().sum();
        let values = &v[of_head];
        let column = |j: usize| (shares.iter().zip(values).map(|(s, v)| s * v[j]).sum::<f64>() / all) as f32;
        (0..d).map(column).collect::<Vec<_>>()
    };
    let values: Vec<f32> = (0..b * heads * n).flat_map(row).collect();
    Tensor::from_data(TensorData::new(values, [b, heads, n, d]), &Device::flex())
}

/// Two products with f32 scores between them.
#[test]
fn attention_of_heads_beyond_the_widest_equals_its_twin() {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in types(&device) {
        for (case, factor) in
            [([2, 1, 9, 9, 200], 1.0), ([1, 2, 70, 33, 168], 1.0), ([1, 1, 40, 72, 512], 20.0)]
        {
            let [q, k, v] = inputs(case, dtype, &device);
            let q = q * factor;
            let y = gpu::attention(&q, &k, &v, Some(ways(&q)[0])).expect(TAKEN);
            assert_eq!(y.dtype(), dtype);
            // burn's f32 is 4e-5 off where heads are so wide.
            assert_close(&format!("{case:?} {dtype:?}"), &y, &in_f64(&q, &k, &v), tolerance);
        }
        // Scores of 4096 times 512, the same for all keys: beyond f16.
        let [q, k, v] = inputs([1, 1, 8, 40, 512], dtype, &device);
        let [q, k] = [q, k].map(|x| x * 0.0 + 64.0);
        let y = gpu::attention(&q, &k, &v, Some(ways(&q)[0])).expect(TAKEN);
        let mean = exact(&v).mean_dim(2).expand([1, 1, 8, 512]);
        assert_close(&format!("equal scores {dtype:?}"), &y, &mean, tolerance);
    }
}

/// What a device with 132 multiprocessors of 227 KiB would do, and that one with 48 KiB finds room.
#[test]
fn plans_follow_the_device() {
    let Some(device) = device() else { return };
    let on = client(&primitive(&Tensor::<1>::zeros([1], &device)).expect("on the device"));
    let mut properties = on.properties().hardware.clone();
    properties.num_streaming_multiprocessors = Some(132);
    (properties.plane_size_max, properties.max_units_per_cube) = (32, 1024);
    let sizes = |n, m, d| Sizes { heads: 16, n, m, d, size: 2 };
    for (limit, cases) in [
        (
            227 << 10,
            [
                ((4096, 4096, 40), [(4, 2, 4), (4, 2, 2), (4, 2, 2)]),
                ((4096, 77, 64), [(4, 2, 5), (4, 2, 2), (1, 2, 2)]),
                ((1024, 1024, 80), [(2, 2, 4), (2, 2, 2), (2, 2, 2)]),
                ((64, 64, 160), [(4, 1, 2), (4, 1, 2), (1, 1, 2)]),
            ],
        ),
        (
            48 << 10,
            [
                ((4096, 4096, 40), [(4, 2, 1), (2, 2, 2), (2, 2, 2)]),
                ((4096, 77, 64), [(4, 2, 1), (2, 2, 2), (1, 2, 2)]),
                ((1024, 1024, 80), [(2, 2, 1), (2, 2, 2), (2, 2, 2)]),
                ((64, 64, 160), [(4, 1, 1), (1, 1, 2), (1, 1, 2)]),
            ],
        ),
    ] {
        properties.max_shared_memory_size = limit;
        for ((n, m, d), expected) in cases {
            for (pass, expected) in [Pass::Forward, Pass::Queries, Pass::Keys].into_iter().zip(expected) {
                let by = Units { products: Products::Tiles, native: Some(16) };
                let plan = Plan::new(&properties, sizes(n, m, d), pass, by).expect("room");
                let found = (plan.planes, plan.blocks, plan.columns);
                assert_eq!(found, expected, "{n} {m} {d} {pass:?} in {limit}");
                if pass == Pass::Keys {
                    // A prompt's keys are few, and the queries then shared out.
                    let shares = plan.shares(&properties, sizes(n, m, d));
                    assert_eq!(shares, if m == 77 { 5 } else { 1 }, "{n} {m} {d}");
                }
            }
        }
    }
    // By elements many planes have a multiprocessor to themselves, and as many keys at a time as its memory has room for and divide all.
    for ((n, m, d), expected) in
        [((4096, 4096, 40), (8, 1, 8)), ((1024, 1024, 80), (8, 1, 4)), ((256, 256, 160), (4, 1, 4))]
    {
        let by = Units { products: Products::Elements, native: Some(16) };
        let plan = Plan::new(&properties, sizes(n, m, d), Pass::Forward, by).expect("room");
        assert_eq!((plan.planes, plan.blocks, plan.columns), expected, "{n} {m} {d} by elements");
    }
}

//! Convolutions against the plain twin, whatever the tensors' layout, with matrix units emulated where there are
//! none.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Device, Tensor};
use ldm_test_support::{assert_close, seeded_input};

use super::{TAKEN, device, exact, laid, types, work};
use crate::conv2d::{Conv2dOptions, laid_out, plain};
use crate::gpu;
use crate::gpu::autodiff::More;
use crate::gpu::bridge::{client, primitive};
use crate::gpu::conv2d::Work;

/// A convolution's sizes.
#[derive(Debug, Clone, Copy)]
struct Case {
    x: [usize; 4],
    outputs: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [[usize; 2]; 2],
}

const ONE: Case = Case { x: [1, 1, 1, 1], outputs: 1, kernel: [3, 3], stride: [1, 1], padding: [[1, 1]; 2] };

/// Small, and each with something odd: channels that vectors don't divide, maps of one pixel, few channels, kernels
/// that are no squares, padding at one side only, strides, more than one tile each way.
const CASES: [Case; 11] = [
    Case { x: [2, 32, 9, 9], outputs: 64, ..ONE },
    Case { x: [1, 20, 5, 7], outputs: 36, ..ONE },
    Case { x: [3, 7, 6, 5], outputs: 5, ..ONE },
    Case { x: [1, 4, 8, 8], outputs: 72, ..ONE },
    Case { x: [2, 72, 4, 4], outputs: 3, ..ONE },
    Case { x: [2, 40, 1, 1], outputs: 24, ..ONE },
    Case { x: [2, 36, 6, 6], outputs: 68, kernel: [1, 1], padding: [[0, 0]; 2], ..ONE },
    Case { x: [1, 16, 9, 8], outputs: 16, stride: [2, 2], padding: [[0, 1]; 2], ..ONE },
    Case { x: [1, 3, 11, 10], outputs: 8, kernel: [4, 2], stride: [3, 1], padding: [[2, 0], [0, 3]], ..ONE },
    Case { x: [1, 8, 3, 3], outputs: 4, kernel: [5, 5], padding: [[4, 4]; 2], ..ONE },
    Case { x: [2, 4, 9, 7], outputs: 320, ..ONE },
];

/// How tensors lie in memory: as they are counted, with channels (of the weights: of the input) together, or with
/// columns (of the weights: channels of the output) together and the rest turned.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Contiguous,
    ChannelsLast,
    Turned,
}

const LAYOUTS: [Layout; 3] = [Layout::Contiguous, Layout::ChannelsLast, Layout::Turned];

/// What one convolution is of.
#[derive(Debug, Clone)]
struct Tensors {
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    addend: Tensor<4>,
    options: Conv2dOptions,
}

impl Tensors {
    fn new(case: Case, dtype: DType, layout: Layout, device: &Device) -> Self {
        let ([b, c, _, _], [kh, kw]) = (case.x, case.kernel);
        let options = Conv2dOptions { stride: case.stride, padding: case.padding };
        let weights = [case.outputs, c, kh, kw];
        let output = gpu::conv2d::output(case.x, weights, options);
        assert_eq!(output[..2], [b, case.outputs]);
        let input = |name, shape| seeded_input::<4>(name, shape, device).cast(dtype);
        let (x, weight, addend) = (input("x", case.x), input("weight", weights), input("addend", output));
        let (x, weight, addend) = match layout {
            Layout::Contiguous => (x, weight, addend),
            Layout::ChannelsLast => (channels_last(&x), channels_last(&weight), channels_last(&addend)),
            Layout::Turned => {
                let outputs_last = laid(&weight.permute([2, 3, 1, 0])).permute([3, 2, 0, 1]);
                (laid(&x.swap_dims(0, 1)).swap_dims(0, 1), outputs_last, addend)
            }
        };
        let bias = seeded_input::<1>("bias", [case.outputs], device).cast(dtype);
        Self { x, weight, bias, addend, options }
    }

    /// By matrix units where the device has them, else emulated.
    fn work(&self, splits: Option<usize>) -> Work {
        let client = client(&primitive(&self.x).expect("on the device"));
        Work { splits, ..work(&client, self.x.dtype()) }
    }

    /// The kernel, in so many splits.
    fn ours(&self, splits: Option<usize>) -> Tensor<4> {
        self.with(splits, Some(&self.bias), Some(&self.addend))
    }

    fn with(&self, splits: Option<usize>, bias: Option<&Tensor<1>>, addend: Option<&Tensor<4>>) -> Tensor<4> {
        let Self { x, weight, options, .. } = self;
        assert!(gpu::takes_conv2d(x, weight, bias, *options, addend), "{TAKEN}");
        let [x, weight] = [x, weight].map(|x| primitive(x).expect(TAKEN));
        gpu::convolve(x, weight, bias, *options, None, addend, self.work(splits)).expect(TAKEN)
    }

    /// With a shift `[b, c_out]` for every picture instead of the addend.
    fn shifted(&self, splits: Option<usize>, shift: &Tensor<2>) -> Tensor<4> {
        let [x, weight] = [&self.x, &self.weight].map(|x| primitive(x).expect(TAKEN));
        let (bias, work) = (Some(&self.bias), self.work(splits));
        gpu::convolve(x, weight, bias, self.options, Some(shift), None, work).expect(TAKEN)
    }

    /// By tiles of one form.
    fn formed(&self, work: Work) -> Tensor<4> {
        let [x, weight] = [&self.x, &self.weight].map(|x| primitive(x).expect(TAKEN));
        let (bias, addend) = (Some(&self.bias), Some(&self.addend));
        gpu::convolve(x, weight, bias, self.options, None, addend, work).expect(TAKEN)
    }

    /// The twin in f32 on the CPU, without the addend.
    fn twin(&self) -> Tensor<4> {
        plain(exact(&self.x), exact(&self.weight), Some(exact(&self.bias)), self.options)
    }
}

fn channels_last(x: &Tensor<4>) -> Tensor<4> {
    laid(&x.clone().permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
}

#[test]
fn conv2d_equals_its_twin() {
    let Some(device) = device() else { return };
    for (case, layout) in CASES.into_iter().flat_map(|case| LAYOUTS.map(|layout| (case, layout))) {
        for (dtype, tolerance) in types(&device) {
            let given = Tensors::new(case, dtype, layout, &device);
            let y = given.ours(None);
            assert_eq!(y.dtype(), dtype);
            let expected = given.twin() + exact(&given.addend);
            assert_close(&format!("{case:?} {layout:?} {dtype:?}"), &y, &expected, tolerance);
        }
    }
}

/// Splits of the depth, of which the last may be shorter, and as many as there are steps.
#[test]
fn conv2d_in_splits_equals_its_twin() {
    let Some(device) = device() else { return };
    for (case, splits) in [(CASES[0], 2), (CASES[0], 5), (CASES[1], 4), (CASES[2], 2), (CASES[6], 100)] {
        for (dtype, tolerance) in types(&device) {
            let given = Tensors::new(case, dtype, Layout::ChannelsLast, &device);
            let expected = given.twin() + exact(&given.addend);
            let [whole, split] = [1, splits].map(|splits| given.ours(Some(splits)));
            let name = format!("{case:?} {dtype:?}, {splits} splits");
            assert_close(&name, &split, &expected, tolerance);
            assert_close(&format!("{name}, unsplit"), &whole, &expected, tolerance);
            let again = given.ours(Some(splits)).to_data();
            assert_eq!(again.as_bytes(), split.to_data().as_bytes(), "{name}: the same sums twice");
        }
    }
}

/// Every tile that the device has room for, more than one of it each way, whole and in splits.
#[test]
fn every_tile_equals_its_twin() {
    let Some(device) = device() else { return };
    let (mut there, mut missing) = (0, Vec::new());
    // Vectors of 4 and of 8 channels, which groups of planes want, and an output of whole blocks.
    let sizes = [(36, 9, 136), (40, 9, 136), (72, 8, 144)];
    let cases = sizes.map(|(channels, side, outputs)| Case { x: [2, channels, side, side], outputs, ..ONE });
    let layouts = cases.into_iter().flat_map(|case| LAYOUTS.map(|layout| (case, layout)));
    for ((dtype, tolerance), (case, layout)) in
        types(&device).flat_map(|t| layouts.clone().map(move |layout| (t, layout)))
    {
        let given = Tensors::new(case, dtype, layout, &device);
        let (work, expected) = (given.work(None), given.twin() + exact(&given.addend));
        for form in 0..work.forms.len() {
            if work.forms[form].is_none() {
                missing.push((form, dtype));
                continue;
            }
            for splits in [1, 3] {
                let y = given.formed(Work { form: Some(form), splits: Some(splits), ..work });
                let name = format!("tile {form}, {splits} splits, {layout:?} {dtype:?}, {:?}", case.x);
                assert_close(&name, &y, &expected, tolerance);
            }
            there += 1;
        }
    }
    missing.dedup();
    eprintln!("tiles that {device:?} has no room for: {missing:?}");
    assert!(there > 0);
}

/// Gradients by every tile, from an output's gradient with its channels together, as layers leave it.
#[test]
fn every_tiles_gradients_equal_the_twins() {
    let Some(device) = device() else { return };
    let case = Case { x: [2, 40, 7, 9], outputs: 136, ..ONE };
    for ((dtype, tolerance), layout) in
        types(&device).flat_map(|t| [Layout::ChannelsLast, Layout::Turned].map(|layout| (t, layout)))
    {
        let given = Tensors::new(case, dtype, layout, &device);
        let Tensors { x, weight, bias, addend: loss, options } = given.clone();
        // So that the gradient comes from what follows with its channels together.
        let last = |y: Tensor<4>| y.permute([0, 2, 3, 1]);
        let loss = laid(&last(loss));
        let twin = |x, w, b| last(plain(x, w, Some(b), options));
        let (_, (dx2, dw2, _)) = gradients(twin, exact(&x), exact(&weight), exact(&bias), exact(&loss));
        let work = given.work(None);
        for form in (0..work.forms.len()).filter(|form| work.forms[*form].is_some()) {
            for splits in [1, 3] {
                let work = Work { form: Some(form), splits: Some(splits), ..work };
                let ours = |x: Tensor<4>, w: Tensor<4>, b: Tensor<1>| {
                    let [x, w] = [x, w].map(|x| gpu::autodiff::node(&x).expect(TAKEN));
                    let more = More { bias: gpu::autodiff::node(&b), ..More::default() };
                    last(gpu::autodiff::convolve(x, w, more, options, work).expect(TAKEN))
                };
                let [x, weight, loss] = [&x, &weight, &loss].map(Tensor::clone);
                let (_, (dx, dw, _)) = gradients(ours, x, weight, bias.clone(), loss);
                let name = format!("tile {form}, {splits} splits, {layout:?} {dtype:?}");
                assert_close(&format!("{name}: x"), &dx, &dx2, tolerance);
                assert_close(&format!("{name}: weight"), &dw, &dw2, tolerance);
            }
        }
    }
}

/// Neither, either and both: in the product's kernel and in that which adds splits up.
#[test]
fn bias_and_addend_are_added_where_there_are() {
    let Some(device) = device() else { return };
    let given = Tensors::new(CASES[1], DType::F32, Layout::ChannelsLast, &device);
    let without = plain(exact(&given.x), exact(&given.weight), None, given.options);
    for (splits, bias, addend) in
        [1, 2].into_iter().flat_map(|n| [(n, false, false), (n, true, false), (n, false, true)])
    {
        let expected = if bias { given.twin() } else { without.clone() };
        let expected = if addend { expected + exact(&given.addend) } else { expected };
        let y = given.with(Some(splits), bias.then_some(&given.bias), addend.then_some(&given.addend));
        assert_close(&format!("{splits} splits"), &y, &expected, 1e-5);
    }
}

/// Another shift for every picture, beside the bias, in the product's kernel and in that which adds splits up.
#[test]
fn pictures_are_shifted_each_by_its_own() {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in types(&device) {
        let given = Tensors::new(CASES[0], dtype, Layout::ChannelsLast, &device);
        let shift = seeded_input::<2>("shift", [2, 64], &device).cast(dtype);
        let expected = given.twin() + exact(&shift).reshape([2, 64, 1, 1]);
        for splits in [1, 2] {
            let y = given.shifted(Some(splits), &shift);
            assert_close(&format!("{splits} splits, {dtype:?}"), &y, &expected, tolerance);
        }
        // Of few channels, and cubes with pixels of both.
        let given = Tensors::new(CASES[10], dtype, Layout::ChannelsLast, &device);
        let shift = seeded_input::<2>("shift", [2, 320], &device).cast(dtype);
        let expected = given.twin() + exact(&shift).reshape([2, 320, 1, 1]);
        assert_close(&format!("few channels, {dtype:?}"), &given.shifted(None, &shift), &expected, tolerance);
    }
}

/// Outputs that are whole blocks, which sums may leave for by matrices: more than one tile each way and tiles beyond the end, steps of
/// all of a kernel's taps, with all that is added, by every tile, whole and in splits.
#[test]
fn outputs_of_whole_blocks_equal_their_twins() {
    let Some(device) = device() else { return };
    let pointwise = Case { kernel: [1, 1], padding: [[0, 0]; 2], ..ONE };
    let cases = [
        Case { x: [2, 64, 8, 6], outputs: 144, ..ONE },
        Case { x: [3, 128, 4, 12], outputs: 80, ..pointwise },
        Case { x: [1, 136, 16, 16], outputs: 64, ..pointwise },
    ];
    for ((dtype, tolerance), case) in types(&device).flat_map(|t| cases.map(|case| (t, case))) {
        let given = Tensors::new(case, dtype, Layout::ChannelsLast, &device);
        let [b, outputs] = [case.x[0], case.outputs];
        let shift = seeded_input::<2>("shift", [b, outputs], &device).cast(dtype);
        let expected = given.twin() + exact(&given.addend);
        let shifted = expected.clone() + exact(&shift).reshape([b, outputs, 1, 1]);
        let work = given.work(None);
        let forms = (0..work.forms.len()).filter(|form| work.forms[*form].is_some());
        for (form, splits) in forms.flat_map(|form| [1, 2].map(|splits| (form, splits))) {
            let work = Work { form: Some(form), splits: Some(splits), ..work };
            let [x, weight] = [&given.x, &given.weight].map(|x| primitive(x).expect(TAKEN));
            let (bias, addend) = (Some(&given.bias), Some(&given.addend));
            let y = gpu::convolve(x, weight, bias, given.options, Some(&shift), addend, work).expect(TAKEN);
            let name = format!("{case:?}, tile {form}, {splits} splits, {dtype:?}");
            assert_close(&name, &y, &shifted, tolerance);
            assert_close(&format!("{name}, no shift"), &given.formed(work), &expected, tolerance);
        }
    }
}

/// What is added has gradients too, whole and in splits, with a bias beside it and without.
#[test]
fn what_is_added_has_gradients() {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in types(&device) {
        for (case, splits, with) in [(CASES[0], 1, true), (CASES[2], 2, false), (CASES[0], 2, true)] {
            let given = Tensors::new(case, dtype, Layout::ChannelsLast, &device);
            let loss = seeded_input::<4>("loss", given.addend.dims(), &device).cast(dtype);
            let shift = seeded_input::<2>("shift", [case.x[0], case.outputs], &device).cast(dtype);
            let outcome = |f: &dyn Fn([Tensor<4>; 3], Tensor<1>, Tensor<2>) -> Tensor<4>, ours: bool| {
                let there = |x: &Tensor<4>| if ours { x.clone() } else { exact(x) };
                let large =
                    [&given.x, &given.weight, &given.addend].map(|x| there(x).autodiff().require_grad());
                let (bias, shift) = (given.bias.clone(), shift.clone());
                let (bias, shift) = if ours { (bias, shift) } else { (exact(&bias), exact(&shift)) };
                let (bias, shift) = (bias.autodiff().require_grad(), shift.autodiff().require_grad());
                let y = f(large.clone(), bias.clone(), shift.clone());
                let gradients = (y.clone() * there(&loss).autodiff()).sum().backward();
                let large = large.map(|x| x.grad(&gradients).expect("a gradient"));
                let shift = shift.grad(&gradients).expect("a gradient");
                (y.inner(), large, bias.grad(&gradients), shift)
            };
            let work = given.work(Some(splits));
            let node = |x: &Tensor<4>| gpu::autodiff::node(x).expect(TAKEN);
            let ours = |[x, weight, addend]: [Tensor<4>; 3], bias: Tensor<1>, shift: Tensor<2>| {
                let more = More {
                    bias: with.then(|| gpu::autodiff::node(&bias).expect(TAKEN)),
                    shift: gpu::autodiff::node(&shift),
                    addend: gpu::autodiff::node(&addend),
                };
                gpu::autodiff::convolve(node(&x), node(&weight), more, given.options, work).expect(TAKEN)
            };
            let twin = |[x, weight, addend]: [Tensor<4>; 3], bias: Tensor<1>, shift: Tensor<2>| {
                let [b, c] = shift.dims();
                plain(x, weight, with.then_some(bias), given.options) + shift.reshape([b, c, 1, 1]) + addend
            };
            let (y, large, bias, of_shift) = outcome(&ours, true);
            let (y2, large2, bias2, of_shift2) = outcome(&twin, false);
            let name = format!("{case:?} {dtype:?}, {splits} splits");
            assert_close(&format!("{name}: output"), &y, &y2, tolerance);
            for (which, (x, x2)) in ["x", "weight", "addend"].into_iter().zip(large.iter().zip(&large2)) {
                assert_close(&format!("{name}: {which}"), x, x2, tolerance);
            }
            assert_close(&format!("{name}: shift"), &of_shift, &of_shift2, tolerance);
            assert_eq!([bias.is_some(), bias2.is_some()], [with; 2]);
            if let (Some(bias), Some(bias2)) = (bias, bias2) {
                assert_close(&format!("{name}: bias"), &bias, &bias2, tolerance);
            }
        }
    }
}

/// Sums of channels in one chunk and in several, of columns that vectors divide and don't.
#[test]
fn channels_are_added_up() {
    let Some(device) = device() else { return };
    for (dtype, tolerance) in types(&device) {
        for shape in [[2, 3, 5, 7], [1, 64, 1, 9], [3, 300, 20, 20], [2, 8, 70, 70]] {
            let x = seeded_input::<4>("x", shape, &device).cast(dtype);
            for (layout, x) in [("rows", x.clone()), ("channels last", channels_last(&x))] {
                let by_picture = exact(&x).sum_dim(3).sum_dim(2).reshape([shape[0], shape[1]]);
                let sums = |by_picture| {
                    <gpu::bridge::Gpu as gpu::ops::Kernels>::channel_sums(
                        primitive(&x).expect(TAKEN),
                        by_picture,
                    )
                };
                let found = gpu::bridge::tensor::<2>(sums(true)).expect(TAKEN);
                assert_close(&format!("{shape:?} {layout} {dtype:?}"), &found, &by_picture, tolerance);
                let found = gpu::bridge::tensor::<1>(sums(false)).expect(TAKEN);
                let all = by_picture.sum_dim(0).reshape([shape[1]]);
                assert_close(&format!("{shape:?} {layout} {dtype:?}, all"), &found, &all, tolerance);
            }
        }
    }
}

/// Weights laid out for the kernel are the same weights.
#[test]
fn laid_out_weights_keep_their_values() {
    let Some(device) = device() else { return };
    for (dtype, _) in types(&device) {
        let given = Tensors::new(CASES[1], dtype, Layout::Contiguous, &device);
        let laid = laid_out(given.weight.clone());
        assert_eq!(laid.dims(), given.weight.dims());
        assert_eq!(laid.to_data(), given.weight.to_data(), "{dtype:?}");
    }
}

/// Gradients of input, weights and bias under a loss that weighs every output differently.
type Gradients = (Tensor<4>, Tensor<4>, Tensor<1>);

fn gradients(
    f: impl Fn(Tensor<4>, Tensor<4>, Tensor<1>) -> Tensor<4>,
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    loss: Tensor<4>,
) -> (Tensor<4>, Gradients) {
    let [x, weight] = [x, weight].map(|x| x.autodiff().require_grad());
    let bias = bias.autodiff().require_grad();
    let y = f(x.clone(), weight.clone(), bias.clone());
    let gradients = (y.clone() * loss.autodiff()).sum().backward();
    let [dx, dw] = [x, weight].map(|x| x.grad(&gradients).expect("a gradient"));
    (y.inner(), (dx, dw, bias.grad(&gradients).expect("a gradient")))
}

#[test]
fn gradients_equal_the_twins() {
    let Some(device) = device() else { return };
    // Two layouts of each case, in one split and in two.
    let cases = CASES.into_iter().enumerate().flat_map(|(i, case)| [(i, case, i), (i + 1, case, i)]);
    for (layout, case, i) in cases {
        let layout = LAYOUTS[layout % LAYOUTS.len()];
        for (dtype, tolerance) in types(&device) {
            let given = Tensors::new(case, dtype, layout, &device);
            let Tensors { x, weight, bias, addend: loss, options } = given.clone();
            let twin = |x, w, b| plain(x, w, Some(b), options);
            let (exact_x, exact_weight) = (exact(&x), exact(&weight));
            let (y2, (dx2, dw2, db2)) = gradients(twin, exact_x, exact_weight, exact(&bias), exact(&loss));
            let work = given.work(Some(1 + i % 2));
            let ours = |x: Tensor<4>, w: Tensor<4>, b: Tensor<1>| {
                let [x, w] = [x, w].map(|x| gpu::autodiff::node(&x).expect(TAKEN));
                let more = More { bias: gpu::autodiff::node(&b), ..More::default() };
                gpu::autodiff::convolve(x, w, more, options, work).expect(TAKEN)
            };
            let (y, (dx, dw, db)) = gradients(ours, x, weight, bias, loss);
            assert_eq!([y.dtype(), dx.dtype(), dw.dtype(), db.dtype()], [dtype; 4]);
            let name = format!("{case:?} {layout:?} {dtype:?}");
            assert_close(&format!("{name}: output"), &y, &y2, tolerance);
            // Where padding is wider than the kernel reaches it is burn's, which may take TF32 for f32.
            let y_dims = gpu::conv2d::output(case.x, given.weight.dims(), options);
            let ours = gpu::conv2d::input_padding(case.x, given.weight.dims(), y_dims, options).is_some();
            let tolerance_x = if ours { tolerance } else { tolerance.max(1e-3) };
            assert_close(&format!("{name}: x"), &dx, &dx2, tolerance_x);
            assert_close(&format!("{name}: weight"), &dw, &dw2, tolerance);
            assert_close(&format!("{name}: bias"), &db, &db2, tolerance);
        }
    }
}

/// Without a bias, and where only the input's gradient is wanted.
#[test]
fn frozen_weights_have_no_gradient() {
    let Some(device) = device() else { return };
    let given = Tensors::new(CASES[1], DType::F32, Layout::ChannelsLast, &device);
    let x = given.x.clone().autodiff().require_grad();
    let [input, weight] = [&x, &given.weight].map(|x| gpu::autodiff::node(x).expect(TAKEN));
    let y = gpu::autodiff::convolve(input, weight, More::default(), given.options, given.work(None));
    let y = y.expect(TAKEN);
    let dx = x.grad(&y.square().sum().backward()).expect("a gradient");
    let twin = exact(&given.x).autodiff().require_grad();
    let y = plain(twin.clone(), exact(&given.weight).autodiff(), None, given.options);
    let expected = twin.grad(&y.square().sum().backward()).expect("a gradient");
    assert_close("x", &dx, &expected, 1e-5);
}

/// Fusion shows no strides.
#[cfg(not(feature = "fusion"))]
#[test]
fn conv2d_leaves_channels_last() {
    let Some(device) = device() else { return };
    let given = Tensors::new(CASES[1], DType::F32, Layout::Contiguous, &device);
    let y = primitive(&given.ours(None)).expect("on the device");
    assert_eq!(y.meta.strides()[..], [5 * 7 * 36, 1, 7 * 36, 36]);
}

/// Where the device has no matrix units or planes of few units, and in f32, layers are burn's.
#[test]
fn conv2d_is_left_to_burn_without_matrix_units() {
    let Some(device) = device() else { return };
    for (dtype, _) in types(&device) {
        let Tensors { x, weight, bias, addend, options } =
            Tensors::new(CASES[1], dtype, Layout::Contiguous, &device);
        let client = client(&primitive(&x).expect("on the device"));
        let native = gpu::plane_tile::native(&client, dtype_to_storage_type(dtype));
        let there =
            dtype != DType::F32 && native.is_some() && client.properties().hardware.plane_size_max >= 16;
        let ours = gpu::conv2d(&x, &weight, Some(&bias), options, None, Some(&addend));
        assert_eq!(ours.is_some(), there, "{dtype:?}");
    }
}

#[test]
fn what_does_not_fit_is_not_taken() {
    let Some(device) = device() else { return };
    let given = Tensors::new(CASES[1], DType::F32, Layout::Contiguous, &device);
    let Tensors { x, weight, bias, addend, options } = &given;
    assert!(gpu::takes_conv2d(x, weight, Some(bias), *options, Some(addend)));
    let unpadded = Conv2dOptions { padding: [[0, 0]; 2], ..*options };
    // An addend of another size, a kernel larger than the picture, other channels, another type.
    assert!(!gpu::takes_conv2d(x, weight, Some(bias), unpadded, Some(addend)));
    let small = x.clone().narrow(2, 0, 2);
    assert!(!gpu::takes_conv2d(&small, weight, Some(bias), unpadded, None));
    assert!(!gpu::takes_conv2d(&x.clone().narrow(1, 0, 16), weight, Some(bias), *options, None));
    assert!(!gpu::takes_conv2d(x, &weight.clone().cast(DType::F16), Some(bias), *options, None));
}

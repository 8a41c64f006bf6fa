//! 2-d convolution as one matrix product, pixels by output channels, whose left operand is read from the picture as
//! it is needed and never laid out (implicit GEMM).
//!
//! A cube makes a tile of pixels by output channels, 128x160, 128x128, 128x64, 64x128 or 64x64, in steps of 32 of the depth, which is the kernel's taps of 32 of the input's channels after those of the
//! 32 before. A step's operands come to shared memory, on CUDA copied there while the units go on, up to three
//! steps ahead; elsewhere by way of registers, one step ahead. Planes multiply, each for itself ([`product`]), or
//! on Hopper groups of four, where operands come in vectors of 16 bytes ([`group`]). Few tiles would leave most of
//! a device idle, so splits of the depth go to cubes of their own, and a second kernel adds the parts up in order:
//! the same sums every time ([`combine`]). Tile and splits are those of the least estimated time ([`plan`]).
//!
//! Tensors are read where they lie. Fast is what burn's convolutions leave: pictures with neighbouring channels
//! together (channels-last), and weights that are physically `[c_out, kh, kw, c_in]`. Pictures in rows are read an
//! element at a time, neighbouring units along a row. Weights as PyTorch keeps them are laid out anew where more than
//! one tile of pixels reads them. The output is channels-last.
//!
//! What bounds it from below: `2 b h' w' c_out c_in kh kw` operations of the matrix units, or the bytes of input,
//! weights and output, whichever takes longer. Known weaknesses:
//! - The parts of splits go through memory in f32.
//! - Where a strided convolution's output gradient is spread, the zeros between are multiplied too.
//! - A group waits for the whole cube at every step; cubes of a multiprocessor fill each other's gaps.

#[cfg(feature = "autodiff")]
mod channels;
mod combine;
mod fetch;
mod few;
mod geometry;
#[cfg(feature = "autodiff")]
mod gradient_supply;
mod group;
mod lines;
mod plan;
mod product;
mod supply;
mod tile;
#[cfg(feature = "autodiff")]
mod weights;

#[cfg(feature = "autodiff")]
pub use channels::sums;
#[cfg(all(feature = "autodiff", feature = "fusion"))]
pub use channels::sums_shape;
pub use plan::{HALF, Plan, Work};
#[cfg(feature = "autodiff")]
pub use weights::weight_gradient;

use burn::backend::cubecl::dtype_to_storage_type;
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::ir::{ElemType, UIntKind};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::{permute, reshape};
use burn_cubecl::tensor::CubeTensor;

use super::geglu;
use super::plane_tile::{Columns, SIDE, sums_of, whole};
use super::processors::processors;
use super::waiting::Missing;
use super::walk::cubes;
use crate::conv2d::Conv2dOptions;
use combine::{Parts, combine};
use fetch::Fetch;
use geometry::{Known, SizesLaunch, StridesLaunch};
use group::group_kernel;
use lines::{Lines, dims, laid_out, strided};
use plan::{CubeForm, Depth, SMALLEST};
use product::{Form, WayOut, product_kernel};

/// What the kernel is told beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Convolution {
    /// Stride and padding.
    pub options: Conv2dOptions,
    /// From a row, and a column, of the input to the next, where zeros lie between them.
    pub spread: [usize; 2],
    /// Whether the weights' taps are taken from the last to the first.
    pub mirrored: bool,
    /// What is added; any tensor stands in for what isn't there.
    pub added: Added,
    /// Whether the output is in f32, whatever the input's type.
    pub exact: bool,
    /// What the output's channels are. Several matrices are not split, and nothing is added to them; to pixels a bias alone.
    pub columns: Columns,
    /// Whether the output is GEGLU of the product: `a * gelu(b)` of its channels' halves, which a tile has side by side.
    pub gated: bool,
    /// Who does what.
    pub work: Work,
}

impl Convolution {
    /// A plain one, to which nothing is added.
    pub fn new(options: Conv2dOptions, work: Work) -> Self {
        Self {
            options,
            spread: [1, 1],
            mirrored: false,
            added: Added::default(),
            exact: false,
            columns: Columns::One,
            gated: false,
            work,
        }
    }
}

/// What is added to the output on its way out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Added {
    /// One value a channel.
    pub bias: bool,
    /// One value a picture and channel.
    pub shift: bool,
    /// One value an element.
    pub addend: bool,
}

/// Whether the device does it, and how. The kernel wants matrix units.
pub fn work(client: &Client, dtype: DType) -> Option<Work> {
    Work::new(client, dtype_to_storage_type(dtype), false)
}

/// Whether the kernel fits in the padded picture, and the output can be counted.
pub fn fits(x: [usize; 4], weight: [usize; 4], options: Conv2dOptions) -> bool {
    let fits = |i: usize| x[2 + i] + options.padding[i].iter().sum::<usize>() >= weight[2 + i];
    x[1] == weight[1]
        && weight.iter().all(|n| *n > 0)
        && options.stride.iter().all(|n| *n > 0)
        && (0..2).all(fits)
        && output(x, weight, options).iter().product::<usize>() <= i32::MAX as usize
}

/// The output's shape.
pub fn output(x: [usize; 4], weight: [usize; 4], options: Conv2dOptions) -> [usize; 4] {
    spread_output(x, weight, options, [1, 1])
}

/// The output's shape, where the input is spread.
fn spread_output(
    x: [usize; 4],
    weight: [usize; 4],
    options: Conv2dOptions,
    spread: [usize; 2],
) -> [usize; 4] {
    let side = |i: usize| {
        let padded = spread_side(x[2 + i], spread[i]) + options.padding[i].iter().sum::<usize>();
        (padded - weight[2 + i]) / options.stride[i] + 1
    };
    [x[0], weight[0], side(0), side(1)]
}

/// Rows or columns with zeros between them.
fn spread_side(n: usize, spread: usize) -> usize {
    (n - 1) * spread + 1
}

/// The padding with which the output's gradient, spread by the stride, makes the input's with the mirrored weights;
/// `None` where the padding is wider than the kernel reaches.
#[cfg(feature = "autodiff")]
pub fn input_padding(
    x: [usize; 4],
    weight: [usize; 4],
    y: [usize; 4],
    options: Conv2dOptions,
) -> Option<[[usize; 2]; 2]> {
    let side = |i: usize| {
        let before = options.padding[i][0];
        let after = (x[2 + i] + before).checked_sub(spread_side(y[2 + i], options.stride[i]))?;
        Some([(weight[2 + i] - 1).checked_sub(before)?, after])
    };
    Some([side(0)?, side(1)?])
}

/// [`output`] of shapes, as fusion asks for it.
#[cfg(feature = "fusion")]
pub fn shape(x: &Shape, weight: &Shape, convolution: &Convolution) -> Shape {
    let Convolution { options, spread, columns, .. } = *convolution;
    let [b, outputs, height, width] = spread_output(x.dims(), weight.dims(), options, spread);
    Shape::from(match columns {
        Columns::Pixels => [b, outputs / columns.count(), 2 * height, 2 * width],
        Columns::One | Columns::Several(_) => [b, outputs, height, width],
    })
}

/// `x` `[b, c_in, h, w]`, `weight` `[c_out, c_in, kh, kw]`, `bias` `[c_out]`, `shift` `[b, c_out]`, `addend` and
/// the result `[b, c_out, h', w']`, the result channels-last. The sizes [fit](fits).
pub fn forward(
    x: CubeTensor,
    weight: CubeTensor,
    bias: CubeTensor,
    shift: CubeTensor,
    addend: CubeTensor,
    convolution: Convolution,
) -> CubeTensor {
    let Convolution { options, spread, mirrored, added, exact, columns, gated, work } = convolution;
    let (x, weight) = (strided(x), strided(weight));
    let (x_dims, w_dims) = (dims(&x), dims(&weight));
    let y_dims = spread_output(x_dims, w_dims, options, spread);
    let [b, outputs, height, width] = y_dims;
    let shape = match columns {
        Columns::Pixels => [b, 2 * height, 2 * width, outputs / columns.count()],
        Columns::One | Columns::Several(_) => [b, height, width, if gated { outputs / 2 } else { outputs }],
    };
    let bias = if added.bias { into_contiguous(bias) } else { bias };
    let shift = if added.shift { into_contiguous(shift) } else { shift };
    let addend = if added.addend { into_contiguous(permute(addend, &[0, 2, 3, 1])) } else { addend };

    if few::takes(w_dims, &convolution) {
        let parts = Parts::new(&x, [b, height, width, outputs], x.dtype, 1);
        let sizes = SizesLaunch::of(sizes(x_dims, w_dims, y_dims, options, spread));
        return permute(few::forward(x, weight, [bias, shift, addend], parts, added, sizes), &[0, 3, 1, 2]);
    }
    let client = x.client.clone();
    let rows = b * height * width;
    let depth = Depth { taps: w_dims[2] * w_dims[3], channels: w_dims[1] };
    // Where more than one tile reads them.
    let weight = laid_out(weight, rows > SMALLEST);
    let (from, taps) = (Lines::pixels(&x), Lines::weights(&weight));
    let [from, taps] = if work.packs { Lines::packed([from, taps]) } else { [from, taps] };
    let plan = work.plan(&client, [rows, outputs], depth, |form| {
        let reads = from.suits(form, from.left(form)) && taps.suits(form, taps.right(form));
        reads && divides(form, columns, outputs)
    });
    let cube = plan.cube;
    let dtype = if exact { DType::F32 } else { x.dtype };
    let parts = Parts::new(&x, shape, dtype, plan.splits);
    let split = plan.splits > 1;
    let known = Known {
        sizes: sizes(x_dims, w_dims, y_dims, options, spread),
        from: from.strides(),
        taps: taps.strides(),
    };
    let form = Form {
        cube,
        x: from.left(cube),
        weight: taps.right(cube),
        mirrored,
        spread: spread != [1, 1],
        added: if split { Added::default() } else { added },
        columns,
        gated,
        missing: missing(&from, cube, w_dims, rows, options, spread),
        flat: cube.deep.is_some() && pointwise(w_dims, options, spread) && from.flat(y_dims),
        known: cube.deep.map(|_| (known, [plan.splits, plan.length])),
        inside: cube.deep.is_some()
            && rows.is_multiple_of(cube.rows())
            && outputs.is_multiple_of(cube.columns()),
        way_out: WayOut::Stage,
        packed: [1; 2],
    };
    let (way_out, packed) = way_out(&client, &form, y_dims, [x.dtype, parts.sums.dtype]);
    let form = Form { way_out, packed, ..form };
    let launch = Launch {
        x: x.clone(),
        weight,
        added: [bias.clone(), shift.clone(), addend.clone()],
        y: parts.sums.clone(),
        vectors: [from.numbers(), taps.numbers(), parts.vector],
        moved: from.moved(dtype_to_storage_type(x.dtype)),
        plan,
        form,
    };
    launch.go(known);
    permute(combine(parts, [bias, shift, addend], added), &[0, 3, 1, 2])
}

/// How the sums of a product of this form leave for an output of this shape, and how many elements of it and of the addend are moved as
/// one number. By matrices, where these can hold the types, of operands and output, and blocks don't lie across its end or that of one
/// of its pictures, which have different shifts.
fn way_out(
    client: &Client,
    form: &Form,
    [b, outputs, height, width]: [usize; 4],
    [operands, results]: [DType; 2],
) -> (WayOut, [usize; 2]) {
    if form.cube.deep.is_none() {
        return (WayOut::Stage, [1; 2]);
    }
    let sums = sums_of(client, dtype_to_storage_type(operands));
    let types = results == DType::F32 || (operands == results && sums);
    let read = !form.added.addend || sums;
    let pictures = !form.added.shift || whole(height * width, outputs);
    let lines = form.columns != Columns::Pixels || width.is_multiple_of(SIDE);
    let blocks = lines && whole(b * height * width, outputs / form.columns.count());
    if !(types && read && pictures && blocks) || form.gated {
        return (WayOut::Operands, [1; 2]);
    }
    (WayOut::Matrices, [if results == DType::F32 { 1 } else { 2 }, 2])
}

/// Whether tiles of this form are each of one of the pixels that the columns are of.
fn divides(form: CubeForm, columns: Columns, outputs: usize) -> bool {
    columns != Columns::Pixels || (outputs / columns.count()).is_multiple_of(form.columns())
}

/// Whether each pixel is its own tap.
fn pointwise(weight: [usize; 4], options: Conv2dOptions, spread: [usize; 2]) -> bool {
    let plain = Conv2dOptions { stride: [1, 1], padding: [[0; 2]; 2] };
    weight[2..] == [1, 1] && options == plain && spread == [1, 1]
}

/// What becomes of the vectors of a product's input, and of its weights, that aren't there; nobody asks where all are of all tiles and
/// steps.
fn missing(
    lines: &Lines,
    cube: CubeForm,
    weight: [usize; 4],
    rows: usize,
    options: Conv2dOptions,
    spread: [usize; 2],
) -> [Missing; 2] {
    let depth = !cube.copies && weight[1].is_multiple_of(cube.depth);
    let inside = options.padding == [[0; 2]; 2] && spread == [1, 1];
    let all = [
        depth && inside && rows.is_multiple_of(cube.rows()),
        depth && weight[0].is_multiple_of(cube.columns()),
    ];
    all.map(|all| match all {
        true => Missing::None,
        false if lines.packs_numbers() => Missing::Multiplied,
        false => Missing::Selected,
    })
}

/// How `work` would divide a convolution whose tensors lie as layers leave them, and the clocks that it is thought to take.
pub fn division(
    client: &Client,
    x: [usize; 4],
    weight: [usize; 4],
    &Convolution { options, columns, work, .. }: &Convolution,
) -> (Plan, usize) {
    let [b, outputs, height, width] = output(x, weight, options);
    let depth = Depth { taps: weight[2] * weight[3], channels: weight[1] };
    let vectors = x[1].is_multiple_of(Fetch::WIDEST);
    let plan = work.plan(client, [b * height * width, outputs], depth, |form| {
        (vectors || !(form.group || form.deep.is_some())) && divides(form, columns, outputs)
    });
    (plan, plan.time(processors(&client.properties().hardware), b * height * width * outputs))
}

/// A product's kernel and what it takes.
struct Launch {
    x: CubeTensor,
    weight: CubeTensor,
    /// Bias, shift and addend.
    added: [CubeTensor; 3],
    /// The output or its parts.
    y: CubeTensor,
    /// Numbers of a vector of input, weights and output.
    vectors: [usize; 3],
    /// The first two's.
    moved: ElemType,
    plan: Plan,
    form: Form,
}

impl Launch {
    fn go(self, Known { sizes, from, taps }: Known) {
        let sizes = SizesLaunch::of(sizes);
        let [from, taps] = [from, taps].map(StridesLaunch::of);
        let Self {
            x,
            weight,
            added: [bias, shift, addend],
            y,
            vectors: [vector, w_vector, y_vector],
            moved,
            plan,
            form,
        } = self;
        let (client, cube) = (x.client.clone(), plan.cube);
        let [inputs, outputs] = [&x, &y].map(|x| dtype_to_storage_type(x.dtype));
        let numbers = |packed: usize, elements: ElemType| {
            if packed == 1 { elements } else { ElemType::UInt(UIntKind::U32) }
        };
        let [written, added] = [numbers(form.packed[0], outputs), numbers(form.packed[1], inputs)];
        let (count, dim) = (cubes(&client, plan.cubes()), cube.dim());
        let [x, weight, bias, shift, addend, y] =
            [x, weight, bias, shift, addend, y].map(|x| x.into_buffer_arg());
        // SAFETY: what is read is in the tensors' bounds and what is written in the output's, both by comparisons;
        // cubes beyond the last tile end at once.
        unsafe {
            if cube.group {
                let sums = cube.sums();
                group_kernel::launch_unchecked(
                    &client,
                    count,
                    dim,
                    vector,
                    w_vector,
                    y_vector,
                    sums,
                    x,
                    weight,
                    bias,
                    shift,
                    addend,
                    y,
                    sizes,
                    from,
                    taps,
                    plan.splits,
                    plan.length,
                    form,
                    inputs,
                    outputs,
                );
            } else {
                product_kernel::launch_unchecked(
                    &client,
                    count,
                    dim,
                    vector,
                    w_vector,
                    y_vector,
                    x,
                    weight,
                    bias,
                    shift,
                    addend,
                    y,
                    sizes,
                    from,
                    taps,
                    plan.splits,
                    plan.length,
                    form,
                    inputs,
                    moved,
                    outputs,
                    written,
                    added,
                );
            }
        }
    }
}

/// [`linear`]'s output, as fusion asks for it.
#[cfg(feature = "fusion")]
pub fn linear_spec(x: &TensorSpec, weight: &TensorSpec, convolution: &Convolution) -> TensorSpec {
    let mut shape = x.shape.clone();
    let last = shape.num_dims() - 1;
    shape[last] = if convolution.gated { weight.shape[0] / 2 } else { weight.shape[0] };
    TensorSpec::new(shape, if convolution.exact { DType::F32 } else { x.dtype })
}

/// A linear layer as a convolution with a kernel of one pixel: `x` `[.., d_input]`, `weight` `[d_output, d_input]`,
/// `bias` `[d_output]`, `addend` `[.., d_output]` -> `[.., d_output]`.
pub fn linear(
    x: CubeTensor,
    weight: CubeTensor,
    bias: CubeTensor,
    addend: CubeTensor,
    convolution: Convolution,
) -> CubeTensor {
    let mut shape = x.meta.shape().clone();
    let last = shape.num_dims() - 1;
    let [outputs, inputs] = weight.meta.shape().dims();
    let rows = shape.num_elements() / inputs;
    shape[last] = if convolution.gated { outputs / 2 } else { outputs };
    let x = permute(reshape(x, Shape::from([1, 1, rows, inputs])), &[0, 3, 1, 2]);
    let weight = reshape(weight, Shape::from([outputs, inputs, 1, 1]));
    if convolution.gated && weight.meta.strides()[1] != 1 && inputs > 1 {
        // Pairs of rows are found where a row is read by itself.
        let convolution = Convolution { gated: false, ..convolution };
        let y = forward(x, weight.clone(), bias, weight.clone(), weight, convolution);
        let rows = reshape(permute(y, &[0, 2, 3, 1]), Shape::from([rows, outputs]));
        return reshape(geglu::forward(rows), shape);
    }
    let addend = match convolution.added.addend {
        true => permute(reshape(addend, Shape::from([1, 1, rows, outputs])), &[0, 3, 1, 2]),
        false => addend,
    };
    // There is no shift.
    let y = forward(x, weight.clone(), bias, weight, addend, convolution);
    reshape(permute(y, &[0, 2, 3, 1]), shape)
}

/// In the order of the kernel's.
fn sizes(
    x: [usize; 4],
    weight: [usize; 4],
    y: [usize; 4],
    Conv2dOptions { stride, padding }: Conv2dOptions,
    spread: [usize; 2],
) -> [usize; 15] {
    [
        x[0],
        y[2],
        y[3],
        weight[0],
        spread_side(x[2], spread[0]),
        spread_side(x[3], spread[1]),
        weight[1],
        weight[2],
        weight[3],
        stride[0],
        stride[1],
        padding[0][0],
        padding[1][0],
        spread[0],
        spread[1],
    ]
}

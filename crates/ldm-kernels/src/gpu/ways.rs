//! Ways of dividing a convolution or an attention, see [`crate::gpu_kernels::ways`].

use burn::tensor::Tensor;
use burn_cubecl::cubecl::prelude::Client;

use super::attention::{Plan, Products, Units, elements_of};
use super::bridge::{Gpu, client, primitive, tensor};
use super::conv2d::{Convolution, division, work};
use super::ops::Kernels;
use super::plane_tile::Columns;
use super::{attention_plans, takes_conv2d};
use crate::conv2d::Conv2dOptions;
use crate::gpu_kernels::{AttentionWay, Way};

/// Splits that are tried, as far as the depth allows.
const SPLITS: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];

/// `None` where the kernel does not take the tensors.
pub fn ways(x: &Tensor<4>, weight: &Tensor<4>, options: Conv2dOptions, columns: Columns) -> Option<Vec<Way>> {
    if !takes_conv2d(x, weight, None, options, None) {
        return None;
    }
    let client = client(&primitive(x)?);
    let convolution = Convolution { columns, ..Convolution::new(options, work(&client, x.dtype())?) };
    let dims = [x.dims(), weight.dims()];
    if columns == Columns::Pixels && !convolution.work.divides(dims[1][0] / columns.count()) {
        return None;
    }
    let (taken, _) = division(&client, dims[0], dims[1], &convolution);
    let mut ways = Vec::new();
    for form in 0..convolution.work.forms.len() {
        let taken = Some(taken.splits).filter(|splits| !SPLITS.contains(splits));
        for splits in SPLITS.into_iter().chain(taken) {
            ways.extend(way(&client, convolution, form, splits, dims));
        }
    }
    Some(ways)
}

/// One of them, if it can be done.
fn way(
    client: &Client,
    convolution: Convolution,
    form: usize,
    splits: usize,
    [x, weight]: [[usize; 4]; 2],
) -> Option<Way> {
    let mut told = convolution;
    (told.work.form, told.work.splits) = (Some(form), Some(splits));
    let (plan, estimate) = division(client, x, weight, &told);
    let cube = convolution.work.forms[form]?;
    // Told what can't be, it does something else.
    (plan.splits == splits && plan.cube == cube).then(|| {
        let by = if cube.group { "groups".into() } else { format!("{} planes", cube.planes()) };
        let (rows, columns, buffers) = (cube.rows(), cube.columns(), cube.buffers);
        Way {
            tile: format!("{rows}x{columns} by {by}, {buffers} buffers"),
            splits,
            estimate,
            taken: division(client, x, weight, &convolution).0 == plan,
            run: Box::new(move |x, weight| {
                let (x, weight) = (primitive(x)?, primitive(weight)?);
                // The weights stand in for what isn't added.
                let none = || weight.clone();
                tensor(Gpu::conv2d(x, weight.clone(), none(), none(), none(), told))
            }),
        }
    })
}

/// `None` where the kernel does not take the tensors.
pub fn attention_ways(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> Option<Vec<AttentionWay>> {
    let on = primitive(q)?;
    let taken = attention_plans(q, k, v, &on, None)?.forward;
    let client = client(&on);
    let way = |plan: Plan| AttentionWay {
        cube: format!(
            "{} planes of {} rows, {} keys, {:?}",
            plan.planes,
            plan.plane_rows(),
            plan.lines(),
            plan.by.products
        ),
        taken: plan == taken,
        run: Box::new(move |q, k, v| {
            let (y, _) = Gpu::attention(primitive(q)?, primitive(k)?, primitive(v)?, plan);
            tensor(y)
        }),
    };
    let by_elements = elements_of(&client, q.dtype()).and_then(|side| {
        let by = Units { products: Products::Elements, native: Some(side) };
        Some(attention_plans(q, k, v, &on, Some(by))?.forward)
    });
    let kinds = [Some(taken), by_elements.filter(|plan| plan.by != taken.by)];
    let (hardware, keys) = (&client.properties().hardware, k.dims()[2]);
    Some(kinds.into_iter().flatten().flat_map(|plan| plan.others(hardware, keys)).map(way).collect())
}

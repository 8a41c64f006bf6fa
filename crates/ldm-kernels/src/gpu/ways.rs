//! All ways of dividing a convolution, see [`crate::gpu_kernels::ways`].

use burn::tensor::Tensor;

use super::bridge::{client, primitive};
use super::conv2d::{Work, division, work};
use super::{convolve, takes_conv2d};
use crate::conv2d::Conv2dOptions;
use crate::gpu_kernels::Way;

/// Splits that are tried, as far as the depth allows.
const SPLITS: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];

/// `None` where the kernel does not take the tensors.
pub fn ways(x: &Tensor<4>, weight: &Tensor<4>, options: Conv2dOptions) -> Option<Vec<Way>> {
    if !takes_conv2d(x, weight, None, options, None) {
        return None;
    }
    let client = client(&primitive(x)?);
    let work = work(&client, x.dtype())?;
    let (x_dims, w_dims) = (x.dims(), weight.dims());
    let (taken, _) = division(&client, x_dims, w_dims, options, work);
    let way = |form: usize, splits: usize| {
        let told = Work { form: Some(form), splits: Some(splits), ..work };
        let (plan, estimate) = division(&client, x_dims, w_dims, options, told);
        // Told what can't be, it does something else.
        let so = plan.splits == splits && work.forms[form] == Some(plan.cube);
        so.then(|| Way {
            tile: format!(
                "{}x{} by {}, {} buffers",
                plan.cube.rows(),
                plan.cube.columns(),
                if plan.cube.group { "groups" } else { "planes" },
                plan.cube.buffers
            ),
            splits,
            estimate,
            taken: taken == plan,
            run: Box::new(move |x, weight| {
                convolve(primitive(x)?, primitive(weight)?, None, options, None, None, told)
            }),
        })
    };
    let forms = (0..work.forms.len()).filter(|form| work.forms[*form].is_some());
    Some(forms.flat_map(|form| SPLITS.map(|splits| way(form, splits))).flatten().collect())
}

use burn::tensor::Tensor;
use ldm_test_support::seeded_input;

use super::{TAKEN, compare, device, laid, types};
use crate::{gpu, layer_norm};

fn compare_layer_norm(name: &str, x: Tensor<3>, tolerance: f64) {
    let channels = x.dims()[2];
    let alone = |x: Tensor<3>, w: Tensor<1>, b: Tensor<1>| {
        assert!(gpu::layer_norm(&x, &w, &b, 1e-5).is_some(), "{TAKEN}");
        layer_norm(x, w, b, 1e-5)
    };
    let ours = |x: Tensor<3>, w: Tensor<1>, b: Tensor<1>| {
        assert!(gpu::autodiff::layer_norm(&x, &w, &b, 1e-5).is_some(), "{TAKEN}");
        layer_norm(x, w, b, 1e-5)
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

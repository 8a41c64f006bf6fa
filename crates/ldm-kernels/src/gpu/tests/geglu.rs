use burn::tensor::{DType, Tensor};
use ldm_test_support::{assert_close, seeded_input};

use super::{TAKEN, TWIN, device, exact, laid, types};
use crate::{geglu, gpu};

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
            if dtype == DType::F32 {
                assert_close(&format!("{name}: the twin"), &crate::geglu::plain(x.clone()), &y2, TWIN);
            }
            assert!(gpu::geglu(&x).is_some(), "{TAKEN}");
            assert_close(&format!("{name}: alone"), &geglu(x.clone()), &y2, tolerance);
            let ours = |x: Tensor<3>| {
                assert!(gpu::autodiff::geglu(&x).is_some(), "{TAKEN}");
                geglu(x)
            };
            let (y, dx) = run(&ours, x, loss);
            assert_eq!([y.dtype(), dx.dtype()], [dtype; 2]);
            assert_close(&format!("{name}: output"), &y, &y2, tolerance);
            assert_close(&format!("{name}: x"), &dx, &dx2, tolerance);
        }
    }
}

#[test]
fn what_is_far_out_or_no_number_stays_so() {
    let Some(device) = device() else { return };
    let x = Tensor::<2>::from_data([[2.0f32, 1.0, 1.0, 1.0, 1e4, -1e4, f32::NAN, -0.75]], &device);
    let y = gpu::geglu(&x).expect(TAKEN).into_data().try_to_vec::<f32>().expect("f32");
    assert_eq!(y[..2], [2e4, 0.0]);
    assert!(y[2].is_nan());
    // By erf in f64.
    assert!((y[3] - -0.169_970_5).abs() < 1e-6, "{}", y[3]);
}

use burn::tensor::{Device, Tensor};
use ldm_vae::{Tiling, VaeError};

use crate::Case;

#[test]
fn bad_pictures_and_latents_are_named() {
    let device = Device::default();
    let model = Case::diffusers("sd").config().init(&device).unwrap();
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);

    let error = model.encode(zeros([1, 3, 20, 16])).unwrap_err();
    assert_eq!(error, VaeError::Size { height: 20, width: 16, factor: 8 });
    assert!(error.to_string().contains("16x20") && error.to_string().contains("multiples of 8"));
    assert!(matches!(model.encode(zeros([1, 3, 1, 1])), Err(VaeError::Size { height: 1, width: 1, .. })));

    let error = model.encode(zeros([1, 4, 16, 16])).unwrap_err();
    assert_eq!(error.to_string(), "picture has 4 channels, the model takes 3");
    let error = model.decode(zeros([1, 3, 2, 2])).unwrap_err();
    assert_eq!(error.to_string(), "latent has 3 channels, the model takes 4");
}

#[test]
fn tiles_that_leave_gaps_are_refused() {
    let device = Device::default();
    let model = || Case::diffusers("sd").config().init(&device).unwrap();
    let tiling = |sample_min_size, latent_min_size, overlap_factor| Tiling {
        sample_min_size,
        latent_min_size,
        overlap_factor,
    };
    for bad in [
        tiling(64, 4, 0.25),
        tiling(0, 0, 0.25),
        tiling(64, 8, 1.0),
        tiling(64, 8, -0.1),
        tiling(64, 8, f64::NAN),
        tiling(40, 5, 0.25),
        tiling(64, 8, 0.99),
        tiling(8, usize::MAX, 0.25),
    ] {
        let error = model().with_tiling(Some(bad)).unwrap_err();
        assert!(matches!(error, VaeError::Tiling { .. }), "{bad:?}: {error}");
    }
    model().with_tiling(Some(tiling(64, 8, 0.5))).unwrap();
    assert_eq!(Tiling::with_latent_size(8, 8), tiling(64, 8, 0.25));
}

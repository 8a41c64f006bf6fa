use burn::tensor::{Device, Tensor};
use ldm_test_support::{Fixture, assert_close, seeded_input};
use ldm_vae::{DiagonalGaussian, VaeError};

fn gaussian(name: &str, scale: f32, device: &Device) -> DiagonalGaussian {
    let moments = seeded_input::<4>(&format!("gaussian.{name}"), [3, 8, 5, 3], device) * scale;
    DiagonalGaussian::new(moments.clone().narrow(1, 0, 4), moments.narrow(1, 4, 4)).unwrap()
}

#[test]
fn moments_and_divergences_are_the_references() {
    let device = Device::default();
    let fixture = Fixture::open("vae_gaussian");
    let latent = |name: &str| seeded_input::<4>(&format!("gaussian.{name}"), [3, 4, 5, 3], &device);
    let p = gaussian("moments", 20.0, &device);
    let [q, r] = ["other", "third"].map(|name| gaussian(name, 1.0, &device));

    let maps = [
        ("mean", p.mean()),
        ("logvar", p.logvar()),
        ("std", p.std()),
        ("var", p.var()),
        ("mode", p.mode()),
        ("sample", q.sample(latent("noise")).unwrap()),
    ];
    for (key, map) in maps {
        assert_close(key, &map, &fixture.tensor(key, &device), 1e-5);
    }
    let sums =
        [("kl", p.kl()), ("kl_from", q.kl_from(&r).unwrap()), ("nll", q.nll(latent("sample")).unwrap())];
    for (key, sum) in sums {
        assert_close(key, &sum, &fixture.tensor::<1>(key, &device), 1e-5);
    }
}

#[test]
fn a_standard_normal_diverges_from_itself_by_nothing() {
    let device = Device::default();
    let zeros = || Tensor::<4>::zeros([2, 4, 3, 3], &device);
    let standard = DiagonalGaussian::new(zeros(), zeros()).unwrap();
    let q = gaussian("other", 1.0, &device);
    let largest = |x: Tensor<1>| x.abs().max().into_scalar::<f32>();
    assert!(largest(standard.kl()) < 1e-5);
    assert!(largest(q.kl_from(&q).unwrap()) < 1e-5);
    assert!(q.kl_from(&gaussian("third", 1.0, &device)).unwrap().min().into_scalar::<f32>() > 0.0);
}

#[test]
fn shapes_must_match() {
    let device = Device::default();
    let q = gaussian("other", 1.0, &device);
    let wrong = Tensor::<4>::zeros([3, 4, 5, 4], &device);
    let error = q.sample(wrong.clone()).unwrap_err();
    assert_eq!(error.to_string(), "noise has shape [3, 4, 5, 4], expected [3, 4, 5, 3]");
    assert!(matches!(q.nll(wrong.clone()), Err(VaeError::Shape { what: "sample", .. })));
    let other = DiagonalGaussian::new(wrong.clone(), wrong.clone()).unwrap();
    assert!(matches!(q.kl_from(&other), Err(VaeError::Shape { what: "the other Gaussian", .. })));
    assert!(matches!(DiagonalGaussian::new(q.mean(), wrong), Err(VaeError::Shape { .. })));
}

//! LPIPS against taming's and the `lpips` package's.

use burn::tensor::{Device, Tensor};
use ldm_nn::weights::{WeightError, WeightFile};
use ldm_test_support::{Fixture, assert_close, seeded_input, write_weights};
use ldm_train::Lpips;

use crate::support::{difference, digest_of, renamed, seeded_lpips};

#[test]
fn distances_and_their_gradient() {
    let (device, fixture) = (Device::default(), Fixture::open("lpips"));
    let lpips = seeded_lpips(&fixture.shapes("shapes"), &device);
    let picture = |name, device: &Device| seeded_input(name, [3, 3, 40, 24], device).clamp(-1.0, 1.0);
    let a = picture("a", &device);
    let plain = lpips.forward(a.clone(), picture("b", &device));
    let b = picture("b", &device.clone().autodiff()).detach().require_grad();
    let distance = lpips.forward(a, b.clone());
    for reference in ["distance", "distance_taming"] {
        let expected = fixture.tensor(reference, &device);
        assert_close(reference, &distance.clone().inner(), &expected, 1e-4);
        assert_close(reference, &plain, &expected, 1e-4);
    }
    let gradient = b.grad(&distance.mean().backward()).unwrap().into_data();
    let gradient: Vec<f32> = gradient.iter().collect();
    for reference in ["gradient", "gradient_taming"] {
        let difference = difference("b", &gradient, &digest_of(&fixture, reference), [0.0; 2]);
        println!("{reference}: difference {difference:.2e}");
        assert!(difference <= 1e-3, "{reference}: {difference:.2e}");
    }
}

#[test]
fn flat_pictures_have_a_finite_gradient() {
    let (device, fixture) = (Device::default(), Fixture::open("lpips"));
    let lpips = seeded_lpips(&fixture.shapes("shapes"), &device);
    let white = |device: &Device| Tensor::<4>::ones([1, 3, 32, 32], device);
    let b = white(&device.clone().autodiff()).require_grad();
    for a in [white(&device), seeded_input("a", [1, 3, 32, 32], &device)] {
        let distance = lpips.forward(a, b.clone());
        let gradient = b.grad(&distance.sum().backward()).unwrap();
        assert!(gradient.is_finite().all().into_scalar::<bool>());
    }
    // Features that vanish altogether: no bias, and what the scaling layer makes zero.
    let mut lpips = lpips;
    for conv in &mut lpips.convs {
        conv.bias = None;
    }
    let zero = Tensor::<4>::from_floats([[[[-0.030]], [[-0.088]], [[-0.188]]]], &device.clone().autodiff());
    let b = zero.expand([1, 3, 16, 16]).detach().require_grad();
    let distance = lpips.forward(seeded_input("a", [1, 3, 16, 16], &device), b.clone());
    let gradient = b.grad(&distance.sum().backward()).unwrap();
    assert!(gradient.is_finite().all().into_scalar::<bool>());
}

#[test]
fn weights_come_in_two_files_or_in_a_checkpoint() {
    let (device, fixture) = (Device::default(), Fixture::open("lpips"));
    let shapes = fixture.shapes("shapes");
    let picture = |name| seeded_input(name, [1, 3, 16, 16], &device);
    let expected = seeded_lpips(&shapes, &device).forward(picture("a"), picture("b"));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_weights(&at("drawn.safetensors"), &shapes);
    let drawn = WeightFile::open(at("drawn.safetensors")).unwrap();
    // torchvision's and the package's.
    let trunk = |name: &str| {
        let (_, place) = name.split_once(".net.slice")?;
        Some(format!("features.{}", place.split_once('.')?.1))
    };
    renamed(&drawn, trunk).write(at("vgg16.safetensors")).unwrap();
    let linear = |name: &str| name.strip_prefix("lpips.").filter(|n| n.starts_with("lin")).map(String::from);
    renamed(&drawn, linear).write(at("vgg.safetensors")).unwrap();
    let two = Lpips::load(at("vgg16.safetensors"), Some(&at("vgg.safetensors")), &device).unwrap();
    assert_close("two files", &two.forward(picture("a"), picture("b")), &expected, 0.0);
    // A first stage's.
    let checkpoint = |name: &str| name.strip_prefix("lpips.").map(|n| format!("loss.perceptual_loss.{n}"));
    renamed(&drawn, checkpoint).write(at("checkpoint.safetensors")).unwrap();
    let one = Lpips::load(at("checkpoint.safetensors"), None, &device).unwrap();
    assert_close("a checkpoint", &one.forward(picture("a"), picture("b")), &expected, 0.0);

    let missing = Lpips::load(at("vgg16.safetensors"), None, &device).unwrap_err();
    assert!(matches!(missing, WeightError::Tensors { ref problems, .. } if problems.len() == 5), "{missing}");
}

//! Diffusion of the pixels themselves (the paper's f = 1), and guidance by a classifier of noisy samples.

use burn::tensor::{Device, Tensor};
use ldm::latent_diffusion::ClassifierGuidance;
use ldm::scheduler::SamplerKind;
use ldm::{Error, LatentDiffusion, LatentDiffusionConfig};
use ldm_nn::weights::{Loader, Saver, WeightFile};
use ldm_test_support::{Fixture, assert_close, seeded_input, write_weights};
use ldm_unet::{EncoderUNet, EncoderUNetConfig};

use crate::models::load;

const RUN: f64 = 1e-3;

fn model(fixture: &Fixture) -> LatentDiffusion {
    let yaml = serde_json::to_string(&fixture.json("config")).unwrap();
    load(&LatentDiffusionConfig::from_yaml(&yaml, "fixture".as_ref()).unwrap())
}

#[test]
fn pixels_are_their_own_latents() {
    let (device, fixture) = (Device::default(), Fixture::open("task_pixels"));
    let model = model(&fixture);
    let run = || model.unconditional(1).unwrap().steps(20).seed(5);
    let drawn = run().eta(1.0).run().unwrap();
    assert_close("plain", &drawn.latents, &fixture.tensor::<4>("plain", &device), RUN);
    assert_close("decoded", &drawn.pictures, &drawn.latents, 0.0);
    let plms = run().sampler(SamplerKind::Pndm).run().unwrap().latents;
    assert_close("plms", &plms, &fixture.tensor::<4>("plms", &device), RUN);
}

/// The classifier of the fixture, with the original's names.
pub fn classifier(fixture: &Fixture) -> EncoderUNet {
    let device = Device::default();
    let config = EncoderUNetConfig::from_compvis(&fixture.json("classifier")).unwrap();
    let keys = config.compvis_keys().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("classifier.safetensors");
    Saver::new().add(&config.init(&device).unwrap(), &keys, "classifier.").write(&path).unwrap();
    let file = WeightFile::open(&path).unwrap();
    let shapes: Vec<_> = file.tensors().map(|t| (t.name.clone(), t.shape.clone())).collect();
    drop(file);
    write_weights(&path, &shapes);
    let file = WeightFile::open(&path).unwrap();
    Loader::new(&keys).prefix("classifier.").load(config.init(&device).unwrap(), &file).unwrap().0
}

#[test]
fn a_classifier_of_noisy_samples_guides() {
    let (device, fixture) = (Device::default(), Fixture::open("task_pixels"));
    let (model, classifier) = (model(&fixture), classifier(&fixture));
    let t = Tensor::<1>::from_floats([1.0, 981.0], &device);
    let logits = classifier.forward(seeded_input("x", [2, 3, 8, 8], &device), t).unwrap();
    assert_close("logits", &logits, &fixture.tensor::<2>("logits", &device), 1e-4);

    let logits = |x: Tensor<4>, t: Tensor<1>| -> Result<Tensor<2>, Error> { Ok(classifier.forward(x, t)?) };
    let guidance = ClassifierGuidance::new(&logits, vec![4i64], 3.0);
    for kind in [SamplerKind::Ddim, SamplerKind::Pndm] {
        let run = model.unconditional(1).unwrap().steps(20).seed(5).sampler(kind);
        let latents = run.score_corrector(&guidance).run().unwrap().latents;
        let key = format!("guided.{kind}");
        assert_close(&key, &latents, &fixture.tensor::<4>(&key, &device), RUN);
    }
    let wrong = ClassifierGuidance::new(&logits, vec![7i64], 3.0);
    let error = model.unconditional(1).unwrap().score_corrector(&wrong).run().err().unwrap().to_string();
    assert!(error.contains("class 7") && error.contains("0..7"), "{error}");
}

//! A class-conditional model of latents, led by a classifier of noisy latents too: the paper's table 10.

use burn::tensor::{Device, Tensor};
use ldm::Error;
use ldm::latent_diffusion::ClassifierGuidance;
use ldm::scheduler::SamplerKind;
use ldm_test_support::{Fixture, assert_close};

use crate::models::published;
use crate::pixels::classifier;

const RUN: f64 = 1e-3;

#[test]
fn latents_are_guided_by_a_classifier_and_decoded() {
    let (device, fixture) = (Device::default(), Fixture::open("task_guided"));
    let (model, classifier) = (published("cin256"), classifier(&fixture));
    let logits = |x: Tensor<4>, t: Tensor<1>| -> Result<Tensor<2>, Error> { Ok(classifier.forward(x, t)?) };
    let guidance = ClassifierGuidance::new(logits, vec![4i64, 1], 30.0);
    for kind in [SamplerKind::Ddim, SamplerKind::Pndm] {
        let run = model.classes(&[207, 3], None).unwrap().latent_size(8, 8).steps(20).seed(5).sampler(kind);
        let drawn = run.clone().score_corrector(&guidance).run().unwrap();
        let expected = fixture.tensor::<4>(&format!("{kind}.latents"), &device);
        assert_close(&format!("{kind} latents"), &drawn.latents, &expected, RUN);
        if kind == SamplerKind::Ddim {
            assert_close("pictures", &drawn.pictures, &fixture.tensor::<4>("pictures", &device), RUN);
        }
        // The guidance is no detail.
        let alone = run.run().unwrap().latents;
        assert!(ldm_test_support::relative_difference(&alone, &expected) > 0.05);
    }
}

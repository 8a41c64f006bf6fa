//! The ways of conditioning that no published model takes: channels and a context at once, classes in the time embedding.

use burn::tensor::Device;
use ldm::latent_diffusion::Sampling;
use ldm::scheduler::SamplerKind;
use ldm::{LatentDiffusion, LatentDiffusionConfig};
use ldm_conditioning::Condition;
use ldm_test_support::{Fixture, assert_close, seeded_input};

use crate::models::load;

const RUN: f64 = 1e-3;

fn compare(name: &str, start: impl for<'a> Fn(&'a LatentDiffusion) -> Sampling<'a>) {
    let (device, fixture) = (Device::default(), Fixture::open("task_mechanisms"));
    let yaml = fixture.json("configs")[name].to_string();
    let model = load(&LatentDiffusionConfig::from_yaml(&yaml, "fixture".as_ref()).unwrap());
    for kind in [SamplerKind::Ddim, SamplerKind::Pndm] {
        let drawn = start(&model).steps(20).seed(5).sampler(kind).run().unwrap();
        let key = format!("{name}.{kind}.latents");
        assert_close(&key, &drawn.latents, &fixture.tensor::<4>(&key, &device), RUN);
        if kind == SamplerKind::Ddim {
            let expected = fixture.tensor::<4>(&format!("{name}.pictures"), &device);
            assert_close(&format!("{name} pictures"), &drawn.pictures, &expected, RUN);
        }
    }
}

#[test]
fn hybrid() {
    compare("hybrid", |model| {
        let channels = seeded_input("channels", [2, 2, 8, 8], model.device());
        let condition = Condition::both(Condition::Latent(channels), Condition::Classes(vec![4, 1]));
        model.conditioned(model.condition(&condition).unwrap()).unwrap()
    });
}

/// Guided away from the class that stands for none, 5.
#[test]
fn adm() {
    compare("adm", |model| model.classes(&[4, 1], Some(5)).unwrap().guidance(2.0));
}

//! A U-Net with cross-attention on ddpm.py's loss.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use ldm_nn::Conditioning;
use ldm_test_support::{Fixture, seeded_input};
use ldm_train::optim::{AdamW, AdamWConfig, Precision, gradients, trainable};
use ldm_train::{Losses, Objective, ObjectiveConfig, ObjectiveError};
use ldm_unet::{UNet, UNetConfig};

use crate::support::{compare_gradients, difference, digest_of, seeded};

struct Case {
    fixture: Fixture,
    config: UNetConfig,
    objective: Objective,
    device: Device,
}

impl Case {
    fn open() -> Self {
        let fixture = Fixture::open("train_ldm");
        let config = UNetConfig::from_compvis(&fixture.json("config")).unwrap();
        let objective: ObjectiveConfig = serde_json::from_value(fixture.json("objective")).unwrap();
        let objective = Objective::from_config(&objective).unwrap();
        Self { fixture, config, objective, device: Device::default().autodiff() }
    }

    fn unet(&self) -> UNet {
        let keys = self.config.compvis_keys().unwrap();
        let unet = self.config.init(&Device::default()).unwrap();
        seeded(unet, &keys, "", &self.fixture.shapes("shapes"))
    }

    /// The loss at one step, and the context that it was conditioned on.
    fn loss(&self, unet: &UNet, step: usize) -> (Losses, Tensor<3>) {
        let timesteps = [(step * 379 + 611) % 1000, (step * 233) % 1000];
        let shape = [2, 4, 8, 8];
        let z = seeded_input(&format!("z.{step}"), shape, &self.device);
        let noise = seeded_input(&format!("noise.{step}"), shape, &self.device);
        let context = seeded_input(&format!("context.{step}"), [2, 5, 24], &self.device).require_grad();
        let conditioning = Conditioning::context(context.clone());
        let losses = self.objective.loss(z, noise, &timesteps, None, |z_t, timesteps| {
            let t: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
            let t = Tensor::from_floats(&t[..], &self.device);
            Ok::<_, ObjectiveError>(unet.forward(z_t, t, &conditioning).unwrap())
        });
        (losses.unwrap(), context)
    }
}

fn number(loss: Tensor<1>) -> f64 {
    f64::from(loss.inner().into_scalar::<f32>())
}

#[test]
fn second_stage_gradients() {
    let case = Case::open();
    let unet = case.unet();
    let (losses, context) = case.loss(&unet, 0);
    let expected = digest_of(&case.fixture, "step.losses")[0];
    let loss = number(losses.loss.clone());
    assert!((loss / expected - 1.0).abs() <= 1e-4, "{loss}, expected {expected}");
    let mut gradients = losses.loss.backward();
    let by_context: Vec<f32> = context.grad_remove(&mut gradients).unwrap().into_data().iter().collect();
    let by_context =
        difference("context", &by_context, &digest_of(&case.fixture, "gradient.context"), [0.0; 2]);
    assert!(by_context <= 1e-3, "{by_context:.2e}");
    let gradients = GradientsParams::from_grads(gradients, &unet);
    let (keys, shapes) = (case.config.compvis_keys().unwrap(), case.fixture.shapes("shapes"));
    compare_gradients(unet, gradients, &keys, "", &case.fixture, "", &shapes);
}

#[test]
fn second_stage_twenty_steps_of_adamw() {
    let case = Case::open();
    let mut unet = case.unet().valid();
    let mut optimizer = AdamW::new(AdamWConfig::default(), &unet, &Device::default());
    let expected = digest_of(&case.fixture, "run.losses");
    assert_eq!(expected.len(), 20);
    for (step, expected) in expected.into_iter().enumerate() {
        let working = trainable(&unet, Precision::F32);
        let (losses, _) = case.loss(&working, step);
        let loss = number(losses.loss.clone());
        println!("step {step}: {loss:.6}, off by {:.1e}", (loss / expected - 1.0).abs());
        assert!((loss / expected - 1.0).abs() <= 1e-3, "step {step}: {loss}, expected {expected}");
        let found = gradients(&working, &mut losses.loss.backward());
        unet = optimizer.step(unet, found, 1e-3);
    }
}

//! L_LDM and its gradient against PyTorch (tests/reference/objective.py).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use burn::tensor::{Device, Tensor, TensorData};
use ldm_scheduler::{Error, Prediction, SamplerKind, Scheduler, SchedulerConfig};
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight};
use ldm_train::Objective;

const SHAPE: [usize; 4] = [3, 4, 5, 3];

#[test]
fn loss_and_gradient() {
    let (device, fixture) = (Device::default().autodiff(), Fixture::open("objective"));
    let timesteps: Vec<usize> = serde_json::from_value(fixture.json("timesteps")).unwrap();
    for prediction in ["epsilon", "sample", "v_prediction"] {
        let config = SchedulerConfig::from_json(&fixture.json("config").to_string()).unwrap();
        let config = config.with("prediction_type", prediction);
        let objective = Objective::of(&Scheduler::from_config(SamplerKind::Ddpm, &config).unwrap());
        let weight = |name: &str| {
            let values = seeded_weight(name, &[1, 4, 1, 1]);
            Tensor::<4>::from_data(TensorData::new(values, [1, 4, 1, 1]), &device).require_grad()
        };
        let (a, b) = (weight("a"), weight("b"));
        let (z, noise) = (seeded_input("image", SHAPE, &device), seeded_input("latent", SHAPE, &device));
        let loss = objective.loss(z, noise, &timesteps, |z_t: Tensor<4>, timesteps| {
            let t: Vec<f32> = timesteps.iter().map(|t| (*t as f32 / 1000.0).cos()).collect();
            let t = Tensor::<4>::from_data(TensorData::new(t, [3, 1, 1, 1]), &device);
            Ok::<_, Error>(a.clone() * z_t.clone() * t + b.clone() * z_t.sin())
        });
        let loss = loss.unwrap();
        let expected = |part: &str| format!("{prediction}.{part}");
        let plain = Device::default();
        assert_close(
            &expected("loss"),
            &loss.clone().inner(),
            &fixture.tensor(&expected("loss"), &plain),
            1e-6,
        );
        let gradients = loss.backward();
        for (name, weight) in [("a", a), ("b", b)] {
            let gradient = weight.grad(&gradients).expect("a gradient");
            assert_close(&expected(name), &gradient, &fixture.tensor(&expected(name), &plain), 1e-5);
        }
    }
}

#[test]
fn wrong_shapes_and_timesteps_are_named() {
    let device = Device::default();
    let scheduler = Scheduler::from_config(SamplerKind::Ddpm, &SchedulerConfig::default()).unwrap();
    let objective = Objective::new(scheduler.schedule().clone(), Prediction::Epsilon);
    let z = Tensor::<4>::zeros(SHAPE, &device);
    let loss = |timesteps: &[usize], channels: usize| {
        let output = Tensor::<4>::zeros([3, channels, 5, 3], &device);
        objective.loss(z.clone(), z.clone(), timesteps, |_, _| Ok::<_, Error>(output)).map(|_| ())
    };
    assert!(loss(&[1, 2, 3], 4).is_ok());
    assert!(matches!(loss(&[1, 2, 1000], 4), Err(Error::TimestepRange { timestep: 1000, train: 1000 })));
    assert!(matches!(loss(&[1, 2], 4), Err(Error::Shape { what: "timesteps", .. })));
    assert!(matches!(loss(&[1, 2, 3], 5), Err(Error::Shape { what: "prediction", .. })));
}

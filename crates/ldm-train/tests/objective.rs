//! The second stage's loss, its gradient and the EMA against the original code and diffusers' formulas
//! (tests/reference/objective.py).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use ldm_nn::{Linear, LinearConfig};
use ldm_scheduler::{Error, SamplerKind, Scheduler, SchedulerConfig};
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight};
use ldm_train::{Ema, EmaError, LogVar, Objective, ObjectiveConfig, ObjectiveError, offset_noise};
use serde_json::{Value, json};

const SHAPE: [usize; 4] = [4, 4, 5, 3];

fn config(value: Value) -> ObjectiveConfig {
    serde_json::from_value(value).unwrap()
}

fn seeded<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(seeded_weight(name, &shape), shape), device)
}

#[test]
fn loss_logs_and_gradients() {
    let (device, plain) = (Device::default().autodiff(), Device::default());
    let fixture = Fixture::open("objective");
    let timesteps: Vec<usize> = serde_json::from_value(fixture.json("timesteps")).unwrap();
    let t: Vec<f32> = timesteps.iter().map(|t| (*t as f32 / 1000.0).cos()).collect();
    let t = Tensor::<4>::from_data(TensorData::new(t, [4, 1, 1, 1]), &device);
    let cases: Vec<Value> = serde_json::from_value(fixture.json("cases")).unwrap();
    assert_eq!(cases.len(), 18);
    for (i, case) in cases.into_iter().enumerate() {
        let config = config(case.clone());
        let objective = Objective::from_config(&config).unwrap();
        let logvar = objective.logvar(&device).map(|logvar| {
            // As in the script: not all alike.
            let slope: Vec<f32> = (0..config.timesteps).map(|t| 0.1 * t as f32 / 1000.0).collect();
            let slope = Tensor::from_data(TensorData::new(slope, [1000]), &device);
            LogVar { logvar: Param::from_tensor((logvar.logvar.val() + slope).detach()) }
        });
        let [a, b] = ["a", "b"].map(|name| seeded(name, [1, 4, 1, 1], &device).require_grad());
        let z = seeded_input("image", SHAPE, &device);
        let noise = seeded_input("latent", SHAPE, &device);
        let offset = seeded_input("offset", [4, 4, 1, 1], &device);
        let noise = offset_noise(noise, offset, config.noise_offset).unwrap();
        let losses = objective.loss(z, noise, &timesteps, logvar.as_ref(), |z_t, _| {
            Ok::<_, ObjectiveError>(a.clone() * z_t.clone() * t.clone() + b.clone() * z_t.sin())
        });
        let losses = losses.unwrap();
        println!("{case}");
        let expected = |part: &str| fixture.tensor::<1>(&format!("{i}.{part}"), &plain);
        let close = |part: &str, actual, most| assert_close(part, &actual, &expected(part), most);
        close("loss", losses.loss.clone().inner(), 1e-5);
        for name in losses.logs.names() {
            // diffusers has no bound; ours takes its weights from f32 betas.
            match name {
                "loss_vlb" if i < 11 => close(name, losses.logs.get(name).unwrap(), 1e-4),
                "loss_vlb" => {}
                _ => close(name, losses.logs.get(name).unwrap(), 1e-5),
            }
        }
        let read = losses.logs.read();
        assert_eq!(read.last().unwrap().0, "loss");
        assert_eq!(read.last().unwrap().1, losses.loss.clone().inner().into_scalar::<f32>());

        let gradients = losses.loss.backward();
        for (name, weight) in [("a", a), ("b", b)] {
            let gradient = weight.grad(&gradients).unwrap();
            let expected = fixture.tensor(&format!("{i}.{name}"), &plain);
            assert_close(name, &gradient, &expected, 1e-5);
        }
        if let Some(LogVar { logvar }) = logvar {
            let gradient = logvar.val().grad(&gradients).unwrap();
            assert_close("logvar", &gradient, &expected("logvar_grad"), 1e-5);
        }
    }
}

#[test]
fn latents_are_scaled_by_the_first_batch() {
    let (device, fixture) = (Device::default(), Fixture::open("objective"));
    let by_std = config(json!({"scale_by_std": true}));
    let scale = by_std.latent_scale(seeded_input("image", SHAPE, &device)).unwrap();
    assert_close(
        "scale",
        &Tensor::<1>::from_data([scale as f32], &device),
        &fixture.tensor("scale", &device),
        1e-6,
    );
    let given = config(json!({"scale_factor": 0.18215}));
    assert_eq!(given.latent_scale(Tensor::zeros(SHAPE, &device)).unwrap(), 0.18215);
    let flat = by_std.latent_scale(Tensor::ones(SHAPE, &device)).unwrap_err();
    assert!(matches!(flat, ObjectiveError::Deviation { elements: 240, .. }));
}

#[test]
fn the_average_is_lit_emas() {
    let (device, fixture) = (Device::default(), Fixture::open("objective"));
    let model = |step: usize, device: &Device| Linear {
        weight: Param::from_tensor(seeded(&format!("{step}.weight"), [3, 5], device)),
        bias: Some(Param::from_tensor(seeded(&format!("{step}.bias"), [3], device))),
    };
    // A model that records gradients, and one that does not.
    for (decay, of_model) in [(0.9999, device.clone().autodiff()), (0.3, device.clone())] {
        let mut ema = Ema::new(&model(0, &of_model), decay).unwrap();
        for step in 1..=12 {
            if step == 7 {
                // What a resumed run does.
                ema = Ema::resume(ema.model().clone(), decay, ema.num_updates()).unwrap();
            }
            ema.update(&model(step, &of_model)).unwrap();
        }
        assert_eq!(ema.num_updates(), 12);
        let Linear { weight, bias } = ema.model();
        assert!(!weight.val().is_autodiff());
        let expected = |part: &str| format!("ema.{decay}.{part}");
        assert_close("weight", &weight.val(), &fixture.tensor(&expected("weight"), &device), 1e-6);
        assert_close(
            "bias",
            &bias.as_ref().unwrap().val(),
            &fixture.tensor(&expected("bias"), &device),
            1e-6,
        );

        let before = ema.model().weight.val();
        let other = ema.update(&LinearConfig::new(5, 4).init(&device)).unwrap_err();
        assert!(matches!(other, EmaError::Parameter { ref path, .. } if path == "weight" || path == "bias"));
        assert_close("unchanged", &ema.model().weight.val(), &before, 0.0);
    }
    assert_eq!(Ema::new(&model(0, &device), 1.5).unwrap_err(), EmaError::Decay(1.5));
}

#[test]
fn what_cannot_be_is_named() {
    let device = Device::default();
    let refused = |value| Objective::from_config(&config(value)).unwrap_err();
    assert!(matches!(refused(json!({"rescale_betas_zero_snr": true})), ObjectiveError::ZeroSnrEpsilon));
    for (key, value) in [
        ("snr_gamma", json!(0.0)),
        ("conditioning_dropout_prob", json!(1.5)),
        ("v_posterior", json!(-0.1)),
        ("timesteps", json!(1)),
        ("scale_factor", json!(0.0)),
    ] {
        let problem = refused(json!({key: value})).to_string();
        assert!(problem.contains(key), "{problem}");
    }
    let unknown = refused(json!({"beta_schedule": "sigmoid"})).to_string();
    assert!(unknown.contains("beta_schedule"), "{unknown}");
    let unknown = serde_json::from_value::<ObjectiveConfig>(json!({"loss_type": "huber"})).unwrap_err();
    assert!(unknown.to_string().contains("huber"), "{unknown}");

    let scheduler = Scheduler::from_config(SamplerKind::Ddpm, &SchedulerConfig::default()).unwrap();
    let objective = Objective::of(&scheduler, &ObjectiveConfig::default()).unwrap();
    let z = Tensor::<4>::zeros(SHAPE, &device);
    let loss = |timesteps: &[usize], channels: usize| {
        let output = Tensor::<4>::zeros([4, channels, 5, 3], &device);
        let denoiser = |_: Tensor<4>, _: &[usize]| Ok::<_, ObjectiveError>(output);
        objective.loss(z.clone(), z.clone(), timesteps, None, denoiser).map(|_| ())
    };
    assert!(loss(&[1, 2, 3, 4], 4).is_ok());
    let range = loss(&[1, 2, 3, 1000], 4);
    assert!(matches!(range, Err(ObjectiveError::Schedule(Error::TimestepRange { timestep: 1000, .. }))));
    assert!(matches!(
        loss(&[1, 2], 4),
        Err(ObjectiveError::Schedule(Error::Shape { what: "timesteps", .. }))
    ));
    assert!(matches!(loss(&[1, 2, 3, 4], 5), Err(ObjectiveError::Shape { what: "prediction", .. })));
    let learning = config(json!({"learn_logvar": true}));
    let learning = Objective::from_config(&learning).unwrap();
    let forgotten = learning.loss(z.clone(), z, &[1; 4], None, |z, _| Ok::<_, ObjectiveError>(z));
    assert!(matches!(forgotten, Err(ObjectiveError::LogVar { learn: true })));
}

//! Whole runs against diffusers' schedulers (tests/reference/schedulers.py).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use ldm_scheduler::{Error, NoiseSchedule, SamplerOptions, Scheduler, SchedulerConfig, TorchRng};
use ldm_test_support::{Fixture, assert_close, relative_difference, seeded_input};
use serde_json::Value;

const SHAPE: [usize; 4] = [2, 4, 5, 3];

/// The denoiser of the fixture; where the variance is learned, with its channels.
fn denoise(x: Tensor<4>, t: f32, variance: Option<&str>) -> Tensor<4> {
    let output = x.clone() * 0.6 * (t / 1000.0).cos() + (x.clone() * 2.0).sin() * 0.3 + 0.05;
    match variance {
        Some("learned") => Tensor::cat(vec![output, x.sin() * 0.01 + 0.02], 1),
        Some("learned_range") => Tensor::cat(vec![output, x.sin() * 0.5], 1),
        _ => output,
    }
}

fn config(value: &Value) -> SchedulerConfig {
    SchedulerConfig::from_json(&value.to_string()).unwrap()
}

#[test]
fn whole_runs() {
    let device = Device::default();
    let fixture = Fixture::open("schedulers");
    let cases = fixture.json("cases");
    let mut worst: BTreeMap<&str, (f64, String)> = BTreeMap::new();
    let mut failures = vec![];
    for (i, case) in cases.as_array().unwrap().iter().enumerate() {
        let kind = case["kind"].as_str().unwrap();
        let strength = case.get("strength").map_or(1.0, |s| s.as_f64().unwrap());
        let options = SamplerOptions::steps(case["steps"].as_u64().unwrap() as usize)
            .strength(strength)
            .eta(case.get("eta").map_or(0.0, |eta| eta.as_f64().unwrap()));
        let config = config(&case["config"]);
        let scheduler = Scheduler::from_config(kind.parse().unwrap(), &config).unwrap();
        let sampler = scheduler.sampler::<4>(options).unwrap();

        let path = |part: &str| fixture.tensor::<1>(case[part].as_str().unwrap(), &device).to_data();
        let timesteps = path("timesteps");
        let sigmas = path("sigmas");
        let init = case["init_noise_sigma"].as_f64().unwrap();
        let mut report = |what: &str, difference: f64, limit: f64| {
            if difference.is_nan() || difference > limit {
                failures.push(format!("{i} {what} {difference:.2e}: {case}"));
            }
        };
        let furthest = |ours: &[f32], theirs: &[f32]| {
            let pairs = ours.iter().zip(theirs);
            let furthest =
                pairs.map(|(a, b)| f64::from((a - b).abs() / b.abs().max(1.0))).fold(0.0, f64::max);
            if ours.len() == theirs.len() { furthest } else { f64::INFINITY }
        };
        report("timesteps", furthest(sampler.timesteps(), timesteps.as_slice().unwrap()), 1e-6);
        if !sampler.sigmas().is_empty() {
            report("sigmas", furthest(sampler.sigmas(), sigmas.as_slice().unwrap()), 1e-6);
        }
        report("init_noise_sigma", (f64::from(sampler.init_noise_sigma()) / init - 1.0).abs(), 1e-6);

        let latent = seeded_input("latent", SHAPE, &device);
        let x = if strength == 1.0 {
            latent * sampler.init_noise_sigma()
        } else {
            let x = sampler.add_noise(seeded_input("image", SHAPE, &device), latent).unwrap();
            let start = fixture.tensor::<4>(&format!("{i}.start"), &device);
            report("start", relative_difference(&x, &start), 1e-6);
            x
        };
        let variance = case["config"].get("variance_type").and_then(Value::as_str);
        let x =
            sampler.run(x, &mut TorchRng::new(11), |x, t| Ok::<_, Error>(denoise(x, t, variance))).unwrap();
        let expected = fixture.tensor::<4>(&format!("{i}.final"), &device);
        let difference = relative_difference(&x, &expected);
        report("final", difference, 1e-4);
        let entry = worst.entry(kind).or_default();
        if difference >= entry.0 {
            *entry = (difference, format!("case {i}, {} steps, {}", case["steps"], case["config"]));
        }
    }
    for (kind, (difference, case)) in worst {
        println!("{kind}: {difference:.2e} ({case})");
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn noise_schedules() {
    let device = Device::default();
    let fixture = Fixture::open("noise_schedules");
    for (i, value) in fixture.json("configs").as_array().unwrap().iter().enumerate() {
        let schedule = NoiseSchedule::from_config(&config(value)).unwrap();
        let expected = fixture.tensor::<1>(&format!("alphas_cumprod.{i}"), &device).to_data();
        let expected = expected.as_slice::<f32>().unwrap();
        let pairs = schedule.alphas_bar().iter().zip(expected);
        let furthest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // torch's vectorised square root is an ulp off, and rescaling takes it to every beta: 1000 ulps.
        let rescaled = value["rescale_betas_zero_snr"] == true;
        assert_eq!(schedule.len(), expected.len(), "{value}");
        assert!(furthest <= if rescaled { 1e-5 } else { 0.0 }, "{value}: {furthest:e}");
    }
}

#[test]
fn noise_and_velocity_per_item() {
    let device = Device::default();
    let fixture = Fixture::open("schedulers");
    let sd = r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}"#;
    let schedule = NoiseSchedule::from_config(&SchedulerConfig::from_json(sd).unwrap()).unwrap();
    let [_, c, h, w] = SHAPE;
    let (x0, noise): (Tensor<4>, _) =
        (seeded_input("image", [3, c, h, w], &device), seeded_input("latent", [3, c, h, w], &device));
    let timesteps: Vec<usize> = fixture.ints("per_item.timesteps").into_iter().map(|t| t as usize).collect();
    let noisy = schedule.add_noise(x0.clone(), noise.clone(), &timesteps).unwrap();
    assert_close("add_noise", &noisy, &fixture.tensor("per_item.noisy", &device), 1e-6);
    let velocity = schedule.velocity(x0.clone(), noise.clone(), &timesteps).unwrap();
    assert_close("velocity", &velocity, &fixture.tensor("per_item.velocity", &device), 1e-6);

    let error = schedule.add_noise(x0.clone(), noise.clone(), &[1000]).unwrap_err();
    assert!(matches!(error, Error::TimestepRange { timestep: 1000, train: 1000 }));
    let error = schedule.add_noise(x0.clone(), noise.clone(), &[1, 2]).unwrap_err();
    assert!(matches!(error, Error::Shape { what: "timesteps", .. }));
    let error = schedule.add_noise(x0, noise.narrow(0, 0, 2), &[1]).unwrap_err();
    assert!(matches!(error, Error::Shape { what: "noise", .. }));
}

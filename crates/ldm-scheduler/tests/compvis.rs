//! CompVis' own samplers and their choice of timesteps (tests/reference/compvis_samplers.py).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use burn::tensor::{DType, Device, Tensor};
use ldm_scheduler::{
    DenoisedFn, Error, SamplerKind, SamplerOptions, Scheduler, SchedulerConfig, TorchRng, randn,
};
use ldm_test_support::{Fixture, assert_close, seeded_input};

#[test]
fn whole_runs() {
    let (device, fixture) = (Device::default(), Fixture::open("compvis_samplers"));
    for (i, case) in fixture.json("cases").as_array().unwrap().iter().enumerate() {
        let config = SchedulerConfig::compvis(case["schedule"].as_str().unwrap(), 0.0015, 0.0195, 1000);
        let kind: SamplerKind = case["kind"].as_str().unwrap().parse().unwrap();
        let scheduler = Scheduler::from_config(kind, &config.unwrap()).unwrap();
        let options = SamplerOptions::steps(case["steps"].as_u64().unwrap() as usize)
            .eta(case["eta"].as_f64().unwrap());
        let sampler = scheduler.sampler::<4>(options).unwrap();
        // 30 steps become 31 here.
        assert_eq!(sampler.timesteps().len() as u64, case["calls"].as_u64().unwrap(), "{case}");
        let start = seeded_input("latent", [2, 4, 5, 3], &device);
        let x = sampler.run(start, &mut TorchRng::new(11), |x, t| Ok::<_, Error>(denoiser(x, t)));
        let expected = fixture.tensor::<4>(&format!("{i}.final"), &device);
        assert_close(&case.to_string(), &x.unwrap(), &expected, 1e-4);
    }
}

fn denoiser(x: Tensor<4>, t: f32) -> Tensor<4> {
    x.clone() * 0.6 * (t / 1000.0).cos() + (x * 2.0).sin() * 0.3 + 0.05
}

/// Temperature, dropout of the noise, a quantised x0, and the reference's inpainting, which shows the known part
/// through fresh noise before every step.
#[test]
fn options_of_the_reference() {
    let (device, fixture) = (Device::default(), Fixture::open("compvis_sampler_options"));
    let config = SchedulerConfig::compvis("linear", 0.0015, 0.0195, 1000).unwrap();
    for (i, case) in fixture.json("cases").as_array().unwrap().iter().enumerate() {
        let number = |key: &str, default: f64| case.get(key).map_or(default, |v| v.as_f64().unwrap());
        let kind: SamplerKind = case["kind"].as_str().unwrap().parse().unwrap();
        let options = SamplerOptions::steps(20)
            .eta(number("eta", 0.0))
            .temperature(number("temperature", 1.0))
            .noise_dropout(number("noise_dropout", 0.0));
        let mut sampler = Scheduler::from_config(kind, &config).unwrap().sampler::<4>(options).unwrap();
        let mut rng = TorchRng::new(12);
        let mut x: Tensor<4> = seeded_input("latent", [2, 4, 5, 3], &device);
        let (masked, quantized) = (case.get("mask").is_some(), case.get("quantize_x0").is_some());
        let mask = seeded_input::<4>("mask", [2, 1, 5, 3], &device).greater_elem(0.0).float();
        let mut quantize = |x0: Tensor<4>| (x0 * 2.0).round() / 2.0;
        while let Some(t) = sampler.timestep() {
            // PLMS calls its denoiser twice in the first step, and the second is no step of its own.
            if masked && !(kind == SamplerKind::Pndm && sampler.done() == 1) {
                let x0 = seeded_input("x0", [2, 4, 5, 3], &device);
                let noise = randn(&mut rng, x0.dims(), &device, DType::F32).unwrap();
                let known = sampler.add_noise(x0, noise).unwrap();
                x = known * mask.clone() + x * (mask.clone() * -1.0 + 1.0);
            }
            let output = denoiser(x.clone(), t);
            let hook: Option<DenoisedFn<'_, 4>> = if quantized { Some(&mut quantize) } else { None };
            x = sampler.step_with(output, x, &mut rng, hook).unwrap();
        }
        let expected = fixture.tensor::<4>(&format!("{i}.final"), &device);
        assert_close(&case.to_string(), &x, &expected, 1e-4);
    }
}

#[test]
fn options_out_of_range_are_errors() {
    let config = SchedulerConfig::compvis("linear", 0.0015, 0.0195, 1000).unwrap();
    let ddim = Scheduler::from_config(SamplerKind::Ddim, &config).unwrap();
    let error = |options| ddim.sampler::<4>(options).err().unwrap().to_string();
    assert!(error(SamplerOptions::steps(4).temperature(-1.0)).contains("temperature is -1"));
    assert!(error(SamplerOptions::steps(4).temperature(f64::NAN)).contains("temperature is NaN"));
    assert!(error(SamplerOptions::steps(4).noise_dropout(1.0)).contains("noise_dropout is 1"));
    let euler = Scheduler::from_config(SamplerKind::Euler, &config).unwrap();
    let mut sampler = euler.sampler::<4>(SamplerOptions::steps(4)).unwrap();
    let x = Tensor::<4>::zeros([1, 1, 4, 4], &Device::default());
    let error = sampler.step_with(x.clone(), x, &mut TorchRng::new(0), Some(&mut |x| x)).err().unwrap();
    assert!(matches!(error, Error::Denoised(SamplerKind::Euler)), "{error}");
}

#[test]
fn a_timestep_beyond_the_schedule_is_an_error() {
    let config = SchedulerConfig::compvis("linear", 0.0015, 0.0195, 1000).unwrap();
    for kind in [SamplerKind::Ddim, SamplerKind::Pndm] {
        let scheduler = Scheduler::from_config(kind, &config).unwrap();
        let error = scheduler.sampler::<4>(SamplerOptions::steps(300)).err().unwrap();
        assert!(matches!(error, Error::TimestepRange { timestep: 1000, train: 1000 }), "{error}");
    }
    // The other samplers have no such convention, and take their own.
    let scheduler = Scheduler::from_config(SamplerKind::Euler, &config).unwrap();
    assert_eq!(
        scheduler.sampler::<4>(SamplerOptions::steps(4)).unwrap().timesteps(),
        [999.0, 666.0, 333.0, 0.0]
    );
    assert!(matches!(
        SchedulerConfig::compvis("sigmoid", 0.0015, 0.0195, 1000),
        Err(Error::Value { key: "beta_schedule", .. })
    ));
}

//! CompVis' own samplers and their choice of timesteps (tests/reference/compvis_samplers.py).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use burn::tensor::{Device, Tensor};
use ldm_scheduler::{Error, SamplerKind, SamplerOptions, Scheduler, SchedulerConfig, TorchRng};
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
        let x = sampler.run(seeded_input("latent", [2, 4, 5, 3], &device), &mut TorchRng::new(11), |x, t| {
            let x: Tensor<4> = x;
            let output = x.clone() * 0.6 * (t / 1000.0).cos() + (x * 2.0).sin() * 0.3 + 0.05;
            Ok::<_, Error>(output)
        });
        let expected = fixture.tensor::<4>(&format!("{i}.final"), &device);
        assert_close(&case.to_string(), &x.unwrap(), &expected, 1e-4);
    }
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

//! Bad configs, bad options and bad steps: each an error that names what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use burn::tensor::{DType, Device, Tensor};
use ldm_scheduler::{
    Error, NativeRng, SamplerKind, SamplerOptions, Scheduler, SchedulerConfig, TorchRng, randn,
};

fn config(text: &str) -> SchedulerConfig {
    SchedulerConfig::from_json(text).unwrap()
}

/// The error of building `kind` from this config.
fn refused(kind: SamplerKind, text: &str) -> String {
    Scheduler::from_config(kind, &config(text)).expect_err(text).to_string()
}

#[test]
fn unsupported_values_are_named() {
    use SamplerKind::*;
    let table = [
        (Ddim, r#"{"beta_schedule": "sigmoid"}"#, "`beta_schedule` is \"sigmoid\""),
        (Ddim, r#"{"beta_start": -1}"#, "`beta_start` is -1"),
        (Ddim, r#"{"num_train_timesteps": 0}"#, "`num_train_timesteps` is 0"),
        (Ddim, r#"{"num_train_timesteps": 1e300}"#, "`num_train_timesteps` is 1e"),
        (Ddim, r#"{"trained_betas": [0.1, 2]}"#, "`trained_betas` is 2"),
        (Ddim, r#"{"trained_betas": "x"}"#, "`trained_betas` is \"x\""),
        (Euler, r#"{"prediction_type": "flow_prediction"}"#, "`prediction_type` is \"flow_prediction\""),
        (Pndm, r#"{"prediction_type": "sample"}"#, "`prediction_type` is \"sample\""),
        (EulerAncestral, r#"{"prediction_type": "sample"}"#, "`prediction_type` is \"sample\""),
        (Euler, r#"{"timestep_spacing": "random"}"#, "`timestep_spacing` is \"random\""),
        (Euler, r#"{"use_beta_sigmas": true}"#, "`use_beta_sigmas` is true"),
        (Heun, r#"{"use_karras_sigmas": true, "use_exponential_sigmas": true}"#, "`use_exponential_sigmas`"),
        (Euler, r#"{"final_sigmas_type": "one"}"#, "`final_sigmas_type` is \"one\""),
        (Euler, r#"{"sigma_min": 0}"#, "`sigma_min` is 0"),
        (Ddim, r#"{"thresholding": true, "dynamic_thresholding_ratio": 2}"#, "`dynamic_thresholding_ratio`"),
        (Ddim, r#"{"thresholding": true, "sample_max_value": 0.5}"#, "`sample_max_value` is 0.5"),
        (Ddpm, r#"{"variance_type": "fixed_large_log"}"#, "`variance_type` is \"fixed_large_log\""),
        (DpmSolver, r#"{"algorithm_type": "dpmsolver"}"#, "`algorithm_type` is \"dpmsolver\""),
        (DpmSolver, r#"{"solver_order": 4}"#, "`solver_order` is 4"),
        (DpmSolver, r#"{"use_lu_lambdas": true}"#, "`use_lu_lambdas` is true"),
        (DpmSolver, r#"{"variance_type": "learned_range"}"#, "`variance_type` is \"learned_range\""),
        (UniPc, r#"{"use_flow_sigmas": true}"#, "`use_flow_sigmas` is true"),
        (UniPc, r#"{"predict_x0": false}"#, "`predict_x0` is false"),
        (UniPc, r#"{"solver_type": "bh3"}"#, "`solver_type` is \"bh3\""),
        (Lcm, r#"{"original_inference_steps": 0}"#, "`original_inference_steps` is 0"),
    ];
    for (kind, text, expected) in table {
        let error = refused(kind, text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_class_is_named() {
    let unknown = Scheduler::from_model(&config(r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#));
    let error = unknown.unwrap_err().to_string();
    assert!(
        error.contains("`FlowMatchEulerDiscreteScheduler`") && error.contains("dpmpp_2m_karras"),
        "{error}"
    );
    assert!(matches!(Scheduler::from_model(&config("{}")), Err(Error::MissingClass)));
}

#[test]
fn steps_strength_and_eta() {
    for kind in SamplerKind::all() {
        let scheduler = Scheduler::from_config(kind, &config(r#"{"skip_prk_steps": true}"#)).unwrap();
        let error = |options| scheduler.sampler::<4>(options).err().expect("an error");
        let steps = SamplerOptions::steps;
        assert!(matches!(error(steps(0)), Error::ZeroSteps), "{kind}");
        assert!(matches!(error(steps(usize::MAX)), Error::TooManySteps { .. }), "{kind}");
        assert!(matches!(error(steps(10).strength(1.5)), Error::Strength(1.5)), "{kind}");
        assert!(matches!(error(steps(10).strength(f64::NAN)), Error::Strength(_)), "{kind}");
        assert!(matches!(error(steps(10).strength(0.05)), Error::NoStepLeft { .. }), "{kind}");
        assert!(matches!(error(steps(10).eta(-1.0)), Error::Eta(-1.0)), "{kind}");
    }
    let prk = Scheduler::from_config(SamplerKind::Pndm, &SchedulerConfig::default()).unwrap();
    assert!(matches!(prk.sampler::<4>(SamplerOptions::steps(3)), Err(Error::TooFewSteps { limit: 4, .. })));
    // As diffusers: leading spacing with an offset runs out of the schedule.
    let offset = Scheduler::from_config(SamplerKind::Ddim, &config(r#"{"steps_offset": 1}"#)).unwrap();
    let error = offset.sampler::<4>(SamplerOptions::steps(1000)).err().expect("an error");
    assert!(matches!(error, Error::TimestepRange { timestep: 1000, train: 1000 }));
}

#[test]
fn a_step_that_does_not_fit() {
    let device = Device::default();
    let x = Tensor::<4>::zeros([1, 4, 2, 2], &device);
    let learned = config(r#"{"variance_type": "learned"}"#);
    for kind in SamplerKind::all() {
        let config = if kind == SamplerKind::Ddpm { &learned } else { &SchedulerConfig::default() };
        let scheduler = Scheduler::from_config(kind, config).unwrap();
        let mut sampler = scheduler.sampler::<4>(SamplerOptions::steps(4)).unwrap();
        let error = sampler.step(Tensor::zeros([1, 4, 2, 3], &device), x.clone(), &mut NativeRng::new(0));
        assert!(matches!(error, Err(Error::Shape { what: "model output", .. })), "{kind}: {error:?}");
    }
    let scheduler = Scheduler::from_config(SamplerKind::Euler, &SchedulerConfig::default()).unwrap();
    let mut sampler = scheduler.sampler::<4>(SamplerOptions::steps(2)).unwrap();
    let mut x = x;
    for done in 0..2 {
        assert_eq!(sampler.done(), done);
        x = sampler.step(x.clone(), x, &mut NativeRng::new(0)).unwrap();
    }
    assert_eq!(sampler.timestep(), None);
    assert!(matches!(sampler.step(x.clone(), x, &mut NativeRng::new(0)), Err(Error::Finished(2))));

    let scheduler = Scheduler::from_config(SamplerKind::EulerAncestral, &SchedulerConfig::default()).unwrap();
    let mut sampler = scheduler.sampler::<4>(SamplerOptions::steps(2)).unwrap();
    let x = Tensor::<4>::zeros([3, 4, 2, 2], &device);
    let mut two = vec![TorchRng::new(0), TorchRng::new(1)];
    assert!(matches!(
        sampler.step(x.clone(), x, &mut two),
        Err(Error::Generators { generators: 2, batch: 3 })
    ));
}

#[test]
fn an_error_of_the_denoiser_ends_the_run() {
    #[derive(Debug)]
    enum Stop {
        Cancelled(f32),
        Scheduler,
    }
    impl From<Error> for Stop {
        fn from(_: Error) -> Self {
            Self::Scheduler
        }
    }
    let (device, mut rng) = (Device::default(), NativeRng::new(0));
    let scheduler = Scheduler::from_config(SamplerKind::Ddim, &SchedulerConfig::default()).unwrap();
    let sampler = scheduler.sampler::<4>(SamplerOptions::steps(10)).unwrap();
    let x = randn(&mut rng, [1, 4, 2, 2], &device, DType::F32).unwrap();
    let result = sampler.run(x, &mut rng, |x, t| if t < 500.0 { Err(Stop::Cancelled(t)) } else { Ok(x) });
    assert!(matches!(result, Err(Stop::Cancelled(t)) if t == 400.0), "{result:?}");
}

#[test]
fn half_precision_steps_in_f32() {
    let device = Device::default();
    if !device.supports_dtype(DType::F16) {
        return;
    }
    let scheduler = Scheduler::from_config(SamplerKind::Dpmpp2m, &SchedulerConfig::default()).unwrap();
    let run = |dtype: DType| {
        let sampler = scheduler.sampler::<4>(SamplerOptions::steps(10)).unwrap();
        let x = randn(&mut TorchRng::new(1), [1, 4, 4, 4], &device, DType::F32).unwrap();
        // The latent stays f32; only the denoiser sees halves.
        let x = sampler.run(x, &mut TorchRng::new(2), |x, _| {
            let x: Tensor<4> = x;
            Ok::<_, Error>((x.cast(dtype) * 0.5).sin())
        });
        x.unwrap()
    };
    let (half, full) = (run(DType::F16), run(DType::F32));
    assert_eq!(half.dtype(), DType::F32);
    assert!(ldm_test_support::relative_difference(&half, &full) < 1e-2);
}

#[test]
fn saved_configs_come_back() {
    let text = r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "unknown_key": [1, {"a": null}]}"#;
    let scheduler = Scheduler::from_config(SamplerKind::Dpmpp2mKarras, &config(text)).unwrap();
    let saved = SchedulerConfig::from_json(&scheduler.config().to_json()).unwrap();
    assert_eq!(saved.kind().unwrap(), SamplerKind::DpmSolver);
    assert_eq!(saved.get("use_karras_sigmas").unwrap(), true);
    assert_eq!(saved.get("unknown_key"), config(text).get("unknown_key"));
    let again = Scheduler::from_model(&saved).unwrap().sampler::<4>(SamplerOptions::steps(7)).unwrap();
    let first = scheduler.sampler::<4>(SamplerOptions::steps(7)).unwrap();
    assert_eq!((again.timesteps(), again.sigmas()), (first.timesteps(), first.sigmas()));
}

#[test]
fn stable_diffusion_mends_outdated_configs() {
    use SamplerKind::*;
    let read =
        |config: &SchedulerConfig| (config.get("steps_offset").cloned(), config.get("clip_sample").cloned());
    let outdated = config(r#"{"_class_name": "DDIMScheduler", "steps_offset": 0}"#);
    assert_eq!(read(&outdated.clone().for_stable_diffusion(Ddim)), (Some(1.into()), Some(false.into())));
    assert_eq!(read(&outdated.for_stable_diffusion(Euler)), (Some(1.into()), None));
    let silent = config(r#"{"_class_name": "DDIMScheduler"}"#);
    assert_eq!(read(&silent.for_stable_diffusion(Euler)), (None, None));

    // Inpainting's pipeline leaves clipping alone, and mends what a config says or its own class has by default.
    let clips = config(r#"{"_class_name": "DDIMScheduler", "clip_sample": true, "steps_offset": 0}"#);
    assert_eq!(read(&clips.for_stable_diffusion_inpainting(Ddim)), (Some(1.into()), Some(true.into())));
    let skips = |text: &str| {
        config(text)
            .for_stable_diffusion_inpainting(Pndm)
            .get("skip_prk_steps")
            .and_then(|skips| skips.as_bool())
    };
    assert_eq!(skips(r#"{"_class_name": "HeunDiscreteScheduler"}"#), None);
    assert_eq!(skips(r#"{"_class_name": "HeunDiscreteScheduler", "skip_prk_steps": false}"#), Some(true));
    assert_eq!(skips(r#"{"_class_name": "PNDMScheduler"}"#), Some(true));
}

//! What holds for every schedule and every sampler.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use burn::tensor::{DType, Device, Tensor};
use ldm_scheduler::{
    NativeRng, NoiseSchedule, Prediction, Sampler, SamplerKind, SamplerOptions, Scheduler, SchedulerConfig,
    randn,
};
use ldm_test_support::relative_difference;
use proptest::prelude::*;

const SHAPE: [usize; 4] = [2, 3, 4, 5];

fn filled(value: f32) -> Tensor<4> {
    Tensor::ones([1, 1, 1, 1], &Device::default()) * value
}

fn scalar(tensor: Tensor<4>) -> f64 {
    f64::from(tensor.into_data().as_slice::<f32>().unwrap()[0])
}

/// Signal and noise of the sampler's current level, by what it does to 1 and 0.
fn level(sampler: &Sampler<4>) -> (f64, f64) {
    let at = |x0, noise| scalar(sampler.add_noise(filled(x0), filled(noise)).unwrap());
    (at(1.0, 0.0), at(0.0, 1.0))
}

/// A denoiser that knows x0: the noise or the velocity in `x`, or x0 itself.
fn perfect(prediction: Prediction, x: &Tensor<4>, x0: &Tensor<4>, (signal, noise): (f64, f64)) -> Tensor<4> {
    let norm = (signal * signal + noise * noise).sqrt();
    let epsilon = (x.clone() - x0.clone() * signal) / noise;
    match prediction {
        Prediction::Epsilon => epsilon,
        Prediction::Sample => x0.clone(),
        Prediction::VPrediction => epsilon * (signal / norm) - x0.clone() * (noise / norm),
    }
}

fn config() -> impl Strategy<Value = SchedulerConfig> {
    let schedules = prop::sample::select(vec!["linear", "scaled_linear", "squaredcos_cap_v2"]);
    (schedules, 1e-4..2e-3f64, 8e-3..2e-2f64).prop_map(|(schedule, start, end)| {
        SchedulerConfig::default()
            .with("beta_schedule", schedule)
            .with("beta_start", start)
            .with("beta_end", end)
            .with("clip_sample", false)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn alpha_bar_falls_and_variance_is_kept(config in config(), steps in 2usize..1200, rescale: bool) {
        let config = config.with("num_train_timesteps", steps).with("rescale_betas_zero_snr", rescale);
        let schedule = NoiseSchedule::from_config(&config).unwrap();
        prop_assert_eq!(schedule.len(), steps);
        for pair in schedule.alphas_bar().windows(2) {
            prop_assert!(pair[0] > pair[1] && pair[1] >= 0.0 && pair[0] <= 1.0, "{:?}", pair);
        }
        if rescale {
            prop_assert_eq!(schedule.alphas_bar()[steps - 1], 0.0);
        }
        for t in [0, steps / 2, steps - 1] {
            let signal = scalar(schedule.add_noise(filled(1.0), filled(0.0), &[t]).unwrap());
            let noise = scalar(schedule.add_noise(filled(0.0), filled(1.0), &[t]).unwrap());
            prop_assert!((signal * signal + noise * noise - 1.0).abs() < 1e-6);
            // The velocity is the derivative along the circle: noise at t = 0, - x0 at the end.
            let v = scalar(schedule.velocity(filled(1.0), filled(0.0), &[t]).unwrap());
            prop_assert!((v + noise).abs() < 1e-6);
        }
    }

    #[test]
    fn a_perfect_denoiser_returns_x0_or_its_noised_form(
        config in config(),
        kind in prop::sample::select(SamplerKind::all().collect::<Vec<_>>()),
        prediction in prop::sample::select(vec!["epsilon", "v_prediction", "sample"]),
        spacing in prop::sample::select(vec!["leading", "linspace", "trailing"]),
        levels in prop::sample::select(vec!["", "use_karras_sigmas", "use_exponential_sigmas"]),
        // PRK's half steps meet the timesteps only where the stride is even.
        steps in prop::sample::select(vec![4usize, 5, 10, 20, 25, 50]),
        strength in prop::sample::select(vec![1.0, 0.75, 0.5]),
        to_the_end: bool,
        skip_prk: bool,
        eta in prop::sample::select(vec![0.0, 0.6]),
        seed: u64,
    ) {
        use SamplerKind::*;
        let device = Device::default();
        let mut config = config
            .with("prediction_type", prediction)
            .with("skip_prk_steps", skip_prk)
            .with("set_alpha_to_one", to_the_end)
            .with("final_sigmas_type", if to_the_end { "zero" } else { "sigma_min" });
        if !levels.is_empty() && !matches!(kind, Dpmpp2mKarras | Dpmpp2mSdeKarras) {
            config = config.with(levels, true);
        }
        let pndm = kind == Pndm;
        // DDIM and PNDM go T / S timesteps a step, which linspace doesn't. PNDM means outputs, which is exact
        // for the noise only; started late it takes its first entries for improved Euler's.
        let spacing = match (kind, spacing) {
            (Ddim | Pndm, "linspace") => "leading",
            _ => spacing,
        };
        prop_assume!(!(pndm && (strength < 1.0 || prediction != "epsilon")));
        // The cosine schedule's last alpha-bar is 2e-9; PNDM divides by its root, step after step.
        prop_assume!(!(pndm && config.get("beta_schedule").unwrap() == "squaredcos_cap_v2"));
        prop_assume!(!(kind == EulerAncestral && prediction == "sample"));
        // Started late, LMS weighs slopes that it doesn't have. (All of this is so in diffusers.)
        prop_assume!(!(kind == Lms && strength < 1.0));
        let config = config.with("timestep_spacing", spacing);
        let scheduler = Scheduler::from_config(kind, &config).unwrap();
        let mut sampler = scheduler.sampler::<4>(SamplerOptions::steps(steps).strength(strength).eta(eta)).unwrap();

        let mut rng = NativeRng::new(seed);
        let mut normal = || randn::<4>(&mut rng, SHAPE, &device, DType::F32).unwrap();
        let (x0, noise) = (normal(), normal());
        let mut x = sampler.add_noise(x0.clone(), noise.clone()).unwrap();
        let mut calls = 0;
        while sampler.timestep().is_some() {
            let output = perfect(scheduler.prediction(), &x, &x0, level(&sampler));
            x = sampler.step(output, x, &mut NativeRng::new(seed ^ calls)).unwrap();
            calls += 1;
        }
        prop_assert_eq!(calls as usize, sampler.timesteps().len());

        let a = f64::from(scheduler.schedule().alphas_bar()[0]);
        let sigma = ((1.0 - a) / a).sqrt();
        let expected = match kind {
            // These end at alpha-bar 1 always; LCM's jump keeps a trace of x.
            Ddpm | EulerAncestral | Heun | Lms | Lcm => x0.clone(),
            _ if to_the_end => x0.clone(),
            // What noise is left is not the first noise.
            Dpmpp2mSde | Dpmpp2mSdeKarras => return Ok(()),
            Ddim if eta > 0.0 => return Ok(()),
            Euler => x0.clone() + noise * sigma,
            _ => x0.clone() * a.sqrt() + noise * (1.0 - a).sqrt(),
        };
        let difference = relative_difference(&x, &expected);
        prop_assert!(difference < 2e-4, "{}: {:e} with {}", kind, difference, config.to_json());
    }
}

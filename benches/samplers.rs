//! One step of a sampler on the latent of a 512-pixel picture, on every backend of the build: what a step costs beside
//! the U-Net.

#![allow(clippy::expect_used, reason = "a bench ends where its sampler cannot be made")]

mod workloads;

use criterion::{Criterion, criterion_group, criterion_main};
use ldm::scheduler::{NativeRng, SamplerKind, SamplerOptions, Scheduler, SchedulerConfig};
use workloads::{Pass, Place, finish, groups, values};

/// Steps of the whole run; a run that is over starts again.
const STEPS: usize = 50;

fn bench(criterion: &mut Criterion) {
    let mut group = groups::slow(criterion, "sampler_step");
    for kind in [SamplerKind::Ddim, SamplerKind::Dpmpp2m, SamplerKind::EulerAncestral] {
        groups::everywhere(&mut group, kind.name(), |place| step(kind, place));
    }
    group.finish();
}

fn step(kind: SamplerKind, place: &Place) -> Pass {
    let config = SchedulerConfig::from_json(r#"{"beta_schedule": "scaled_linear"}"#).expect("a config");
    let scheduler = Scheduler::from_config(kind, &config).expect("a schedule");
    // The state of a sampler is f32 in any case.
    let start = values([1, 4, 64, 64], 1.0, &Place::f32(place.device.clone()));
    let output = values([1, 4, 64, 64], 0.5, place);
    let new = move || scheduler.sampler::<4>(SamplerOptions::steps(STEPS)).expect("a run");
    let (mut sampler, mut x, mut noise) = (new(), start.clone(), NativeRng::new(0));
    Box::new(move || {
        if sampler.timestep().is_none() {
            (sampler, x) = (new(), start.clone());
        }
        let input = sampler.scale_model_input(x.clone());
        x = sampler.step(output.clone(), x.clone(), &mut noise).expect("a step");
        finish(input) + finish(x.clone())
    })
}

criterion_group!(benches, bench);
criterion_main!(benches);

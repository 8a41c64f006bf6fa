use burn::module::{Module, ModuleMapper, Param};
use ldm_nn::Conditioning;
use ldm_test_support::{assert_close, relative_difference, seeded_input};
use ldm_unet::{Entry, PerLevel, UNetConfig};

use super::*;
use crate::Error;
use crate::pipeline::{Evaluator, Passes, Recorder};

/// Draws every parameter: fresh ones are zero where a branch ends.
struct Drawn(usize);

impl ModuleMapper for Drawn {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        let fan_in: usize = shape[1..].iter().product();
        self.0 += 1;
        let name = format!("parameter {}", self.0);
        let values = seeded_input(&name, shape.dims::<D>(), &param.lazy_device());
        Param::initialized(param.id, values / (fan_in as f64).sqrt())
    }
}

fn unet(device: &Device) -> UNet {
    let mut config = UNetConfig::new(4, 8, 4);
    config.channel_mult = vec![1.0, 2.0];
    config.num_res_blocks = PerLevel::All(1);
    config.norm_num_groups = 4;
    config.num_heads = Some(PerLevel::All(2));
    config.attention_resolutions = vec![1];
    config.use_spatial_transformer = true;
    config.context_dim = Some(6);
    config.init(device).unwrap().map(&mut Drawn(0))
}

fn conditioning(device: &Device) -> Conditioning {
    Conditioning::context(seeded_input("context", [2, 5, 6], device))
}

/// The timestep of a step.
fn at(i: usize) -> f32 {
    999.0 - 200.0 * i as f32
}

/// The latent and the timesteps of a step.
fn step(i: usize, device: &Device) -> (Tensor<4>, Tensor<1>) {
    let x = seeded_input(&format!("x {i}"), [2, 4, 8, 8], device);
    (x, Tensor::full([2], at(i), (device, DType::F32)))
}

/// A GPU's kernels may be others where tensors lie in memory in another way.
fn tolerance(device: &Device) -> f64 {
    if *device == Device::flex() { 0.0 } else { 1e-5 }
}

/// On a device that records nothing the pass is run again, by the same way through the inputs.
#[test]
fn a_replay_gives_what_the_blocks_give() {
    let device = Device::default();
    let unet = unet(&device);
    let prepared = unet.prepare(&conditioning(&device)).unwrap();
    let entry = |i| -> Entry {
        let (x, t) = step(i, &device);
        unet.enter_prepared(x, t, &prepared).unwrap()
    };
    let Entry { x, time, .. } = entry(0);
    let mut replay = Replay::record(&unet, &prepared, &x, &time);
    println!("recorded: {}", replay.is_hardware());
    assert_eq!(replay.is_hardware(), is_supported(&device));
    let steps = [0, 1, 2, 3, 1];
    let replayed = steps.map(|i| {
        let Entry { x, time, .. } = entry(i);
        replay.run(&x, &time).unwrap()
    });
    // After all of them: a replay leaves alone what earlier ones gave.
    for (i, found) in steps.into_iter().zip(&replayed) {
        let Entry { x, time, .. } = entry(i);
        let expected = unet.run_blocks(x, &time, &prepared);
        assert_close(&format!("step {i}"), found, &expected, tolerance(&device));
    }
    assert!(relative_difference(&replayed[1], &replayed[0]) > 0.1);
}

#[test]
fn evaluations_are_the_same_launched_or_replayed() {
    let device = Device::default();
    let (unet, conditioning) = (unet(&device), conditioning(&device));
    let prepared = unet.prepare(&conditioning).unwrap();
    for replay in [false, true] {
        let recorder = Recorder::new(&unet);
        let recorder = if replay { Some(&recorder as &dyn Passes) } else { None };
        let mut evaluator = Evaluator::new(&unet, &prepared, recorder).unwrap();
        // The others are embedded when they come.
        evaluator.embed_ahead(&[at(0), at(2), at(3)], 2).unwrap();
        let evaluate = |i| evaluator.evaluate(step(i, &device).0, at(i)).unwrap();
        let found: Vec<_> = (0..5).map(evaluate).collect();
        for (i, found) in found.iter().enumerate() {
            let (x, t) = step(i, &device);
            let expected = unet.forward(x, t, &conditioning).unwrap();
            assert_close(&format!("step {i}, replay {replay}"), found, &expected, tolerance(&device));
        }
        assert!(relative_difference(&found[4], &found[3]) > 0.1);
    }
}

/// Two runs under other conditions share a recording, a step of one after a step of the other; a third one of another
/// size takes it over.
#[test]
fn runs_share_a_recording() {
    let device = Device::default();
    let unet = unet(&device);
    let recorder = Recorder::new(&unet);
    let named = |name: &str| Conditioning::context(seeded_input(name, [2, 5, 6], &device));
    let conditionings = ["context", "another context"].map(named);
    let prepared = conditionings.each_ref().map(|conditioning| unet.prepare(conditioning).unwrap());
    let [mut one, mut two] =
        prepared.each_ref().map(|prepared| Evaluator::new(&unet, prepared, Some(&recorder)).unwrap());
    let mut outputs = vec![];
    for (run, i) in [(0, 0), (0, 1), (0, 2), (1, 0), (0, 3), (1, 1), (1, 2), (0, 1)] {
        let (x, t) = step(i, &device);
        let expected = unet.forward(x.clone(), t.clone(), &conditionings[run]).unwrap();
        let evaluator = if run == 0 { &mut one } else { &mut two };
        let found = evaluator.evaluate(x, at(i)).unwrap();
        assert_close(&format!("run {run}, step {i}"), &found, &expected, tolerance(&device));
        outputs.push(found);
    }
    // The contexts tell.
    assert!(relative_difference(&outputs[3], &outputs[0]) > 1e-3);
    for i in 0..3 {
        let (x, t) = step(i, &device);
        let x = x.narrow(2, 0, 6);
        let expected = unet.forward(x.clone(), t.clone(), &conditionings[0]).unwrap();
        let found = one.evaluate(x, at(i)).unwrap();
        assert_close(&format!("another size, step {i}"), &found, &expected, tolerance(&device));
    }
}

#[test]
fn a_recorder_is_for_one_model() {
    let device = Device::default();
    let [one, other] = [unet(&device), unet(&device)];
    let prepared = one.prepare(&conditioning(&device)).unwrap();
    let recorder = Recorder::new(&other);
    assert!(matches!(
        Evaluator::new(&one, &prepared, Some(&recorder)).map(|_| ()),
        Err(Error::Argument { .. })
    ));
}

#[test]
fn a_processor_records_nothing() {
    assert!(!is_supported(&Device::flex()));
    let autodiff = Device::default().autodiff();
    assert!(!is_supported(&autodiff));
}

//! What the stages do within a step: float types, the two players' order, codes that die, several devices.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod tiny;
#[path = "tiny/train.rs"]
mod train;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_nn::LinearConfig;
use ldm_train::checkpoint::Checkpoints;
use ldm_train::config::{ModelConfig, RunConfig};
use ldm_train::data::Batch;
use ldm_train::log::Metrics;
use ldm_train::optim::{AdamW, AdamWConfig, Named, Precision, gradients, trainable};
use ldm_train::run::{
    At, AutoencoderTraining, Batches, LoadedBatches, Outcome, Progress, Purpose, Random, Stage, Stop,
};
use ldm_train::{FirstStageObjective, RunError};
use ldm_vae::FirstStage;
use serde_json::{Value, json};
use train::train;

/// burn's generator is one for all threads: what is drawn from a seed must not be interrupted.
fn alone() -> MutexGuard<'static, ()> {
    static DRAWING: Mutex<()> = Mutex::new(());
    DRAWING.lock().unwrap_or_else(PoisonError::into_inner)
}

const NO_DROPOUT: &str = "/model/params/ddconfig/dropout";
const DISC_START: &str = "/model/params/lossconfig/params/disc_start";

struct Run {
    config: RunConfig,
    training: AutoencoderTraining,
    batches: LoadedBatches,
}

impl Run {
    fn new(root: &Path, kind: &str, change: &[(&str, Value)]) -> Result<Self, RunError> {
        let config = tiny::config(root, kind, &[[(NO_DROPOUT, json!(0.0))].as_slice(), change].concat());
        let ModelConfig::FirstStage(model) = &config.model else { panic!("{kind} is no first stage") };
        let training = AutoencoderTraining::new(model, &config, None, &Device::default())?;
        let batches = LoadedBatches::new(config.data.open()?, None);
        Ok(Self { training, batches, config })
    }

    fn batch(&mut self) -> Batch {
        self.batches.next_batch().unwrap()
    }

    fn step(&mut self, step: u64, rate: f64) -> Metrics {
        let batch = self.batch();
        self.training.step(&At { step, micro: step, rate }, &[batch]).unwrap()
    }
}

fn find(metrics: &Metrics, name: &str) -> Option<f64> {
    metrics.iter().find(|(found, _)| found == name).map(|(_, value)| *value)
}

#[track_caller]
fn number(metrics: &Metrics, name: &str) -> f64 {
    find(metrics, name).unwrap_or_else(|| panic!("no {name} in {metrics:?}"))
}

fn off(actual: f64, expected: f64) -> f64 {
    (actual - expected).abs() / expected.abs().max(1e-9)
}

/// bf16 networks meet an f32 discriminator, and an f32 codebook.
#[test]
fn bf16_first_stages_train_against_a_discriminator() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    for kind in ["first_stage", "vq"] {
        let run = |precision: &str| {
            let change = [(DISC_START, json!(1)), ("/train/precision", json!(precision))];
            let mut run = Run::new(root.path(), kind, &change)?;
            let steps: Vec<Metrics> = (0..3).map(|step| run.step(step, 1e-4)).collect();
            Ok::<_, RunError>((run.training, steps))
        };
        if !Device::default().supports_dtype(DType::BF16) {
            assert!(matches!(run("bf16"), Err(RunError::Precision { dtype: DType::BF16, .. })));
            continue;
        }
        let ((_, exact), (mixed, steps)) = (run("f32").unwrap(), run("bf16").unwrap());
        assert_eq!(number(&steps[0], "g_loss"), 0.0);
        for (mixed, exact) in steps.iter().zip(&exact) {
            for name in ["total_loss", "rec_loss", "d_weight", "disc_loss"] {
                let (Some(mixed), Some(exact)) = (find(mixed, name), find(exact, name)) else { continue };
                let off = (mixed - exact).abs() / exact.abs().max(1e-2);
                assert!(off <= 5e-2, "{kind}, {name}: {mixed}, in f32 {exact}");
            }
        }
        assert!(number(&steps[2], "d_weight") > 0.0 && number(&steps[2], "disc_loss") > 0.0, "{steps:?}");
        // bf16 was used at all.
        assert_ne!(number(&steps[2], "rec_loss"), number(&exact[2], "rec_loss"));
        let dtype = mixed.model().dtype();
        assert_eq!(dtype, DType::F32, "master weights");
    }
}

/// As the reference's loop: the discriminator's step encodes anew, by the updated autoencoder, with fresh noise.
#[test]
fn the_discriminator_learns_from_the_updated_autoencoder() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let device = Device::default();
    let mut run = Run::new(root.path(), "first_stage", &[(DISC_START, json!(0))]).unwrap();
    let (batch, micro) = (run.batch(), 7);
    let (critic, old) = (run.training.discriminator().unwrap().valid(), run.training.model().clone());
    let at = At { step: 0, micro, rate: 1e-2 };
    let metrics = run.training.step(&at, std::slice::from_ref(&batch)).unwrap();

    let ModelConfig::FirstStage(config) = &run.config.model else { panic!() };
    let objective = FirstStageObjective::new(&config.loss, None).unwrap();
    let random = Random::new(run.config.train.seed);
    let disc_loss = |model: &FirstStage, purpose: Purpose| {
        let x = batch.to_tensor(&device);
        let encoded = model.encode(x.clone()).unwrap();
        let noise = random.normal(micro, purpose, encoded.dims(), &device).unwrap();
        let made = model.decode(encoded.sample(noise).unwrap()).unwrap();
        let loss = objective.discriminator_loss(x, made, &trainable(&critic, Precision::F32), 0).unwrap();
        f64::from(loss.logs.get("disc_loss").unwrap().into_scalar::<f32>())
    };
    let logged = number(&metrics, "disc_loss");
    let new = run.training.model();
    let expected = disc_loss(new, Purpose::DiscriminatorPosterior);
    assert!(off(logged, expected) <= 1e-6, "{logged}, expected {expected}");
    let stale = [
        ("the old autoencoder", disc_loss(&old, Purpose::DiscriminatorPosterior)),
        ("the old noise", disc_loss(new, Purpose::Posterior)),
    ];
    for (what, loss) in stale {
        assert!(off(logged, loss) > 1e-4, "{what} gives {loss} too");
    }
}

#[test]
fn dead_codes_come_to_life_in_training() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let mut run = Run::new(root.path(), "vq", &[]).unwrap();
    // All but two codes far from any latent.
    let FirstStage::Vq(mut model) = run.training.model().clone() else { panic!() };
    model.quantize.embedding.weight = model
        .quantize
        .embedding
        .weight
        .map(|codes| Tensor::cat(vec![codes.clone().narrow(0, 0, 2), codes.narrow(0, 2, 14) + 100.0], 0));
    run.training = run.training.with_model(FirstStage::Vq(model));
    let codes = |training: &AutoencoderTraining| -> Vec<f32> {
        let FirstStage::Vq(model) = training.model() else { panic!() };
        model.quantize.embedding.weight.val().into_data().iter::<f32>().collect()
    };
    for step in 0..3 {
        let metrics = run.step(step, 1e-4);
        assert!(number(&metrics, "cluster_usage") <= 2.0 && find(&metrics, "codes_reseeded").is_none());
    }
    assert!(codes(&run.training)[4..].iter().all(|value| *value > 90.0));
    // The fourth step is that of `reseed_every`.
    let before = run.step(3, 1e-4);
    let moved = number(&before, "codes_reseeded");
    assert!(moved == 14.0 || moved == 15.0, "{moved}");
    assert!(codes(&run.training).iter().all(|value| value.abs() < 50.0));
    let after = run.step(4, 1e-4);
    let [used, perplexity] = ["cluster_usage", "perplexity"].map(|name| number(&after, name));
    assert!(used > 4.0, "{after:?}");
    assert!(perplexity > number(&before, "perplexity") && perplexity <= used, "{after:?}");

    // Counts since then are part of a checkpoint, and a run that goes on has them.
    let checkpoints = Checkpoints::open(root.path().join("checkpoints"), 1).unwrap();
    checkpoints.save(5, |writer| run.training.save(writer)).unwrap();
    let latest = checkpoints.latest().unwrap().unwrap();
    let counts: Vec<u64> = latest.state("codebook_usage").unwrap();
    assert_eq!(counts.iter().filter(|count| **count > 0).count() as f64, used);
    assert_eq!(counts.iter().sum::<u64>(), 3 * 8 * 8);
    let mut resumed = Run::new(root.path(), "vq", &[]).unwrap();
    resumed.training.restore(&latest).unwrap();
    checkpoints.save(6, |writer| resumed.training.save(writer)).unwrap();
    let again = checkpoints.latest().unwrap().unwrap();
    assert_eq!((again.step(), again.state::<Vec<u64>>("codebook_usage").unwrap()), (6, counts));
}

#[test]
fn n_classes_below_the_codebook_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let few = ("/model/params/lossconfig/params/n_classes", json!(15));
    let error = Run::new(root.path(), "vq", &[few]).err().unwrap().to_string();
    assert!(error.contains("`n_classes` is 15"), "{error}");
}

/// What an optimiser has forgotten of a row, no later step brings back.
#[test]
fn forgotten_rows_move_no_more() {
    let _alone = alone();
    let device = Device::default();
    let mut layer = LinearConfig::new(3, 5).init(&device);
    let mut optimizer = AdamW::new(AdamWConfig::FIRST_STAGE, &layer, &device);
    let step = |layer: ldm_nn::Linear, optimizer: &mut AdamW, by: f64| {
        let working = trainable(&layer, Precision::F32);
        let loss = (working.weight.val() * by).sum();
        let found: Named = gradients(&working, &mut loss.backward());
        optimizer.step(layer, found, 1e-2)
    };
    for _ in 0..3 {
        layer = step(layer, &mut optimizer, 1.0);
    }
    optimizer.forget_rows("weight", &[1, 3, 99]);
    optimizer.forget_rows("no such parameter", &[0]);
    let before = layer.weight.val();
    layer = step(layer, &mut optimizer, 0.0);
    let moved: Vec<f32> = (layer.weight.val() - before).abs().sum_dim(1).into_data().iter().collect();
    for (row, moved) in moved.into_iter().enumerate() {
        assert_eq!(moved == 0.0, row == 1 || row == 3, "row {row} moved by {moved}");
    }
}

/// All numbers that a run of 8 steps shows.
fn shown(kind: &str, change: &[(&str, Value)]) -> Result<Vec<Metrics>, RunError> {
    let root = tempfile::tempdir().unwrap();
    let dropout = match kind {
        "diffusion" => "/model/params/unet_config/params/dropout",
        _ => NO_DROPOUT,
    };
    let few = [("/train/max_steps", json!(8)), ("/train/images_every", json!(0)), (dropout, json!(0.0))];
    let config = tiny::config(root.path(), kind, &[few.as_slice(), change].concat());
    let mut all = Vec::new();
    let mut note = |progress: &Progress<'_>| all.push(progress.metrics.clone());
    let outcome = train(root.path(), kind, &config, &Stop::new(), |b| Box::new(b), &mut note)?;
    assert_eq!(outcome, Outcome::Finished);
    Ok(all)
}

/// Two devices (threads with a replica each) and one that accumulates two micro-batches.
#[test]
fn two_devices_train_as_one() {
    let _alone = alone();
    let (two, one_batch) = (json!(2), ("/train/accumulate_grad_batches", json!(1)));
    for kind in ["first_stage", "vq", "diffusion"] {
        let early = (kind != "diffusion").then(|| (DISC_START, json!(2)));
        let early: Vec<_> = early.into_iter().collect();
        let run = |change: &[(&str, Value)]| shown(kind, &[early.as_slice(), change].concat()).unwrap();
        let one = run(&[]);
        let shared = run(&[("/train/devices", two.clone()), one_batch.clone()]);
        let half = run(std::slice::from_ref(&one_batch));
        assert_eq!((one.len(), shared.len()), (8, 8));
        let mut parted = 0f64;
        for ((one, shared), half) in one.iter().zip(&shared).zip(&half) {
            assert_eq!(one.len(), shared.len());
            for ((name, one), (shared_name, shared)) in one.iter().zip(shared) {
                assert_eq!(name, shared_name);
                let off = (one - shared).abs() / one.abs().max(1e-3);
                assert!(off <= 1e-5, "{kind}, {name}: {shared} on two devices, {one} on one");
            }
            let loss = &one[0].0;
            parted = parted.max(off(number(half, loss), number(one, loss)));
        }
        assert!(parted > 1e-3, "{kind}: half the pictures give the same losses");
        if kind != "diffusion" {
            assert!(number(&shared[7], "disc_loss") > 0.0);
        }
    }
}

#[test]
fn what_several_devices_can_not_do_is_said() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let device = Device::default();
    let two = ("/train/devices", json!(2));
    let error = shown("first_stage", &[two.clone(), (NO_DROPOUT, json!(0.1))]).unwrap_err();
    assert!(matches!(error, RunError::NotTrainable { what } if what.contains("dropout")), "{error}");
    let error = shown("diffusion", &[two.clone(), ("/model/params/unet_config/params/dropout", json!(0.1))]);
    assert!(matches!(error, Err(RunError::NotTrainable { .. })));

    let tau = "/model/params/cond_stage_config/params/embedding_dropout";
    assert!(matches!(
        shown("diffusion", &[two.clone(), (tau, json!(0.1))]),
        Err(RunError::NotTrainable { .. })
    ));
    assert!(shown("diffusion", std::slice::from_ref(&two)).is_ok());

    let run = || Run::new(root.path(), "first_stage", std::slice::from_ref(&two)).unwrap();
    let three = run().training.with_devices(vec![device.clone(); 3]).unwrap_err();
    assert!(matches!(three, RunError::Devices { given: 3, expected: 2 }), "{three}");
    let mut run = run();
    run.training = run.training.with_devices(vec![device; 2]).unwrap();
    let batches = [run.batch(), run.batch(), run.batch()];
    let uneven = run.training.step(&At { step: 0, micro: 0, rate: 1e-3 }, &batches).unwrap_err();
    assert!(matches!(uneven, RunError::Shares { batches: 3, devices: 2 }), "{uneven}");

    let names = tiny::config(root.path(), "first_stage", &[("/train/devices", json!(["cuda:0", "cuda:1"]))]);
    assert_eq!(names.train.device_count(), 2);
    // The rate of a step is that of all its pictures.
    assert!((names.learning_rate(2) / names.learning_rate(1) - 2.0).abs() < 1e-12);
}

/// Between the logs' lines a step reads what has to be checked and no more: each number waits for the device.
#[test]
fn unlogged_steps_read_the_loss_alone() {
    let _alone = alone();
    for (kind, loss) in [("first_stage", "total_loss"), ("diffusion", "loss")] {
        let all = shown(kind, &[("/train/log_every", json!(3))]).unwrap();
        for (i, metrics) in all.iter().enumerate() {
            // Logged are the third and the sixth, and the last; the first is shown.
            let logged = [1, 3, 6, 8].contains(&(i + 1));
            let mut names: Vec<&str> = metrics.iter().map(|(name, _)| name.as_str()).collect();
            names.retain(|name| !name.starts_with("disc_"));
            assert_eq!(names == [loss, "grad_norm", "learning_rate"], !logged, "step {}: {names:?}", i + 1);
        }
    }
}

/// A batch of what is not a number is refused whichever numbers are read, before anything moves.
#[test]
fn a_loss_that_is_no_number_moves_nothing() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let mut run = Run::new(root.path(), "first_stage", &[("/train/log_every", json!(3))]).unwrap();
    run.step(0, 1e-3);
    let weights = |run: &Run| -> TensorData {
        let FirstStage::Kl(model) = run.training.model() else { panic!() };
        model.decoder.conv_out.weight.val().into_data()
    };
    let before = weights(&run);
    let mut batch = run.batch();
    batch.pictures[0] = f32::NAN;
    let error = run.training.step(&At { step: 1, micro: 1, rate: 1e-3 }, &[batch]).unwrap_err();
    assert!(matches!(&error, RunError::NotFinite { step: 1, what, .. } if what == "total_loss"), "{error}");
    assert_eq!(weights(&run), before);
    run.step(1, 1e-3);
    assert_ne!(weights(&run), before);
}

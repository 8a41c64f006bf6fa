//! Runs as processes: killed, interrupted, short of disk, with other configs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod tiny;
#[path = "tiny/train.rs"]
mod train;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use burn::tensor::Device;
use image::{ImageFormat, Rgb, RgbImage};
use ldm_nn::weights::WeightFile;
use ldm_scheduler::NativeRng;
use ldm_train::RunError;
use ldm_train::checkpoint::{Checkpoint, CheckpointWriter, Checkpoints};
use ldm_train::config::{ModelConfig, RunConfig};
use ldm_train::data::Batch;
use ldm_train::export::load_first_stage;
use ldm_train::log::Metrics;
use ldm_train::run::{
    At, AutoencoderTraining, Batches, LoadedBatches, Outcome, Progress, Sheet, Stage, Stop, run,
};
use serde_json::{Value, json};
use train::train;

/// A run's config: `shards` is a `first_stage` on tars, with crops taken anywhere.
fn config(root: &Path, kind: &str, change: &[(&str, Value)]) -> RunConfig {
    if kind != "shards" {
        return tiny::config(root, kind, change);
    }
    // The loader's own threads decide nothing: crops are drawn from (seed, epoch, picture).
    let transform = json!({ "size": 16, "resize": 18, "crop": "random", "flip": true });
    let tars = [("/data/source/path", json!(shards(root))), ("/data/loader/transform", transform)];
    tiny::config(root, "first_stage", &[tars.as_slice(), change].concat())
}

/// Eleven noisy pictures in two tars, each written whole or not at all: whoever makes them may be killed.
fn shards(root: &Path) -> PathBuf {
    let folder = root.join("shards_of_pictures");
    std::fs::create_dir_all(&folder).unwrap();
    let mut rng = NativeRng::new(2);
    for (name, pictures) in [("a.tar", 0..6), ("b.tar", 6..11)] {
        let mut archive = tar::Builder::new(Vec::new());
        for n in pictures {
            let mut pixel = || std::array::from_fn(|_| rng.next_u64() as u8);
            let picture = RgbImage::from_fn(24, 20, |_, _| Rgb(pixel()));
            let mut bytes = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.get_ref().len() as u64);
            archive.append_data(&mut header, format!("{n:02}.png"), bytes.get_ref().as_slice()).unwrap();
        }
        let part = root.join(name);
        std::fs::write(&part, archive.into_inner().unwrap()).unwrap();
        std::fs::rename(&part, folder.join(name)).unwrap();
    }
    folder
}

/// Which process this is: `LDM_TEST_RUN` holds the kind and the folder in those that a test started.
const CHILD: &str = "LDM_TEST_RUN";

/// The program of the processes that the tests below start. On its own it checks what they rely on: a run of no
/// more than its steps ends.
#[test]
fn child_process() {
    let Ok(child) = std::env::var(CHILD) else {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path(), "first_stage", &[("/train/max_steps", json!(1))]);
        let train = || train(root.path(), "first_stage", &config, &Stop::new(), |b| Box::new(b), &mut |_| ());
        assert_eq!(train().unwrap(), Outcome::Finished);
        // Nothing is left to do.
        assert_eq!(train().unwrap(), Outcome::Finished);
        return;
    };
    let (kind, root) = child.split_once(' ').unwrap();
    let root = Path::new(root);
    let stop = Stop::on_signals().unwrap();
    let mut show = |progress: &Progress<'_>| {
        println!("step {}", progress.step);
        std::io::stdout().flush().unwrap();
    };
    match train(root, kind, &config(root, kind, &[]), &stop, |b| Box::new(b), &mut show) {
        Ok(outcome) => println!("{outcome:?}"),
        Err(error) => println!("error: {error}"),
    }
    std::io::stdout().flush().unwrap();
}

/// Starts this very program to train `kind` in `root`.
struct Process {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(root: &Path, kind: &str, shell: Option<&str>) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = match shell {
            None => Command::new(program),
            Some(before) => {
                let mut command = Command::new("bash");
                command.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(program);
                command
            }
        };
        let command = command.args(["--exact", "child_process", "--nocapture", "--test-threads", "1"]);
        let command = command.env(CHILD, format!("{kind} {}", root.display()));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads on until `wanted` accepts a line; `None` at the end.
    fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if wanted(line.trim()) {
                return Some(line.trim().into());
            }
        }
    }

    fn finish(mut self) -> (Option<String>, ExitStatus) {
        let ending = |line: &str| ["Finished", "Stopped", "error"].iter().any(|word| line.contains(word));
        let line = self.until(ending);
        (line, self.child.wait().unwrap())
    }
}

fn is_step(line: &str) -> bool {
    // The harness prints its own words before the first line.
    line.contains("step ")
}

/// All logged numbers but the times.
fn losses(root: &Path, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root.join(kind).join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().retain(|key, _| !key.starts_with("seconds"));
        line
    };
    text.lines().map(line).collect()
}

/// The largest second moment that the last checkpoint has of the discriminator, and the checkpoint's step.
fn discriminator_moment(root: &Path, kind: &str) -> (f32, u64) {
    let checkpoints = Checkpoints::open(root.join(kind).join("checkpoints"), 2).unwrap();
    let latest = checkpoints.latest().unwrap().unwrap();
    let file = WeightFile::open(latest.path().join("discriminator_optimizer.safetensors")).unwrap();
    let moments = file.tensors().filter(|tensor| tensor.name.ends_with(".exp_avg_sq"));
    let values = moments.flat_map(|tensor| file.read_f32(&tensor.name).unwrap().1);
    (values.fold(0.0, f32::max), latest.step())
}

fn killed_runs_go_on_exactly(kind: &str, kills: usize, seed: u64) {
    let (root, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ending, _) = Process::start(whole.path(), kind, None).finish();
    assert!(ending.unwrap().contains("Finished"));
    let expected = losses(whole.path(), kind);
    assert_eq!(expected.len(), 90);
    let loss = if kind == "diffusion" { "loss" } else { "total_loss" };
    assert_ne!(expected[0][loss], expected[89][loss]);

    let mut rng = NativeRng::new(seed);
    let mut with_moments = 0;
    for kill in 0..kills {
        let mut process = Process::start(root.path(), kind, None);
        for _ in 0..rng.next_u64() % 8 {
            process.until(is_step).unwrap_or_else(|| panic!("finished before kill {kill}"));
        }
        std::thread::sleep(Duration::from_micros(rng.next_u64() % 30_000));
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        if kind != "diffusion" && root.path().join(kind).join("checkpoints").exists() {
            let checkpoints = Checkpoints::open(root.path().join(kind).join("checkpoints"), 2).unwrap();
            if checkpoints.latest().unwrap().is_some() {
                let (moment, step) = discriminator_moment(root.path(), kind);
                // The step numbered DISC_START is the first with a gradient.
                assert_eq!(moment > 0.0, step > tiny::DISC_START, "step {step}: {moment}");
                with_moments += usize::from(moment > 0.0);
            }
        }
    }
    let (ending, _) = Process::start(root.path(), kind, None).finish();
    assert!(ending.unwrap().contains("Finished"));
    let actual = losses(root.path(), kind);
    assert_eq!(actual, expected);
    // Several resumes went on from a discriminator that had learned.
    assert!(kind == "diffusion" || with_moments >= 3, "{with_moments} of {kills}");
}

/// Bit for bit on the CPU alone: a GPU adds up in an order of its own.
mod on_flex {
    use super::killed_runs_go_on_exactly;

    #[test]
    fn a_first_stage_killed_ten_times_goes_on_exactly() {
        killed_runs_go_on_exactly("first_stage", 10, 11);
    }

    #[test]
    fn a_quantised_first_stage_killed_ten_times_goes_on_exactly() {
        killed_runs_go_on_exactly("vq", 10, 13);
    }

    #[test]
    fn a_run_over_shards_with_crops_anywhere_goes_on_exactly() {
        killed_runs_go_on_exactly("shards", 10, 14);
    }

    #[test]
    fn a_diffusion_model_killed_ten_times_goes_on_exactly() {
        killed_runs_go_on_exactly("diffusion", 10, 12);
    }
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_saves_and_goes_on_exactly() {
    let (root, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut process = Process::start(root.path(), "first_stage", None);
    for _ in 0..9 {
        process.until(is_step).unwrap();
    }
    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let (ending, status) = process.finish();
    assert!(status.success());
    let ending = ending.unwrap();
    let step: u64 = ending.split("step: ").nth(1).unwrap().trim_end_matches(" }").parse().unwrap();
    assert!((9..90).contains(&step), "{ending}");
    let (moment, saved) = discriminator_moment(root.path(), "first_stage");
    assert!(saved == step && moment > 0.0, "{saved} {moment}");

    for folder in [&root, &whole] {
        let (ending, _) = Process::start(folder.path(), "first_stage", None).finish();
        assert!(ending.unwrap().contains("Finished"));
    }
    let (actual, expected) = (losses(root.path(), "first_stage"), losses(whole.path(), "first_stage"));
    assert_eq!((actual.len(), expected.len()), (90, 90));
    for (actual, expected) in actual.iter().zip(&expected) {
        let (Value::Object(actual), Value::Object(expected)) = (actual, expected) else { panic!() };
        for (key, expected) in expected {
            let (actual, expected) = (actual[key].as_f64().unwrap(), expected.as_f64().unwrap());
            // Bit for bit on flex; a GPU adds up in an order of its own.
            let off = (actual - expected).abs() / expected.abs().max(1e-3);
            assert!(off <= 1e-3, "{key}: {actual}, expected {expected}");
        }
    }
}

/// A limit on the size of files stands for a full disk: writing fails in the middle of a file.
#[test]
#[cfg(unix)]
fn a_full_disk_leaves_the_last_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let mut process = Process::start(root.path(), "first_stage", None);
    for _ in 0..4 {
        process.until(is_step).unwrap();
    }
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let folder = root.path().join("first_stage/checkpoints");
    let checkpoints = Checkpoints::open(&folder, 2).unwrap();
    let before = checkpoints.list().unwrap();

    let (ending, _) = Process::start(root.path(), "first_stage", Some("trap '' XFSZ; ulimit -f 8")).finish();
    let ending = ending.unwrap();
    assert!(ending.contains("can't be written") && ending.contains("step"), "{ending}");
    assert_eq!(checkpoints.list().unwrap(), before);
    let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), before.len(), "left over: {names:?}");

    let config = config(root.path(), "first_stage", &[("/train/max_steps", json!(12))]);
    let outcome = train(root.path(), "first_stage", &config, &Stop::new(), |b| Box::new(b), &mut |_| ());
    assert_eq!(outcome.unwrap(), Outcome::Finished);
}

/// Batches of which one holds a NaN.
struct Spoilt(LoadedBatches, u64);

impl Batches for Spoilt {
    fn next_batch(&mut self) -> Result<Batch, RunError> {
        let mut batch = self.0.next_batch()?;
        if batch.number == self.1 {
            batch.pictures[7] = f32::NAN;
        }
        Ok(batch)
    }

    fn number(&self) -> u64 {
        self.0.number()
    }

    fn seek(&mut self, number: u64) -> Result<(), RunError> {
        self.0.seek(number)
    }
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_leaves_the_last_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), "first_stage", &[("/train/max_steps", json!(8))]);
    let spoil = |batches| Box::new(Spoilt(batches, 9)) as Box<dyn Batches>;
    let error = train(root.path(), "first_stage", &config, &Stop::new(), spoil, &mut |_| ()).unwrap_err();
    let RunError::NotFinite { step: 4, what, value } = &error else { panic!("{error}") };
    assert!(what == "total_loss" && value.is_nan());
    assert!(error.to_string().starts_with("step 4: total_loss is NaN"), "{error}");

    let folder = root.path().join("first_stage");
    let latest = Checkpoints::open(folder.join("checkpoints"), 2).unwrap().latest().unwrap().unwrap();
    assert_eq!(latest.step(), 3);
    let outcome = train(root.path(), "first_stage", &config, &Stop::new(), |b| Box::new(b), &mut |_| ());
    assert_eq!(outcome.unwrap(), Outcome::Finished);
}

#[test]
fn a_changed_config_is_refused_by_its_key() {
    let root = tempfile::tempdir().unwrap();
    let steps = ("/train/max_steps", json!(3));
    let train = |change: &[(&str, Value)]| {
        let config = config(root.path(), "first_stage", change);
        train(root.path(), "first_stage", &config, &Stop::new(), |b| Box::new(b), &mut |_| ())
    };
    train(std::slice::from_ref(&steps)).unwrap();
    let changes = [
        (("/train/seed", json!(6)), "train.seed"),
        (("/model/base_learning_rate", json!(1e-3)), "model.base_learning_rate"),
        (("/data/loader/batch_size", json!(4)), "data.loader.batch_size"),
        (("/model/params/ddconfig/ch", json!(8)), "model.params.ddconfig.ch"),
    ];
    for (change, expected) in changes {
        let Err(RunError::Changed { key, .. }) = train(&[steps.clone(), change]) else {
            panic!("{expected} was not noticed")
        };
        assert_eq!(key, expected);
    }
    // More steps and other logs are no change.
    assert_eq!(
        train(&[("/train/max_steps", json!(4)), ("/train/keep", json!(5))]).unwrap(),
        Outcome::Finished
    );
}

#[test]
fn other_data_is_refused_where_the_checkpoint_knows_its_own() {
    let root = tempfile::tempdir().unwrap();
    let train = |steps: u64| {
        let config = config(root.path(), "first_stage", &[("/train/max_steps", json!(steps))]);
        train(root.path(), "first_stage", &config, &Stop::new(), |b| Box::new(b), &mut |_| ())
    };
    train(3).unwrap();
    let [picture, caption] = ["10.png", "10.txt"].map(|name| root.path().join("pictures").join(name));
    RgbImage::from_pixel(16, 16, Rgb([1, 2, 3])).save(picture).unwrap();
    std::fs::write(caption, "picture 10").unwrap();
    let error = train(4).unwrap_err();
    let RunError::Changed { key, before, now, .. } = &error else { panic!("{error}") };
    assert!(key == "the data" && before.starts_with("10 pictures") && now.starts_with("11 "), "{error}");
    assert!(error.to_string().contains(": the data was 10 pictures ("), "{error}");

    let checkpoints = Checkpoints::open(root.path().join("first_stage/checkpoints"), 2).unwrap();
    let path = checkpoints.latest().unwrap().unwrap().path().join("state.json");
    let mut state: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    state["data"] = json!(10);
    std::fs::write(&path, state.to_string()).unwrap();
    let error = train(4).unwrap_err();
    let damaged = matches!(&error, RunError::Checkpoint { what, .. } if what.starts_with("`data`: "));
    assert!(damaged, "{error}");
    // One from before there was this entry goes on.
    state.as_object_mut().unwrap().remove("data").unwrap();
    std::fs::write(&path, state.to_string()).unwrap();
    assert_eq!(train(4).unwrap(), Outcome::Finished);
}

#[test]
fn a_checkpoint_without_a_moment_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), "first_stage", &[("/train/max_steps", json!(3))]);
    let train = || train(root.path(), "first_stage", &config, &Stop::new(), |b| Box::new(b), &mut |_| ());
    train().unwrap();
    let checkpoints = Checkpoints::open(root.path().join("first_stage/checkpoints"), 2).unwrap();
    let path = checkpoints.latest().unwrap().unwrap().path().join("optimizer.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let rest: Vec<_> = file
        .tensors()
        .into_iter()
        .filter(|(name, _)| name != "model.decoder.conv_in.weight.exp_avg_sq")
        .collect();
    assert_eq!(rest.len() + 1, file.len());
    let rest = safetensors::serialize(rest, None).unwrap();
    std::fs::write(&path, rest).unwrap();
    let error = train().unwrap_err().to_string();
    assert!(error.contains("model.decoder.conv_in.weight.exp_avg_sq [8, 2, 3, 3] is missing"), "{error}");
}

#[test]
fn what_a_run_leaves_is_there() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), "first_stage", &[("/train/max_steps", json!(40))]);
    train(root.path(), "first_stage", &config, &Stop::new(), |b| Box::new(b), &mut |_| ()).unwrap();
    let folder = root.path().join("first_stage");
    let sheet = image::open(folder.join("images/reconstructions_0000000040.png")).unwrap();
    assert_eq!([sheet.width(), sheet.height()], [2 * 18 + 2, 2 * 18 + 2]);
    let csv = std::fs::read_to_string(folder.join("metrics.csv")).unwrap();
    assert!(
        csv.starts_with(
            "step,total_loss,logvar,kl_loss,nll_loss,rec_loss,disc_factor,d_weight,g_loss,grad_norm,"
        ),
        "{csv}"
    );
    assert_eq!(csv.lines().count(), 41);
    let events = std::fs::read_dir(&folder)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("events.out.tfevents."));
    assert_eq!(events.count(), 1);
    let checkpoints = Checkpoints::open(folder.join("checkpoints"), 2).unwrap();
    let steps: Vec<_> = checkpoints.list().unwrap().into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [39, 40]);

    // The finished first stage in both formats, read back.
    let ModelConfig::FirstStage(model) = &config.model else { panic!() };
    let device = Device::default();
    let stage = AutoencoderTraining::new(model, &config, None, &device).unwrap();
    ldm_train::export::save_first_stage(stage.model(), &folder, burn::tensor::DType::F32).unwrap();
    // Its YAML says how to build it.
    let yaml: Value =
        serde_yaml_ng::from_str(&std::fs::read_to_string(folder.join("model.yaml")).unwrap()).unwrap();
    assert_eq!(yaml["model"]["target"], "ldm.models.autoencoder.AutoencoderKL");
    let described: ldm_vae::AutoencoderKlConfig =
        serde_json::from_value(yaml["model"]["params"].clone()).unwrap();
    assert_eq!(ldm_vae::FirstStageConfig::Kl(described), model.first_stage);
    for file in ["model.safetensors", "vae/diffusion_pytorch_model.safetensors"] {
        let read = load_first_stage(&model.first_stage, &folder.join(file), &device).unwrap();
        let weights = |model: &ldm_vae::FirstStage| {
            let ldm_vae::FirstStage::Kl(model) = model else { panic!() };
            model.decoder.conv_in.weight.val().into_data()
        };
        assert_eq!(weights(&read), weights(stage.model()));
    }
}

#[test]
fn one_process_trains_in_a_folder() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), "first_stage", &[("/train/max_steps", json!(1))]);
    let train = |observer: &mut dyn FnMut(&Progress<'_>)| {
        train(root.path(), "first_stage", &config, &Stop::new(), |b| Box::new(b), observer)
    };
    let mut beside = None;
    train(&mut |_| beside = Some(train(&mut |_| ()))).unwrap();
    let error = beside.unwrap().unwrap_err();
    assert!(matches!(&error, RunError::Busy { folder } if folder.ends_with("first_stage")), "{error}");
    // Once the first has ended the folder is free.
    assert_eq!(train(&mut |_| ()).unwrap(), Outcome::Finished);
}

/// Trains as the first stage does, but can show nothing.
struct Shy(AutoencoderTraining);

impl Stage for Shy {
    fn step(&mut self, at: &At, batches: &[Batch]) -> Result<Metrics, RunError> {
        self.0.step(at, batches)
    }

    fn sheets(&self, _: &At, _: &Batch) -> Result<Vec<Sheet>, RunError> {
        Err(RunError::NotTrainable { what: "no sheet" })
    }

    fn save(&self, writer: &mut CheckpointWriter) -> Result<(), RunError> {
        self.0.save(writer)
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), RunError> {
        self.0.restore(checkpoint)
    }
}

#[test]
fn a_sheet_that_can_not_be_drawn_ends_nothing() {
    let root = tempfile::tempdir().unwrap();
    let often = [("/train/max_steps", json!(4)), ("/train/images_every", json!(1))];
    let config = config(root.path(), "first_stage", &often);
    let ModelConfig::FirstStage(model) = &config.model else { panic!() };
    let mut stage = Shy(AutoencoderTraining::new(model, &config, None, &Device::default()).unwrap());
    let mut batches = LoadedBatches::new(config.data.open().unwrap(), None);
    let folder = root.path().join("shy");
    let outcome = run(&mut stage, &mut batches, &config, &folder, &Stop::new(), &mut |_| ());
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(Checkpoints::open(folder.join("checkpoints"), 2).unwrap().list().unwrap().len(), 2);
    assert_eq!(std::fs::read_dir(folder.join("images")).unwrap().count(), 0);
}

/// More steps than the schedule has are noticed before the first.
#[test]
fn samples_that_can_not_be_drawn_are_refused_at_once() {
    // A folder each, as fresh first stages differ.
    let train = |root: &Path, change: &[(&str, Value)]| {
        let config = config(root, "diffusion", change);
        train(root, "diffusion", &config, &Stop::new(), |b| Box::new(b), &mut |_| ())
    };
    let [root, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let many = ("/train/sample_steps", json!(300));
    let error = train(root.path(), std::slice::from_ref(&many)).unwrap_err();
    assert!(matches!(error, RunError::Schedule(_)), "{error:?}");
    assert!(!root.path().join("diffusion/checkpoints").exists());
    // Who asks for no pictures asks for no steps.
    let none = [many, ("/train/images_every", json!(0)), ("/train/max_steps", json!(1))];
    assert_eq!(train(other.path(), &none).unwrap(), Outcome::Finished);
}

/// All digits of a number come back from a checkpoint: these have up to 17.
#[test]
fn a_config_with_long_numbers_is_the_same_when_it_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let between = |i: u32| 0.00085f64.sqrt() + f64::from(i) * (0.012f64.sqrt() - 0.00085f64.sqrt()) / 999.0;
    let betas: Vec<f64> = (0..1000).map(|i| between(i).powi(2)).collect();
    let train = |steps: u64| {
        // What nothing reads is compared too.
        let change = [("/model/params/betas", json!(betas)), ("/train/max_steps", json!(steps))];
        let config = config(root.path(), "first_stage", &change);
        train(root.path(), "first_stage", &config, &Stop::new(), |b| Box::new(b), &mut |_| ())
    };
    for steps in [1, 2] {
        assert_eq!(train(steps).unwrap(), Outcome::Finished);
    }
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_text_is_an_error() {
    use std::os::unix::ffi::OsStrExt;

    let root = tempfile::tempdir().unwrap();
    let mut config = config(root.path(), "first_stage", &[]);
    let path = root.path().join(std::ffi::OsStr::from_bytes(b"bad_\xff"));
    std::fs::rename(&config.data.source.path, &path).unwrap();
    config.data.source.path = path;
    let error = train(root.path(), "first_stage", &config, &Stop::new(), |b| Box::new(b), &mut |_| ());
    assert!(matches!(error, Err(RunError::Config { .. })), "{error:?}");
}

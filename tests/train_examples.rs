//! The training examples as programs: a folder of pictures becomes a first stage, then a model that draws, in runs that
//! stop and go on.
//!
//! Cargo builds the examples whenever it runs all tests (`cargo test --workspace --release`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::program::{command, example, refuses, succeeds, text};
use serde_json::{Value, json};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Ten small pictures with captions, and one that is none.
fn pictures(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..10u32 {
        let pixel = |x: u32, y: u32| image::Rgb([(x * 15) as u8, (y * 15) as u8, (i * 25) as u8]);
        image::RgbImage::from_fn(16, 16, pixel).save(folder.join(format!("{i}.png"))).unwrap();
        fs::write(folder.join(format!("{i}.txt")), format!("picture {i}")).unwrap();
    }
    fs::write(folder.join("broken.png"), "no picture").unwrap();
    fs::write(folder.join("broken.txt"), "picture of nothing").unwrap();
}

/// f = 2, two channels.
fn first_stage() -> Value {
    json!({
        "embed_dim": 2,
        "ddconfig": {
            "double_z": true, "z_channels": 2, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 4,
            "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0, "norm_num_groups": 4,
        },
    })
}

fn autoencoder() -> Value {
    let mut params = first_stage();
    params["lossconfig"] = json!({
        "target": "ldm.modules.losses.LPIPSWithDiscriminator",
        "params": { "kl_weight": 1e-6, "perceptual_weight": 0.0, "disc_factor": 0.0 },
    });
    json!({
        "base_learning_rate": 1e-3, "target": "ldm.models.autoencoder.AutoencoderKL", "params": params,
    })
}

fn diffusion() -> Value {
    json!({
        "base_learning_rate": 1e-3, "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
        "params": {
            "timesteps": 50, "scale_by_std": true, "conditioning_dropout_prob": 0.2,
            "unet_config": { "target": "UNetModel", "params": {
                "in_channels": 2, "out_channels": 2, "model_channels": 4, "num_res_blocks": 1,
                "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 1, "norm_num_groups": 4,
                "use_spatial_transformer": true, "context_dim": 8,
            }},
            "first_stage_config": { "target": "AutoencoderKL", "params": first_stage() },
            "cond_stage_trainable": true, "conditioning_key": "crossattn",
            "cond_stage_config": {
                "target": "ldm.modules.encoders.modules.BERTEmbedder",
                "params": {
                    "n_embed": 8, "n_layer": 1, "heads": 2, "dim_head": 4, "max_seq_len": 8, "vocab_size": 1962,
                    "vocab_file": format!("{ROOT}/assets/emoji_vocab.txt"),
                },
            },
        },
    })
}

/// A config as the shipped ones are: its pictures are elsewhere, and of a split.
fn write_config(path: &Path, model: &Value) {
    let document = json!({
        "model": model,
        "data": {
            "source": { "path": "nowhere", "split": "train" },
            "loader": { "batch_size": 3, "transform": { "size": 16 } },
        },
        "train": {
            "scale_lr": false, "save_every": 2, "keep": 2, "log_every": 1, "images_every": 3, "images": 2,
            "sample_steps": 2, "prompts": ["red heart", "picture 3"],
        },
    });
    // JSON is YAML.
    fs::write(path, document.to_string()).unwrap();
}

/// What a run prints: to stdout, and to stderr.
struct Told(String, String);

impl Told {
    #[track_caller]
    fn of(output: Output) -> Self {
        let (out, error) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
        let told = Self(out.unwrap(), error.unwrap());
        assert!(output.status.success(), "{}{}", told.0, told.1);
        told
    }

    /// The steps that it tells of.
    fn steps(&self) -> Vec<u64> {
        self.0.lines().filter_map(|line| line.split_once('/')?.0.parse().ok()).collect()
    }

    /// A broken picture is named, with what is wrong, and counted.
    #[track_caller]
    fn names_the_broken_picture(&self, reason: &str) {
        for part in ["a broken picture is skipped", "broken.png", reason] {
            assert!(self.1.contains(part), "`{part}`: {}", self.1);
        }
        assert!(self.0.contains("1 pictures could not be read"), "{}", self.0);
    }
}

/// Steps of the runs below, before they stop and in the end.
const STOP: &str = "4";
const END: &str = "16";

/// The numbers, checkpoints and pictures of a run that ended.
fn assert_finished(folder: &Path, sheet: &str) {
    let lines = |name: &str| fs::read_to_string(folder.join(name)).unwrap().lines().count();
    assert_eq!((lines("metrics.csv"), lines("metrics.jsonl")), (17, 16));
    let names = |part: &str| -> Vec<String> {
        let entries = fs::read_dir(folder.join(part)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("checkpoints"), ["step_0000000014", "step_0000000016"]);
    let sheets = [3, 4, 6, 9, 12, 15, 16].map(|step| format!("{sheet}_{step:010}.png"));
    assert_eq!(names("images"), sheets);
    for name in sheets {
        image::open(folder.join("images").join(name)).unwrap();
    }
    let events = names("").into_iter().filter(|name| name.starts_with("events.out.tfevents."));
    assert!(events.count() >= 1);
}

#[test]
fn a_folder_of_pictures_becomes_a_model_in_runs_that_go_on() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let (data, first, second) = (at("pictures"), at("first"), at("second"));
    pictures(&data);
    write_config(&at("first.yaml"), &autoencoder());
    write_config(&at("second.yaml"), &diffusion());
    let go = |name: &str, out: &Path, steps: &str, more: &[&str]| {
        let config = out.with_extension("yaml");
        let common = ["--config", text(&config), "--data", text(&data), "--out", text(out), "--steps", steps];
        Told::of(example(name, &[&common[..], more].concat()))
    };
    let all = |folder: &Path, files: &[&str]| {
        files.iter().for_each(|file| assert!(folder.join(file).is_file(), "{file} is missing"));
    };

    let begun = go("train_autoencoder", &first, STOP, &[]);
    assert!(begun.0.starts_with("11 pictures"), "{}", begun.0);
    assert_eq!(begun.steps(), [1, 2, 3, 4]);
    begun.names_the_broken_picture("neither PNG");
    let ended = go("train_autoencoder", &first, END, &[]);
    assert_eq!(ended.steps(), (5..=16).collect::<Vec<_>>());
    ended.names_the_broken_picture("neither PNG");
    assert_finished(&first, "reconstructions");
    all(&first, &["model.safetensors", "model.yaml"]);
    all(&first.join("vae"), &["config.json", "diffusion_pytorch_model.safetensors"]);

    let weights = first.join("model.safetensors");
    let more = ["--first-stage", text(&weights)];
    let begun = go("train_diffusion", &second, STOP, &more);
    assert!(begun.0.contains("encoding 11 pictures' latents"), "{}", begun.0);
    assert_eq!(begun.steps(), [1, 2, 3, 4]);
    begun.names_the_broken_picture("neither PNG");
    // The latents are there now, and no picture is opened any more.
    let ended = go("train_diffusion", &second, END, &more);
    assert!(!ended.0.contains("encoding"), "{}", ended.0);
    assert_eq!(ended.steps(), (5..=16).collect::<Vec<_>>());
    ended.names_the_broken_picture("not in the cache of latents");
    assert_finished(&second, "samples");
    all(&second, &["latents.safetensors", "diffusers/model_index.json"]);
    all(&second.join("compvis"), &["model.safetensors", "model.yaml", "vocab.txt"]);

    // What was written draws, and is scored on pictures with splits.
    let scored = at("scored");
    fs::create_dir_all(&scored).unwrap();
    let line = |i: usize| {
        let name = format!("{i}.png");
        fs::copy(data.join(&name), scored.join(&name)).unwrap();
        let mut line = json!({ "file_name": name, "text": format!("picture {i}"), "split": "train" });
        if i >= 7 {
            line["split"] = json!("held_out");
            line["held_out"] = json!("combination");
        }
        format!("{line}\n")
    };
    fs::write(scored.join("metadata.jsonl"), (0..10).map(line).collect::<String>()).unwrap();
    let model = second.join("diffusers");
    let (model, scored) = (["--model", text(&model)], ["--data", text(&scored)]);
    let few = ["--prompts", "2", "--candidates", "4", "--steps", "2", "--batch", "3"];
    let out = succeeds("emoji_score", &[&model[..], &scored, &few].concat());
    for part in [
        "reconstruction of 3 held-out pictures: ",
        "training prompts: the named picture is the nearest of 4 in ",
        "held-out combinations: the named picture is the nearest of 4 in ",
        " % of 2",
    ] {
        assert!(out.contains(part), "`{part}`: {out}");
    }
}

/// The first stage encodes what the trainer makes itself; a worn picture would be joined to the latent as it is.
#[test]
fn worn_pictures_are_refused_where_the_first_stage_is_to_encode_them() {
    let root = tempfile::tempdir().unwrap();
    let [config, out] = ["second.yaml", "second"].map(|name| root.path().join(name));
    let mut model = diffusion();
    model["params"]["cond_stage_config"] = json!("__is_first_stage__");
    model["params"]["cond_stage_trainable"] = json!(false);
    model["params"]["cond_stage_key"] = json!("LR_image");
    model["params"]["conditioning_key"] = json!("concat");
    write_config(&config, &model);
    let arguments = ["--config", text(&config), "--out", text(&out), "--degradation", "bsrgan_light"];
    refuses("train_diffusion", &arguments, 1, &["__is_first_stage__", "--degradation"]);
}

#[test]
#[cfg(unix)]
fn a_run_that_is_interrupted_saves_and_goes_on() {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    /// A process that does not outlive its test, however that ends.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            // Nothing is left to do where it has ended by itself.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    let root = tempfile::tempdir().unwrap();
    let [data, config, out] = ["pictures", "first.yaml", "first"].map(|name| root.path().join(name));
    pictures(&data);
    write_config(&config, &autoencoder());
    let common = ["--config", text(&config), "--data", text(&data), "--out", text(&out)];
    let mut begun = command("train_autoencoder");
    let begun = begun.args(common).args(["--steps", "1000000"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Running(begun.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.starts_with("3/")).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.0.id().to_string()]).status().unwrap().success());
    let said =
        lines.find_map(|line| Some(line.strip_prefix("stopped and saved after ")?.to_string())).unwrap();
    assert!(child.0.wait().unwrap().success());
    let step: u64 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(step >= 3, "{said}");
    let end = (step + 2).to_string();
    let ended = Told::of(example("train_autoencoder", &[&common[..], &["--steps", &end]].concat()));
    assert_eq!(ended.steps(), [step + 1, step + 2]);
}

/// The default run, as far as half a minute takes it. A short one can become a longer one.
#[test]
fn the_loss_falls_on_the_emoji() {
    let root = tempfile::tempdir().unwrap();
    let run = |steps: &str| {
        let arguments = ["--out", text(root.path()), "--steps", steps];
        Told::of(command("train_autoencoder").args(arguments).current_dir(ROOT).output().unwrap())
    };
    let told = run("50");
    let loss = |line: &str| line.split_once("rec_loss ")?.1.split(',').next()?.parse().ok();
    let found: Vec<f64> = told.0.lines().filter_map(loss).collect();
    println!("{found:?}");
    assert_eq!(told.steps(), [1, 10, 20, 30, 40, 50]);
    assert!(found.len() == 6 && found[5] < 0.75 * found[0], "{found:?}");
    assert_eq!(run("51").steps(), [51]);
}

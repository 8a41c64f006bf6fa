//! Models saved and read back: diffusers' directory and CompVis' single file, in every direction.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use common::{
    RUN_TOLERANCE, cases, differences, directory, load, picture, run, weight_files, write_directory,
};
use ldm::nn::weights::{Saver, WeightFile};
use ldm::{Family, LoadOptions, StableDiffusion};
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight, write_torch, write_weights};
use serde_json::{Value, json};
use tempfile::TempDir;

const CHECKPOINTS: [&str; 3] = ["checkpoint_sd1", "checkpoint_sd2", "checkpoint_sdxl"];

/// Stable Diffusion 2 reads the last layer but one of its text encoder; a file has the last one too.
const UNUSED_LAYER: &str = "cond_stage_model.model.transformer.resblocks.3.";

/// A single file with all the tensors that the fixture names, and its YAML.
struct Checkpoint {
    folder: TempDir,
    fixture: Fixture,
}

impl Checkpoint {
    fn write(name: &str) -> Self {
        let (folder, fixture) = (tempfile::tempdir().unwrap(), Fixture::open(name));
        let checkpoint = Self { folder, fixture };
        write_weights(&checkpoint.file(), &checkpoint.fixture.shapes("checkpoint"));
        let yaml = checkpoint.fixture.json("yaml");
        fs::write(checkpoint.yaml(), yaml.as_str().unwrap()).unwrap();
        checkpoint
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("model.safetensors")
    }

    fn yaml(&self) -> PathBuf {
        self.folder.path().join("model.yaml")
    }

    /// What a sampler needs, by CompVis' names.
    fn needed(&self) -> BTreeSet<String> {
        let extras: BTreeSet<String> = serde_json::from_value(self.fixture.json("extras")).unwrap();
        let names = self.fixture.shapes("checkpoint").into_iter().map(|(name, _)| name);
        names.filter(|name| !extras.contains(name)).collect()
    }

    fn options(&self) -> LoadOptions {
        LoadOptions::default().config(self.yaml())
    }

    /// In which cases `file`, described by its YAML and recognised by its keys, draws what diffusers doesn't.
    fn differences(&self, file: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        for (key, case) in cases(&self.fixture) {
            for mut options in [self.options(), LoadOptions::default()] {
                options.use_ema = Some(key == "image_ema");
                // What neither YAML nor keys say.
                options.prediction_type = (key == "image_epsilon").then(|| "epsilon".into());
                let model = StableDiffusion::load(file, &options).unwrap();
                let output = run(&model, &self.fixture, &case).unwrap();
                let (yaml, file) = (options.config.is_some(), file.display());
                let difference = differences(&self.fixture, &key, &output);
                wrong.extend(difference.map(|d| format!("{file}, YAML {yaml}: {d}")));
            }
        }
        wrong
    }
}

/// Every tensor of a file, by name.
fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let file = WeightFile::open(path).unwrap();
    let names: Vec<String> = file.tensors().map(|t| t.name.clone()).collect();
    names.into_iter().map(|name| (name.clone(), file.read_f32(&name).unwrap())).collect()
}

/// Panics unless the file holds exactly these tensors, each with the values drawn from its name.
fn assert_drawn(path: &Path, expected: &BTreeMap<String, Vec<usize>>) {
    let mut saved = tensors(path);
    saved.retain(|name, _| !name.contains(UNUSED_LAYER));
    let names = |names: Vec<&String>| names.into_iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(saved.keys().collect()), names(expected.keys().collect()), "{}", path.display());
    for (name, (shape, values)) in &saved {
        assert_eq!(shape, &expected[name], "{name}");
        assert!(values == &seeded_weight(name, shape), "{}: {name}", path.display());
    }
}

/// The picture of a checkpoint is diffusers' picture of it, after diffusers' own conversion.
#[test]
fn a_single_file_draws_what_diffusers_draws_from_it() {
    let mut wrong = Vec::new();
    for name in CHECKPOINTS {
        let checkpoint = Checkpoint::write(name);
        wrong.extend(checkpoint.differences(&checkpoint.file()).into_iter().map(|d| format!("{name}: {d}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same from a `.ckpt` as PyTorch Lightning 1.4 pickles it: classes as keys, optimiser and all. The pickle is a real
/// one, its storages are drawn here.
#[test]
fn a_lightning_checkpoint_draws_what_diffusers_draws_from_it() {
    let checkpoint = Checkpoint::write("checkpoint_sd1");
    let file = checkpoint.folder.path().join("model.ckpt");
    let pickle = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/checkpoint_sd1.pkl");
    let shapes = checkpoint.fixture.shapes("checkpoint");
    let bytes = |(name, shape): &(String, Vec<usize>)| {
        seeded_weight(name, shape).into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>()
    };
    write_torch(&file, &fs::read(pickle).unwrap(), shapes.iter().map(bytes));
    let opened = WeightFile::open(&file).unwrap();
    assert_eq!(opened.tensors().count(), shapes.len());
    let wrong = checkpoint.differences(&file);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The YAML of Stable Diffusion 1 says nothing of EMA, which means yes.
#[test]
fn ema_weights_are_taken_as_the_yaml_says() {
    let checkpoint = Checkpoint::write("checkpoint_sd1");
    let model = StableDiffusion::load(checkpoint.file(), &checkpoint.options()).unwrap();
    let output = run(&model, &checkpoint.fixture, &cases(&checkpoint.fixture)["image_ema"]).unwrap();
    assert_eq!(differences(&checkpoint.fixture, "image_ema", &output), None);

    let yaml = fs::read_to_string(checkpoint.yaml()).unwrap();
    fs::write(checkpoint.yaml(), yaml.replace("    scale_factor:", "    use_ema: false\n    scale_factor:"))
        .unwrap();
    let model = StableDiffusion::load(checkpoint.file(), &checkpoint.options()).unwrap();
    let output = run(&model, &checkpoint.fixture, &cases(&checkpoint.fixture)["image"]).unwrap();
    assert_eq!(differences(&checkpoint.fixture, "image", &output), None);
}

/// Directory to file to directory: every tensor comes home bit for bit.
#[test]
fn a_directory_survives_the_way_through_a_single_file() {
    for name in CHECKPOINTS {
        let checkpoint = Checkpoint::write(name);
        let source = directory(&checkpoint.fixture);
        let model = StableDiffusion::load(source.path(), &LoadOptions::default()).unwrap();

        let file = checkpoint.folder.path().join("saved.safetensors");
        model.save_checkpoint(&file, DType::F32).unwrap();
        let names = tensors(&file).into_keys().filter(|name| !name.contains(UNUSED_LAYER));
        assert_eq!(names.collect::<BTreeSet<_>>(), checkpoint.needed(), "{name}");

        let model = StableDiffusion::load(&file, &checkpoint.options()).unwrap();
        let saved = checkpoint.folder.path().join("saved");
        model.save_directory(&saved, DType::F32).unwrap();
        for (path, shapes) in weight_files(&checkpoint.fixture) {
            assert_drawn(&saved.join(path), &shapes);
        }
    }
}

/// File to directory to file, and the directory has the tensors that diffusers' conversion makes.
#[test]
fn a_single_file_survives_the_way_through_a_directory() {
    for name in CHECKPOINTS {
        let checkpoint = Checkpoint::write(name);
        let options = checkpoint.options().use_ema(false);
        let model = StableDiffusion::load(checkpoint.file(), &options).unwrap();
        let saved = checkpoint.folder.path().join("saved");
        model.save_directory(&saved, DType::F32).unwrap();
        for (path, shapes) in weight_files(&checkpoint.fixture) {
            let found = tensors(&saved.join(&path)).into_iter().map(|(name, (shape, _))| (name, shape));
            assert_eq!(found.collect::<BTreeMap<_, _>>(), shapes, "{name}: {path}");
        }

        let model = StableDiffusion::load(&saved, &LoadOptions::default()).unwrap();
        let file = checkpoint.folder.path().join("saved.safetensors");
        model.save_checkpoint(&file, DType::F32).unwrap();
        let shapes: BTreeMap<_, _> = checkpoint.fixture.shapes("checkpoint").into_iter().collect();
        let needed = checkpoint.needed().into_iter().map(|name| (name.clone(), shapes[&name].clone()));
        assert_drawn(&file, &needed.collect());
    }
}

/// A U-Net for inpainting, which takes nine channels, comes out of a single file that its keys alone describe. (What it
/// draws is held against diffusers in tests/pipelines.rs.)
#[test]
fn nine_channels_survive_the_way_through_a_single_file() {
    let inputs = Fixture::open("pipeline_inpaint9");
    let [image, mask] = ["image", "mask"].map(|key| picture(&inputs, key));
    for name in CHECKPOINTS {
        let folder = tempfile::tempdir().unwrap();
        let [directory, file] = ["model", "model.safetensors"].map(|name| folder.path().join(name));
        write_nine_channels(&Fixture::open(name), &directory);
        let model = StableDiffusion::load(&directory, &LoadOptions::default()).unwrap();
        assert_eq!(model.unet.in_channels(), 9);
        model.save_checkpoint(&file, DType::F32).unwrap();
        let back = StableDiffusion::load(&file, &LoadOptions::default()).unwrap();
        assert_eq!(back.unet.in_channels(), 9);
        let [ours, theirs] = [&back, &model].map(|model| {
            let request = model.inpaint("a boat", &image, &mask).size(80, 64).steps(4).seed(5);
            request.guidance(7.5).run().unwrap()
        });
        assert_close(name, &ours.latents, &theirs.latents, 1e-5);
        let pixels = ours.images[0].as_raw().iter().zip(theirs.images[0].as_raw());
        assert!(pixels.map(|(a, b)| a.abs_diff(*b)).max().unwrap() <= 1, "{name}");
    }
}

/// The directory of a fixture with a U-Net of nine channels, which predicts the noise as every published one does.
fn write_nine_channels(fixture: &Fixture, directory: &Path) {
    write_directory(fixture, directory);
    let rewrite = |path: &str, key: &str, value: Value| {
        let path = directory.join(path);
        let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        json[key] = value;
        fs::write(path, json.to_string()).unwrap();
    };
    rewrite("unet/config.json", "in_channels", json!(9));
    rewrite("scheduler/scheduler_config.json", "prediction_type", json!("epsilon"));
    let unet = "unet/diffusion_pytorch_model.safetensors";
    let mut shapes = weight_files(fixture)[unet].clone();
    let first = shapes.get_mut("conv_in.weight").unwrap();
    first[1] = 9;
    write_weights(&directory.join(unet), &shapes.into_iter().collect::<Vec<_>>());
}

/// Saved and read back, a model of every family gives the same picture.
#[test]
fn a_saved_directory_draws_the_same() {
    for (name, key) in [
        ("pipeline_sd1", "ddim"),
        ("pipeline_sd2", "negative"),
        ("pipeline_sdxl", "default"),
        ("pipeline_inpaint9", "inpaint_ddim"),
    ] {
        let fixture = Fixture::open(name);
        let folder = tempfile::tempdir().unwrap();
        load(&fixture).save_directory(folder.path(), DType::F32).unwrap();
        let model = StableDiffusion::load(folder.path(), &LoadOptions::default()).unwrap();
        let output = run(&model, &fixture, &cases(&fixture)[key]).unwrap();
        assert_eq!(differences(&fixture, key, &output), None, "{name}");
    }
}

/// Whoever saves is told of every tensor of every file.
#[test]
fn saving_shows_how_far_it_is() {
    let model = load(&Fixture::open("pipeline_sd1"));
    let folder = tempfile::tempdir().unwrap();
    let mut seen: BTreeMap<PathBuf, Vec<(usize, usize)>> = BTreeMap::new();
    let mut see = |file: &Path, done: usize, of: usize| seen.entry(file.into()).or_default().push((done, of));
    model.save_directory_observed(folder.path().join("model"), DType::F32, &mut see).unwrap();
    model.save_checkpoint_observed(folder.path().join("model.safetensors"), DType::F32, &mut see).unwrap();
    assert_eq!(seen.len(), 4, "{:?}", seen.keys());
    for (file, told) in seen {
        let of = tensors(&file).len();
        assert_eq!(told, (1..=of).map(|done| (done, of)).collect::<Vec<_>>(), "{}", file.display());
    }
}

/// Half precision on disk is the weights rounded, and half as large.
#[test]
fn a_directory_can_be_saved_in_half_precision() {
    let fixture = Fixture::open("pipeline_sd1");
    let folder = tempfile::tempdir().unwrap();
    load(&fixture).save_directory(folder.path(), DType::F16).unwrap();
    for (path, shapes) in weight_files(&fixture) {
        for (name, (shape, values)) in tensors(&folder.path().join(&path)) {
            assert_eq!(shape, shapes[&name]);
            for (saved, drawn) in values.iter().zip(seeded_weight(&name, &shape)) {
                // f16 has 11 bits; below 2^-14 its steps are 2^-24.
                assert!((saved - drawn).abs() <= drawn.abs() / 2048.0 + 3e-8, "{path}: {name}");
            }
        }
    }
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let unet = "unet/diffusion_pytorch_model.safetensors";
    let full = directory(&fixture);
    assert!(size(&folder.path().join(unet)) < size(&full.path().join(unet)) * 6 / 10);
}

/// What diffusers and transformers write that says no more than an absent key does: their classes' defaults.
fn default_of(key: &str) -> Value {
    match key {
        "attention_dropout" => json!(0.0),
        "initializer_factor" | "resnet_out_scale_factor" => json!(1.0),
        "initializer_range" => json!(0.02),
        "addition_embed_type_num_heads" => json!(64),
        "attention_type" => json!("default"),
        "class_embeddings_concat" | "dual_cross_attention" | "resnet_skip_time_act" => json!(false),
        "conv_in_kernel" | "conv_out_kernel" => json!(3),
        _ => Value::Null,
    }
}

/// Notes of who wrote a file and how.
const NOTES: [&str; 6] =
    ["_diffusers_version", "transformers_version", "dtype", "backend", "is_local", "local_files_only"];

/// The JSON files of a saved directory say what those of the directory that it was loaded from say, key by key.
#[test]
fn a_saved_directory_has_the_configs_that_it_was_loaded_from() {
    for name in ["pipeline_sd1", "pipeline_sd2", "pipeline_sdxl", "pipeline_inpaint9", "pipeline_lcm"] {
        let fixture = Fixture::open(name);
        let folder = tempfile::tempdir().unwrap();
        load(&fixture).save_directory(folder.path(), DType::F32).unwrap();
        let files: BTreeMap<String, Value> = serde_json::from_value(fixture.json("files")).unwrap();
        let (mut wrong, mut equal) = (Vec::new(), 0);
        for (path, expected) in files {
            let saved = fs::read_to_string(folder.path().join(&path));
            let saved = saved.unwrap_or_else(|e| panic!("{name}: {path}: {e}"));
            let saved: Value = serde_json::from_str(&saved).unwrap();
            for (key, value) in expected.as_object().unwrap() {
                match saved.get(key) {
                    _ if NOTES.contains(&key.as_str()) => {}
                    Some(found) if same(found, value) => equal += 1,
                    Some(found) if key == "attention_head_dim" && same_heads(found, value, &expected) => {
                        equal += 1
                    }
                    None if same(&default_of(key), value) => {}
                    found => wrong.push(format!("{name}/{path}: {key}: {found:?} instead of {value}")),
                }
            }
        }
        assert!(wrong.is_empty() && equal > 60, "{equal} equal\n{}", wrong.join("\n"));
    }
}

/// A latent consistency model is one by its U-Net and its scheduler; with another sampler's it is a Stable Diffusion.
#[test]
fn a_latent_consistency_model_is_saved_as_its_own_pipeline() {
    let mut model = load(&Fixture::open("pipeline_lcm"));
    let ddim = model.scheduler.clone().with("_class_name", "DDIMScheduler");
    let class = |model: &StableDiffusion| {
        let folder = tempfile::tempdir().unwrap();
        model.save_directory(folder.path(), DType::F32).unwrap();
        let index = fs::read_to_string(folder.path().join("model_index.json")).unwrap();
        let again = StableDiffusion::load(folder.path(), &LoadOptions::default()).unwrap();
        assert_eq!((again.family, &again.scheduler), (model.family, &model.scheduler));
        serde_json::from_str::<Value>(&index).unwrap()["_class_name"].clone()
    };
    assert_eq!(class(&model), "LatentConsistencyModelPipeline");
    model.scheduler = ddim;
    assert_eq!(class(&model), "StableDiffusionPipeline");

    let mut model = load(&Fixture::open("pipeline_sd1"));
    model.scheduler = model.scheduler.with("_class_name", "LCMScheduler");
    assert_eq!(class(&model), "StableDiffusionPipeline");
}

/// Equal at the levels that have attention; those without have no heads to count.
fn same_heads(a: &Value, b: &Value, unet: &Value) -> bool {
    let (Value::Array(a), Value::Array(b)) = (a, b) else { return false };
    let levels = unet["down_block_types"].as_array().unwrap();
    let attends = |i: usize| levels[i].as_str().unwrap().starts_with("CrossAttn");
    a.len() == b.len() && (0..a.len()).all(|i| !attends(i) || same(&a[i], &b[i]))
}

/// Equal, numbers by value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

/// Splits a safetensors file into two shards with an index; gives the index.
fn shard(path: &Path) -> PathBuf {
    let all: Vec<_> = tensors(path).into_iter().collect();
    fs::remove_file(path).unwrap();
    let (stem, mut map) = (path.file_stem().unwrap().to_str().unwrap(), serde_json::Map::new());
    for (i, part) in all.chunks(all.len().div_ceil(2)).enumerate() {
        let name = format!("{stem}-{:05}-of-00002.safetensors", i + 1);
        let mut saver = Saver::new();
        for (key, (shape, values)) in part {
            saver = saver.add_tensor(key, TensorData::new(values.clone(), shape.clone()));
            map.insert(key.clone(), Value::from(name.clone()));
        }
        saver.write(path.with_file_name(name)).unwrap();
    }
    let index = path.with_file_name(format!("{stem}.safetensors.index.json"));
    fs::write(&index, json!({"metadata": {"total_size": 0}, "weight_map": map}).to_string()).unwrap();
    index
}

/// As published directories come: a U-Net in shards, a text encoder in a variant, a first stage that `torch.save` wrote.
#[test]
fn a_directory_of_shards_variants_and_pickles_is_read() {
    let fixture = Fixture::open("pipeline_sd1");
    let (plain, mixed) = (directory(&fixture), directory(&fixture));
    let vae = "vae/diffusion_pytorch_model.safetensors";
    // All tensors of the pickle are views of one storage, which is drawn from a name.
    let shapes = &weight_files(&fixture)[vae];
    let size = |shape: &[usize]| shape.iter().product::<usize>();
    let largest = shapes.values().map(|shape| size(shape)).max().unwrap();
    let storage = seeded_input("weights_vae", [largest], &Device::default()).into_data();
    let storage: Vec<f32> = storage.try_to_vec::<f32>().unwrap().iter().map(|v| v * 0.05).collect();
    let saver = shapes.iter().fold(Saver::new(), |saver, (name, shape)| {
        saver.add_tensor(name, TensorData::new(storage[..size(shape)].to_vec(), shape.clone()))
    });
    saver.write(plain.path().join(vae)).unwrap();

    fs::remove_file(mixed.path().join(vae)).unwrap();
    let pickle = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/weights_vae.bin");
    fs::copy(pickle, mixed.path().join("vae/diffusion_pytorch_model.bin")).unwrap();
    let text = mixed.path().join("text_encoder/model.safetensors");
    fs::rename(&text, text.with_file_name("model.fp16.safetensors")).unwrap();
    let index = shard(&mixed.path().join("unet/diffusion_pytorch_model.safetensors"));

    let case = &cases(&fixture)["ddim"];
    let draw = |folder: &Path, options: LoadOptions| {
        run(&StableDiffusion::load(folder, &options).unwrap(), &fixture, case).unwrap()
    };
    let expected = draw(plain.path(), LoadOptions::default());
    let theirs = fixture.tensor("ddim.latents", &Device::default());
    assert_close("latents", &expected.latents, &theirs, RUN_TOLERANCE);
    let fp16 = || LoadOptions::default().variant("fp16");
    let same = |what: &str, options: LoadOptions| {
        let drawn = draw(mixed.path(), options);
        assert!(drawn.images == expected.images, "{what}");
        assert_eq!(drawn.latents.to_data(), expected.latents.to_data(), "{what}");
    };
    same("a variant of one part", fp16());
    same("no variant asked for", LoadOptions::default());
    fs::rename(&index, index.with_file_name("diffusion_pytorch_model.safetensors.index.fp16.json")).unwrap();
    same("shards of a variant", fp16());

    // A variant that no part has is an error, as in diffusers.
    let error = StableDiffusion::load(mixed.path(), &LoadOptions::default().variant("bf16")).unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, ldm::Error::MissingPart { .. }) && told.contains("`bf16`"), "{told}");
}

/// The directory of diffusers' latent diffusion pipeline gives its pictures, as it was published and as it is saved.
#[test]
fn the_papers_text_to_image_directory_draws_and_is_saved() {
    let fixture = Fixture::open("ldm_pipeline_text");
    let (source, saved) = (directory(&fixture), tempfile::tempdir().unwrap());
    let model = StableDiffusion::load(source.path(), &LoadOptions::default()).unwrap();
    assert_eq!((model.family, model.default_size), (Family::LatentDiffusion, [32, 32]));
    model.save_directory(saved.path(), DType::F32).unwrap();
    for (path, mut shapes) in weight_files(&fixture) {
        // The head that BERT was trained with is no part of tau_theta.
        shapes.retain(|name, _| !name.starts_with("to_logits."));
        assert_drawn(&saved.path().join(path), &shapes);
    }
    for (what, folder) in [("published", source.path()), ("saved", saved.path())] {
        let model = StableDiffusion::load(folder, &LoadOptions::default()).unwrap();
        for (i, case) in fixture.json("cases").as_array().unwrap().iter().enumerate() {
            let prompts: Vec<String> = serde_json::from_value(case["prompt"].clone()).unwrap();
            let request = model.text_to_image("").prompts(&prompts).steps(20).seed(3);
            let request = request.guidance(case["guidance_scale"].as_f64().unwrap());
            let output = request.eta(case["eta"].as_f64().unwrap_or(0.0)).run().unwrap();
            assert_eq!(output.images.len(), prompts.len());
            let pictures: Tensor<4> = (model.decode(output.latents).unwrap() / 2.0 + 0.5).clamp(0.0, 1.0);
            let expected = fixture.tensor(&format!("{i}.pictures"), &Device::default());
            assert_close(&format!("{what} {case}"), &pictures, &expected, RUN_TOLERANCE);
        }
    }
}

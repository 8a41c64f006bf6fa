//! What the tests at the top share: tiny models on disk, as fixtures describe them, and pictures compared.
#![allow(dead_code, reason = "each test file takes what it needs")]

pub mod program;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::Device;
use flate2::read::GzDecoder;
use image::RgbImage;
use ldm::pipeline::{Output, Request};
use ldm::scheduler::SchedulerConfig;
use ldm::{LoadOptions, StableDiffusion};
use ldm_test_support::{Fixture, relative_difference, seeded_input, write_weights};
use serde_json::Value;
use tempfile::TempDir;

/// The largest difference of a latent over a whole run, relative to the largest latent.
pub const RUN_TOLERANCE: f64 = 1e-3;

type Shapes = BTreeMap<String, Vec<usize>>;

/// The words of bert-base-uncased, which a fixture with a `bert` folder goes by.
const WORDS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../ldm-conditioning/assets/bert_base_uncased_vocab.txt");

/// Writes the model directory that a fixture describes (metadata `files` and `weights`) into `directory`.
pub fn write_directory(fixture: &Fixture, directory: &Path) {
    let files: BTreeMap<String, Value> = serde_json::from_value(fixture.json("files")).unwrap();
    for (name, content) in files {
        let path = directory.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, serde_json::to_string_pretty(&content).unwrap()).unwrap();
        if name.ends_with("tokenizer_config.json") {
            write_vocabulary(path.parent().unwrap());
        }
    }
    for (name, shapes) in weight_files(fixture) {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_weights(&path, &shapes.into_iter().collect::<Vec<_>>());
    }
    if directory.join("bert").is_dir() {
        fs::create_dir_all(directory.join("tokenizer")).unwrap();
        fs::copy(WORDS, directory.join("tokenizer/vocab.txt")).unwrap();
    }
}

/// The directory's weight files: path, then name and shape of every tensor.
pub fn weight_files(fixture: &Fixture) -> BTreeMap<String, Shapes> {
    serde_json::from_value(fixture.json("weights")).unwrap()
}

/// The directory of a fixture in a temporary folder.
pub fn directory(fixture: &Fixture) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_directory(fixture, folder.path());
    folder
}

/// The model of a fixture, loaded on the default device.
pub fn load(fixture: &Fixture) -> StableDiffusion {
    let folder = directory(fixture);
    StableDiffusion::load(folder.path(), &LoadOptions::default()).unwrap()
}

/// CLIP's vocab.json and merges.txt, from its published list of merges.
pub fn write_vocabulary(folder: &Path) {
    static FILES: OnceLock<(String, String)> = OnceLock::new();
    let (vocab, merges) = FILES.get_or_init(|| {
        let packed = include_bytes!("../../crates/ldm-conditioning/assets/bpe_simple_vocab_16e6.txt.gz");
        let mut list = String::new();
        GzDecoder::new(packed.as_slice()).read_to_string(&mut list).unwrap();
        let merges: Vec<&str> = list.lines().skip(1).take(49_408 - 2 * 256 - 2).collect();
        let printable = |b: &u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let shifted = (0..256).filter(|b| !printable(b)).zip(256..).map(|(_, c)| c);
        let letters = (0..256).filter(printable).chain(shifted).filter_map(char::from_u32);
        let letters: Vec<String> = letters.map(String::from).collect();
        let ends = letters.iter().map(|c| format!("{c}</w>"));
        let merged = merges.iter().map(|m| m.replace(' ', ""));
        let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
        let tokens = letters.iter().cloned().chain(ends).chain(merged).chain(special);
        let ids: serde_json::Map<String, Value> = tokens.zip(0..).map(|(t, i)| (t, Value::from(i))).collect();
        assert_eq!(ids.len(), 49_408);
        let merges = merges.iter().fold("#version: 0.2\n".to_string(), |mut text, merge| {
            writeln!(text, "{merge}").unwrap();
            text
        });
        (serde_json::to_string(&ids).unwrap(), merges)
    });
    fs::write(folder.join("vocab.json"), vocab).unwrap();
    fs::write(folder.join("merges.txt"), merges).unwrap();
}

/// The runs of a fixture: name and arguments.
pub fn cases(fixture: &Fixture) -> BTreeMap<String, Value> {
    serde_json::from_value(fixture.json("cases")).unwrap()
}

/// An RGB input picture of a fixture.
pub fn picture(fixture: &Fixture, key: &str) -> image::DynamicImage {
    let (shape, bytes) = fixture.bytes(key);
    let (h, w) = (shape[0] as u32, shape[1] as u32);
    match shape.len() {
        3 => image::RgbImage::from_raw(w, h, bytes).unwrap().into(),
        _ => image::GrayImage::from_raw(w, h, bytes).unwrap().into(),
    }
}

fn list<T: serde::de::DeserializeOwned>(case: &Value, key: &str) -> Option<T> {
    case.get(key).map(|value| serde_json::from_value(value.clone()).unwrap())
}

/// The model with the scheduler config of a case whose sampler's name doesn't say it all.
pub fn with_scheduler(model: &StableDiffusion, case: &Value) -> StableDiffusion {
    let mut model = model.clone();
    let class = case["scheduler"]["_class_name"].as_str().unwrap();
    if case.get("sampler").is_none() && model.scheduler.kind().unwrap().class_name() != class {
        model.scheduler = SchedulerConfig::from_json(&case["scheduler"].to_string()).unwrap();
    }
    model
}

/// The arguments of a case but prompts, pictures and sizes.
pub fn arguments<'a>(mut request: Request<'a>, case: &Value) -> Request<'a> {
    request = request
        .steps(list(case, "num_inference_steps").unwrap())
        .guidance(list(case, "guidance_scale").unwrap())
        .guidance_rescale(list(case, "guidance_rescale").unwrap_or(0.0))
        .eta(list(case, "eta").unwrap_or(0.0))
        .count(list(case, "num_images_per_prompt").unwrap_or(1))
        .prompts(list::<Vec<String>>(case, "prompt").unwrap());
    request = match &case["seed"] {
        Value::Array(_) => request.seeds(list::<Vec<u64>>(case, "seed").unwrap()),
        _ => request.seed(list(case, "seed").unwrap()),
    };
    if let Some(negative) = list::<Vec<String>>(case, "negative_prompt") {
        request = request.negative_prompts(negative);
    }
    if let Some(sampler) = case.get("sampler") {
        request = request.sampler(sampler.as_str().unwrap().parse().unwrap());
    }
    if let Some(strength) = list(case, "strength") {
        request = request.strength(strength);
    }
    if let (Some(width), Some(height)) = (list(case, "width"), list(case, "height")) {
        request = request.size(width, height);
    }
    if let Some((name, shape)) = list::<(String, [usize; 4])>(case, "latents") {
        request = request.latents(seeded_input(&name, shape, &Device::default()));
    }
    request
}

/// Runs a case as diffusers did.
pub fn run(model: &StableDiffusion, fixture: &Fixture, case: &Value) -> Result<Output, ldm::Error> {
    let model = with_scheduler(model, case);
    let pipeline = case["pipeline"].as_str().unwrap();
    let given = |key: &str| picture(fixture, case[key].as_str().unwrap());
    let request = if pipeline.contains("Img2Img") {
        model.image_to_image("", &given("image"))
    } else if pipeline.contains("Inpaint") {
        model.inpaint("", &given("image"), &given("mask"))
    } else {
        model.text_to_image("")
    };
    let mut request = arguments(request, case);
    let pair = |key| list::<[u32; 2]>(case, key);
    if let (Some(original), Some(crop), Some(target)) =
        (pair("original_size"), pair("crops_coords_top_left"), pair("target_size"))
    {
        request = request.size_conditioning(ldm::pipeline::SizeConditioning { original, crop, target });
    }
    request.run()
}

/// What differs from diffusers' run `key`, or nothing: pictures within 1 of 255 at every pixel, latents
/// within [`RUN_TOLERANCE`].
pub fn differences(fixture: &Fixture, key: &str, output: &Output) -> Option<String> {
    let expected = fixture.tensor(&format!("{key}.latents"), &Device::default());
    let latents = relative_difference(&output.latents, &expected);
    let (shape, bytes) = fixture.bytes(&format!("{key}.image"));
    let pixels = largest_difference(&output.images, &shape, &bytes);
    println!("{key}: latents {latents:.1e}, pixels {pixels}");
    let fits = latents <= RUN_TOLERANCE && pixels <= 1;
    (!fits).then(|| format!("{key}: latents {latents:.1e}, pixels {pixels}"))
}

/// Over all pictures, against `[n, h, w, 3]`; 256 where the sizes differ.
fn largest_difference(images: &[RgbImage], shape: &[usize], bytes: &[u8]) -> u16 {
    let sizes = images.iter().all(|i| [i.height() as usize, i.width() as usize] == shape[1..3]);
    if images.len() != shape[0] || !sizes {
        return 256;
    }
    let ours = images.iter().flat_map(|i| i.as_raw());
    ours.zip(bytes).map(|(a, b)| u16::from(a.abs_diff(*b))).max().unwrap()
}

//! The examples as people run them: processes with arguments, exit codes and files.
//!
//! Cargo builds the examples whenever it runs all tests (`cargo test --workspace --release`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use common::program::{example, refuses, succeeds, text};
use common::{cases, directory, picture, write_directory};
use ldm::nn::weights::{Saver, WeightFile};
use ldm_test_support::{
    Fixture, assert_close, relative_difference, seeded_input, seeded_weight, write_weights,
};
use serde_json::{Value, json};

const NAMES: [&str; 7] =
    ["text_to_image", "image_to_image", "inpaint", "convert", "forward", "evaluate", "fine_tune"];

/// The largest difference of a written PNG from diffusers' picture; 256 where the sizes differ.
fn difference(fixture: &Fixture, key: &str, item: usize, path: &Path) -> u16 {
    let ours = image::open(path).unwrap().to_rgb8();
    let (shape, bytes) = fixture.bytes(key);
    let [h, w] = [shape[1], shape[2]];
    if ours.dimensions() != (w as u32, h as u32) {
        return 256;
    }
    let theirs = &bytes[item * h * w * 3..(item + 1) * h * w * 3];
    ours.as_raw().iter().zip(theirs).map(|(a, b)| u16::from(a.abs_diff(*b))).max().unwrap()
}

/// What a PNG says about how it was made.
fn parameters(path: &Path) -> String {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let reader = decoder.read_info().unwrap();
    let chunk = reader.info().utf8_text.iter().find(|chunk| chunk.keyword == "parameters").unwrap();
    chunk.get_text().unwrap()
}

#[test]
fn help_names_every_argument() {
    for name in NAMES {
        assert!(succeeds(name, &["--help"]).contains("Usage:"), "{name}");
    }
    let help = succeeds("text_to_image", &["--help"]);
    for argument in [
        "--model",
        "--prompt",
        "--negative-prompt",
        "--steps",
        "--guidance",
        "--sampler",
        "--seed",
        "--width",
        "--height",
        "--count",
        "--dtype",
        "--device",
        "--rng",
        "--latents",
        "--save-latents",
        "--lora",
        "--prediction-type",
        "--output",
    ] {
        assert!(help.contains(argument), "{argument} is not in {help}");
    }
    let help = succeeds("forward", &["--help"]);
    for argument in
        ["--model", "--checkpoint", "--config", "--part", "--inputs", "--output", "--device", "--dtype"]
    {
        assert!(help.contains(argument), "{argument} is not in {help}");
    }
}

#[test]
fn text_to_image_draws_diffusers_picture_and_says_how() {
    let fixture = Fixture::open("pipeline_sd1");
    let model = directory(&fixture);
    let case = &cases(&fixture)["negative"];
    let prompt = case["prompt"][0].as_str().unwrap();
    let (output, latents) = (model.path().join("fox.png"), model.path().join("fox.safetensors"));
    succeeds(
        "text_to_image",
        &[
            "--model",
            text(model.path()),
            "--prompt",
            prompt,
            "--negative-prompt",
            "blurry, low quality",
            "--steps",
            "6",
            "--guidance",
            "7.5",
            "--sampler",
            "ddim",
            "--seed",
            "33",
            "--width",
            "64",
            "--height",
            "64",
            "--rng",
            "torch",
            "--dtype",
            "f32",
            "--output",
            text(&output),
            "--save-latents",
            text(&latents),
        ],
    );
    assert!(difference(&fixture, "negative.image", 0, &output) <= 1);
    let told = parameters(&output);
    for part in [
        prompt,
        "Negative prompt: blurry, low quality",
        "Steps: 6",
        "Sampler: ddim",
        "CFG scale: 7.5",
        "Seed: 33",
        "Size: 64x64",
    ] {
        assert!(told.contains(part), "`{part}` is not in {told}");
    }
    let device = Device::default();
    let (shape, values) = WeightFile::open(&latents).unwrap().read_f32("latents").unwrap();
    let saved = Tensor::<4>::from_data(TensorData::new(values, shape), &device);
    assert_close(
        "saved latents",
        &saved,
        &fixture.tensor("negative.latents", &device),
        common::RUN_TOLERANCE,
    );
}

/// The mean difference of a written PNG from diffusers' picture.
fn mean_difference(fixture: &Fixture, key: &str, path: &Path) -> f64 {
    let ours = image::open(path).unwrap().to_rgb8();
    let (_, theirs) = fixture.bytes(key);
    assert_eq!(ours.as_raw().len(), theirs.len());
    let sum: f64 = ours.as_raw().iter().zip(&theirs).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    sum / theirs.len() as f64
}

/// Generator, device and float type are as asked for.
#[test]
fn generator_device_and_type_can_be_chosen() {
    let fixture = Fixture::open("pipeline_sd1");
    let model = directory(&fixture);
    let output = model.path().join("out.png");
    let cases = cases(&fixture);
    let prompt = cases["ddim"]["prompt"][0].as_str().unwrap();
    let shared = ["--model", text(model.path()), "--prompt", prompt, "--sampler", "ddim", "--steps", "6"];
    let more = ["--seed", "33", "--width", "64", "--height", "64", "--output", text(&output)];
    let draw = |chosen: &[&'static str]| {
        succeeds("text_to_image", &[&shared[..], &more, chosen].concat());
        (difference(&fixture, "ddim.image", 0, &output), mean_difference(&fixture, "ddim.image", &output))
    };
    assert!(draw(&["--device", "flex"]).0 <= 1);
    assert!(parameters(&output).contains("RNG: Torch"));
    // Other noise, another picture.
    assert!(draw(&["--rng", "native"]).1 > 5.0);
    assert!(parameters(&output).contains("RNG: Native"));
    // Latents within 1e-2 are pictures within a few of 255; PyTorch's own f16 differs by 0.2 in the mean.
    let (_, mean) = draw(&["--device", "flex", "--dtype", "f16"]);
    assert!(mean < 1.0, "{mean}");
    assert!(parameters(&output).contains("Type: f16"));
}

/// A picture says what was used, whether or not it was asked for.
#[test]
fn a_picture_says_what_nobody_said() {
    let fixture = Fixture::open("pipeline_sd1");
    let model = directory(&fixture);
    let output = model.path().join("out.png");
    let shared =
        ["--model", text(model.path()), "--prompt", "a boat", "--steps", "1", "--output", text(&output)];
    succeeds("text_to_image", &shared);
    let told = parameters(&output);
    assert!(told.contains("CFG scale: 7.5") && told.contains("Sampler: pndm"), "{told}");
    assert!(told.contains("Size: 64x64") && !told.contains("Eta") && !told.contains("rescale"), "{told}");

    let more =
        ["--sampler", "ddim", "--eta", "0.5", "--guidance-rescale", "0.7", "--width", "32", "--height", "48"];
    succeeds("text_to_image", &[&shared[..], &more].concat());
    let told = parameters(&output);
    for part in ["Size: 32x48", "Eta: 0.5", "Guidance rescale: 0.7"] {
        assert!(told.contains(part), "`{part}` is not in {told}");
    }
    // Other samplers have no eta.
    let more = ["--sampler", "euler", "--eta", "0.5", "--width", "32"];
    succeeds("text_to_image", &[&shared[..], &more].concat());
    assert!(!parameters(&output).contains("Eta"));
}

/// How far a picture is redrawn is the family's affair.
#[test]
fn strengths_that_are_not_given_are_the_familys() {
    for (name, image_strength, inpaint_strength) in
        [("pipeline_sd1", "0.8", "1"), ("pipeline_sdxl", "0.3", "0.9999")]
    {
        let model = directory(&Fixture::open(name));
        let [picture, output] = ["in.png", "out.png"].map(|name| model.path().join(name));
        image::RgbImage::from_pixel(32, 32, image::Rgb([200, 90, 10])).save(&picture).unwrap();
        let shared = ["--model", text(model.path()), "--prompt", "a boat", "--steps", "4", "--width", "32"];
        let more = ["--height", "32", "--image", text(&picture), "--output", text(&output)];
        let shared = [&shared[..], &more].concat();
        succeeds("image_to_image", &shared);
        assert!(parameters(&output).ends_with(&format!("Denoising strength: {image_strength}")));
        succeeds("inpaint", &[&shared[..], &["--mask", text(&picture)]].concat());
        assert!(parameters(&output).ends_with(&format!("Denoising strength: {inpaint_strength}")));
    }
}

/// What a run writes on stderr.
fn warnings(name: &str, arguments: &[&str]) -> String {
    let output = example(name, arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {told}");
    told
}

#[test]
fn words_that_a_long_prompt_loses_are_told() {
    let model = directory(&Fixture::open("pipeline_sd1"));
    let output = model.path().join("out.png");
    let with = |prompt: &str| {
        let shared = ["--model", text(model.path()), "--steps", "1", "--width", "16", "--height", "16"];
        warnings("text_to_image", &[&shared[..], &["--output", text(&output), "--prompt", prompt]].concat())
    };
    let fits = "fox ".repeat(75);
    assert!(!with(&fits).contains("WARN"));
    let told = with(&format!("{fits} with a red hat"));
    assert!(told.contains("WARN") && told.contains("cut") && told.contains("\"with a red hat\""), "{told}");
}

/// Tensors that no part of a model asks for are listed; what checkpoints are known to hold is not.
#[test]
fn tensors_outside_every_part_are_told() {
    for name in ["checkpoint_sd1", "checkpoint_sd2", "checkpoint_sdxl"] {
        let fixture = Fixture::open(name);
        let folder = tempfile::tempdir().unwrap();
        let [file, output] = ["model.safetensors", "model"].map(|name| folder.path().join(name));
        let mut shapes = fixture.shapes("checkpoint");
        let mut told = || {
            write_weights(&file, &shapes);
            shapes.push(("junk.weight".into(), vec![2, 2]));
            warnings("convert", &["--model", text(&file), "--output", text(&output), "--force"])
        };
        let told: [String; 2] = [told(), told()];
        assert!(!told[0].contains("WARN"), "{name}: {}", told[0]);
        assert!(told[1].contains("WARN") && told[1].contains("[\"junk.weight\"]"), "{name}: {}", told[1]);
    }
}

#[test]
fn text_to_image_starts_from_given_latents() {
    let fixture = Fixture::open("pipeline_sd1");
    let model = directory(&fixture);
    let case = &cases(&fixture)["given_latents"];
    let (name, shape): (String, [usize; 4]) = serde_json::from_value(case["latents"].clone()).unwrap();
    let latents = model.path().join("latents.safetensors");
    let given = seeded_input(&name, shape, &Device::default()).into_data();
    Saver::new().add_tensor("latents", given).write(&latents).unwrap();
    let output = model.path().join("out.png");
    let prompt = case["prompt"][0].as_str().unwrap();
    succeeds(
        "text_to_image",
        &[
            "--model",
            text(model.path()),
            "--prompt",
            prompt,
            "--steps",
            "6",
            "--sampler",
            "lms",
            "--latents",
            text(&latents),
            "--output",
            text(&output),
        ],
    );
    assert!(difference(&fixture, "given_latents.image", 0, &output) <= 1);
}

/// The keys of a Stable Diffusion 2 don't tell that it predicts the noise.
#[test]
fn what_a_single_file_predicts_can_be_said() {
    let fixture = Fixture::open("checkpoint_sd2");
    let folder = tempfile::tempdir().unwrap();
    let [file, output] = ["model.safetensors", "out.png"].map(|name| folder.path().join(name));
    write_weights(&file, &fixture.shapes("checkpoint"));
    let cases = cases(&fixture);
    let prompt = cases["image"]["prompt"][0].as_str().unwrap();
    let shared = ["--model", text(&file), "--prompt", prompt, "--steps", "6", "--seed", "7", "--width", "64"];
    let shared = [&shared[..], &["--height", "64", "--output", text(&output)]].concat();
    succeeds("text_to_image", &shared);
    assert!(difference(&fixture, "image.image", 0, &output) <= 1);
    let said = |prediction: &'static str| [&shared[..], &["--prediction-type", prediction]].concat();
    succeeds("text_to_image", &said("epsilon"));
    assert!(difference(&fixture, "image_epsilon.image", 0, &output) <= 1);
    refuses("text_to_image", &said("squirrel"), 1, &["prediction_type", "squirrel", "v_prediction"]);
}

#[test]
fn several_pictures_are_numbered() {
    let fixture = Fixture::open("pipeline_sd1");
    let model = directory(&fixture);
    let output = model.path().join("many.png");
    let said = succeeds(
        "text_to_image",
        &[
            "--model",
            text(model.path()),
            "--prompt",
            "a boat",
            "--steps",
            "1",
            "--count",
            "2",
            "--output",
            text(&output),
        ],
    );
    assert!(said.contains("many-1.png") && said.contains("many-2.png"), "{said}");
    let [first, second] =
        ["many-1.png", "many-2.png"].map(|name| image::open(model.path().join(name)).unwrap());
    assert_ne!(first, second);
}

#[test]
fn image_to_image_and_inpaint_read_pictures() {
    let fixture = Fixture::open("pipeline_sd1_image");
    let model = directory(&fixture);
    let [image, mask, output] = ["image.png", "mask.png", "out.png"].map(|name| model.path().join(name));
    picture(&fixture, "image").save(&image).unwrap();
    picture(&fixture, "mask").save(&mask).unwrap();
    let all = cases(&fixture);
    let shared = [
        "--model",
        text(model.path()),
        "--seed",
        "33",
        "--steps",
        "8",
        "--output",
        text(&output),
        "--image",
        text(&image),
        "--strength",
        "0.6",
    ];
    let prompt = |key: &str| all[key]["prompt"][0].as_str().unwrap();

    let more = ["--prompt", prompt("img2img_euler_a"), "--sampler", "euler_a"];
    succeeds("image_to_image", &[&shared[..], &more].concat());
    assert!(difference(&fixture, "img2img_euler_a.image", 0, &output) <= 1);
    assert!(parameters(&output).contains("Denoising strength: 0.6"));

    let more = [
        "--prompt",
        prompt("inpaint_ddim"),
        "--sampler",
        "ddim",
        "--mask",
        text(&mask),
        "--width",
        "80",
        "--height",
        "64",
    ];
    succeeds("inpaint", &[&shared[..], &more].concat());
    assert!(difference(&fixture, "inpaint_ddim.image", 0, &output) <= 1);
}

#[test]
fn convert_goes_both_ways() {
    let fixture = Fixture::open("checkpoint_sd1");
    let source = directory(&fixture);
    let folder = tempfile::tempdir().unwrap();
    let [file, yaml, back] = ["model.safetensors", "model.yaml", "back"].map(|name| folder.path().join(name));
    fs::write(&yaml, fixture.json("yaml").as_str().unwrap()).unwrap();
    succeeds("convert", &["--model", text(source.path()), "--output", text(&file)]);
    succeeds("convert", &["--model", text(&file), "--config", text(&yaml), "--output", text(&back)]);
    let unet = "unet/diffusion_pytorch_model.safetensors";
    let tensors = |folder: &Path| -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let file = WeightFile::open(folder.join(unet)).unwrap();
        file.tensors().map(|t| (t.name.clone(), file.read_f32(&t.name).unwrap())).collect()
    };
    assert!(tensors(source.path()) == tensors(&back));

    refuses(
        "convert",
        &["--model", text(source.path()), "--output", text(&file)],
        1,
        &["--output", "--force"],
    );
    succeeds(
        "convert",
        &["--model", text(source.path()), "--output", text(&file), "--force", "--save-dtype", "f16"],
    );
}

#[test]
fn what_can_not_be_done_is_told() {
    let fixture = Fixture::open("pipeline_sd1");
    let model = directory(&fixture);
    let model = text(model.path());
    refuses("text_to_image", &["--model", "/no/such/model", "--prompt", "x"], 1, &["/no/such/model"]);
    refuses("text_to_image", &["--model", model], 1, &["--prompt"]);
    refuses("text_to_image", &["--model", model, "--prompts", "/no/such/file"], 1, &["/no/such/file"]);
    let with = |more: &[&'static str]| [&["--model", model, "--prompt", "x"], more].concat();
    refuses("text_to_image", &with(&["--sampler", "squirrel"]), 2, &["squirrel", "dpmpp_2m"]);
    refuses("text_to_image", &with(&["--steps", "0"]), 1, &["steps"]);
    refuses("text_to_image", &with(&["--width", "63"]), 1, &["width", "63"]);
    refuses("text_to_image", &with(&["--device", "abacus"]), 1, &["abacus"]);
    refuses("text_to_image", &with(&["--dtype", "f12"]), 1, &["f12", "bf16"]);
    refuses("text_to_image", &with(&["--output", "x.jpg"]), 1, &["--output", ".png"]);
    refuses("text_to_image", &with(&["--output", "/no/such/folder/x.png"]), 1, &["/no/such/folder"]);
    refuses("text_to_image", &with(&["--latents", "/no/such/file"]), 1, &["/no/such/file"]);
    refuses("image_to_image", &with(&["--image", "/no/such.png"]), 1, &["/no/such.png"]);
    refuses("inpaint", &with(&["--image", "/no/such.png", "--mask", "/no/mask.png"]), 1, &["/no/such.png"]);
    refuses("convert", &["--model", model, "--output", "/no/such/folder/x"], 1, &["/no/such/folder"]);
}

/// Runs every call of a fixture with nothing but the part's own folder there.
fn forward_calls(name: &str) {
    let fixture = Fixture::open(name);
    let folder = tempfile::tempdir().unwrap();
    let all = folder.path().join("all");
    write_directory(&fixture, &all);
    let calls: Vec<Value> = serde_json::from_value(fixture.json("calls")).unwrap();
    let device = Device::default();
    for call in &calls {
        let [name, part, part_folder] = ["name", "part", "folder"].map(|key| call[key].as_str().unwrap());
        let alone = folder.path().join(name);
        fs::create_dir(&alone).unwrap();
        fs::rename(all.join(part_folder), alone.join(part_folder)).unwrap();

        let mut inputs = Saver::new();
        for (key, drawn) in call["drawn"].as_object().unwrap() {
            inputs = inputs.add_tensor(key, drawn_input(drawn, &device));
        }
        for key in call["given"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()) {
            let stored = format!("{name}.in.{key}");
            let data = match key {
                "timestep" | "class_labels" => fixture.int::<1>(&stored, &device).into_data(),
                _ => fixture.int::<2>(&stored, &device).into_data(),
            };
            inputs = inputs.add_tensor(key, data.convert::<i64>());
        }
        let [input, output] = ["in.safetensors", "out.safetensors"].map(|file| alone.join(file));
        inputs.write(&input).unwrap();
        succeeds(
            "forward",
            &["--model", text(&alone), "--part", part, "--inputs", text(&input), "--output", text(&output)],
        );

        let file = WeightFile::open(&output).unwrap();
        let keys: Vec<&str> =
            call["outputs"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
        assert_eq!(file.tensors().count(), keys.len(), "{name}");
        for key in keys {
            let (shape, values) = file.read_f32(key).unwrap();
            let flat =
                Tensor::<1>::from_data(TensorData::new(values, [shape.iter().product::<usize>()]), &device);
            let (expected_shape, expected) =
                flattened(&fixture, &format!("{name}.out.{key}"), shape.len(), &device);
            assert_eq!(shape, expected_shape, "{name}: {key}");
            let difference = relative_difference(&flat, &expected);
            println!("{name}: {key}: {difference:.1e}");
            assert!(difference <= 1e-4, "{name}: {key}: {difference:.1e}");
        }
        fs::rename(alone.join(part_folder), all.join(part_folder)).unwrap();
    }
}

fn drawn_input(drawn: &Value, device: &Device) -> TensorData {
    let name = drawn["name"].as_str().unwrap();
    let shape: Vec<usize> = serde_json::from_value(drawn["shape"].clone()).unwrap();
    let n = shape.iter().product();
    let values = seeded_input(name, [n], device).into_data().try_to_vec::<f32>().unwrap();
    TensorData::new(values, shape)
}

fn flattened(fixture: &Fixture, key: &str, axes: usize, device: &Device) -> (Vec<usize>, Tensor<1>) {
    fn flat<const D: usize>(tensor: Tensor<D>) -> (Vec<usize>, Tensor<1>) {
        let shape = tensor.dims();
        (shape.to_vec(), tensor.reshape([shape.iter().product::<usize>()]))
    }
    match axes {
        2 => flat(fixture.tensor::<2>(key, device)),
        3 => flat(fixture.tensor::<3>(key, device)),
        _ => flat(fixture.tensor::<4>(key, device)),
    }
}

#[test]
fn forward_gives_what_diffusers_gives() {
    forward_calls("forward_sd1");
    forward_calls("forward_sdxl");
    forward_calls("forward_unconditional");
    forward_calls("forward_lcm");
    for kind in ["timestep", "identity", "projection", "simple_projection"] {
        forward_calls(&format!("forward_label_{kind}"));
    }
}

/// A first stage alone, as PyTorch Lightning 1.4 pickled it: classes as keys, optimiser and all.
#[test]
fn forward_reads_a_part_out_of_a_lightning_checkpoint() {
    let fixture = Fixture::open("lightning_vae");
    let folder = tempfile::tempdir().unwrap();
    let checkpoint =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/lightning_vae.ckpt"));
    let [yaml, input, output] =
        ["vae.yaml", "in.safetensors", "out.safetensors"].map(|name| folder.path().join(name));
    fs::write(&yaml, fixture.json("yaml").as_str().unwrap()).unwrap();
    let device = Device::default();
    let calls: [(&str, &str, [usize; 4], &[&str]); 2] = [
        ("vae-encode", "sample", [1, 3, 16, 24], &["mean", "logvar"]),
        ("vae-decode", "latents", [1, 4, 16, 12], &["sample"]),
    ];
    for (part, key, shape, outputs) in calls {
        let drawn = seeded_input(&format!("lightning.{key}"), shape, &device).into_data();
        Saver::new().add_tensor(key, drawn).write(&input).unwrap();
        succeeds(
            "forward",
            &[
                "--checkpoint",
                text(&checkpoint),
                "--config",
                text(&yaml),
                "--part",
                part,
                "--inputs",
                text(&input),
                "--output",
                text(&output),
            ],
        );
        let file = WeightFile::open(&output).unwrap();
        for key in outputs {
            let (shape, values) = file.read_f32(key).unwrap();
            let actual = Tensor::<4>::from_data(TensorData::new(values, shape), &device);
            assert_close(key, &actual, &fixture.tensor(key, &device), 1e-4);
        }
    }
}

/// Runs `forward` on one input and gives what it wrote.
fn forward(folder: &Path, source: &[&str], part: &str, key: &str, data: TensorData) -> WeightFile {
    let [input, output] = ["in.safetensors", "out.safetensors"].map(|name| folder.join(name));
    Saver::new().add_tensor(key, data).write(&input).unwrap();
    let rest = ["--part", part, "--inputs", text(&input), "--output", text(&output)];
    succeeds("forward", &[source, &rest[..]].concat());
    WeightFile::open(&output).unwrap()
}

#[track_caller]
fn assert_output(file: &WeightFile, key: &str, expected: &Tensor<4>) {
    let (shape, values) = file.read_f32(key).unwrap();
    let actual = Tensor::<4>::from_data(TensorData::new(values, shape), &Device::default());
    assert_close(key, &actual, expected, 1e-4);
}

/// A VQ model out of a diffusers directory's `vqvae`, and out of CompVis' files.
#[test]
fn forward_serves_vq_models() {
    let device = Device::default();
    for (name, drawn, size) in
        [("vq_diffusers_ldm", "diffusers_ldm", [1, 3, 6, 8]), ("vq_f8_n256", "vq-f8-n256", [1, 4, 6, 5])]
    {
        let fixture = Fixture::open(name);
        let folder = tempfile::tempdir().unwrap();
        let shapes = fixture.shapes("shapes");
        let part = folder.path().join("vqvae");
        fs::create_dir(&part).unwrap();
        let [weights, yaml] = ["diffusion_pytorch_model.safetensors", "config.yaml"].map(|f| part.join(f));
        let config = fixture.json("config");
        let source = if config.get("_class_name").is_some() {
            fs::write(part.join("config.json"), config.to_string()).unwrap();
            write_weights(&weights, &shapes);
            vec!["--model", text(folder.path())]
        } else {
            let model = serde_json::json!({"target": "ldm.models.autoencoder.VQModel", "params": config});
            fs::write(&yaml, serde_json::json!({ "model": model }).to_string()).unwrap();
            write_weights(&weights, &shapes);
            vec!["--checkpoint", text(&weights), "--config", text(&yaml)]
        };
        let shape: [usize; 4] = serde_json::from_value(fixture.json("shape")).unwrap();
        let x = seeded_input::<4>(&format!("{drawn}.x"), shape, &device).clamp(-1.0, 1.0);
        let output = forward(folder.path(), &source, "vae-encode", "sample", x.into_data());
        assert_output(&output, "latents", &fixture.tensor("latents", &device));
        let (shape, indices) = output.read_i64("indices").unwrap();
        assert_eq!((shape.len(), indices), (1, fixture.ints("indices")), "{name}");
        let z = seeded_input::<4>(&format!("{drawn}.z"), size, &device).into_data();
        let output = forward(folder.path(), &source, "vae-decode", "latents", z);
        assert_output(&output, "sample", &fixture.tensor("decoded", &device));
    }
}

/// Every part, out of a whole checkpoint and out of the directory that it is converted to, gives the same.
#[test]
fn forward_reads_every_part_out_of_a_checkpoint() {
    let fixture = Fixture::open("checkpoint_sdxl");
    let folder = tempfile::tempdir().unwrap();
    let [file, yaml, model, input] =
        ["m.safetensors", "m.yaml", "m", "in.safetensors"].map(|n| folder.path().join(n));
    write_weights(&file, &fixture.shapes("checkpoint"));
    fs::write(&yaml, fixture.json("yaml").as_str().unwrap()).unwrap();
    let checkpoint = ["--config", text(&yaml)];
    succeeds("convert", &[&["--model", text(&file), "--output", text(&model)], &checkpoint[..]].concat());

    let device = Device::default();
    let drawn = |name: &str, shape: &[usize]| {
        let flat = seeded_input(name, [shape.iter().product()], &device);
        (name.to_string(), TensorData::new(flat.into_data().try_to_vec::<f32>().unwrap(), shape.to_vec()))
    };
    let ids = || ("input_ids".to_string(), TensorData::new(vec![49_406i64, 320, 2_368, 49_407], [1, 4]));
    let sizes = TensorData::new(vec![64i64, 64, 0, 0, 64, 64], [1, 6]);
    let unet = vec![
        drawn("sample", &[1, 4, 8, 8]),
        ("timestep".into(), TensorData::new(vec![500i64], [1])),
        drawn("encoder_hidden_states", &[1, 77, 192]),
        drawn("text_embeds", &[1, 128]),
        ("time_ids".into(), sizes),
    ];
    let calls = [
        ("unet", unet),
        ("vae-encode", vec![drawn("sample", &[1, 3, 16, 16])]),
        ("vae-decode", vec![drawn("latents", &[1, 4, 8, 8])]),
        ("text-encoder", vec![ids()]),
        ("text-encoder-2", vec![ids()]),
    ];
    for (part, inputs) in calls {
        let saver = inputs.into_iter().fold(Saver::new(), |saver, (key, data)| saver.add_tensor(key, data));
        saver.write(&input).unwrap();
        let outputs = [["--checkpoint", text(&file)], ["--model", text(&model)]].map(|source| {
            let output = folder.path().join("out.safetensors");
            let config = if source[0] == "--checkpoint" { &checkpoint[..] } else { &[] };
            let shared = ["--part", part, "--inputs", text(&input), "--output", text(&output)];
            succeeds("forward", &[&source[..], config, &shared].concat());
            let file = WeightFile::open(&output).unwrap();
            let read = |name: &str| (name.to_string(), file.read_f32(name).unwrap());
            file.tensors().map(|t| read(&t.name)).collect::<BTreeMap<_, _>>()
        });
        assert!(!outputs[0].is_empty());
        assert!(outputs[0] == outputs[1], "{part}");
    }
}

#[test]
fn forward_names_inputs_that_are_missing_or_unknown() {
    let fixture = Fixture::open("forward_sd1");
    let model = directory(&fixture);
    let [input, output] = ["in.safetensors", "out.safetensors"].map(|name| model.path().join(name));
    let shared = ["--model", text(model.path()), "--inputs", text(&input), "--output", text(&output)];
    let zeros = |shape: &[usize]| TensorData::zeros::<f32, _>(shape);

    Saver::new().add_tensor("sampel", zeros(&[1, 4, 8, 8])).write(&input).unwrap();
    refuses("forward", &[&shared[..], &["--part", "unet"]].concat(), 1, &["sample", "timestep", "sampel"]);
    Saver::new().add_tensor("sample", zeros(&[1, 3, 10, 8])).write(&input).unwrap();
    refuses("forward", &[&shared[..], &["--part", "vae-encode"]].concat(), 1, &["10", "4"]);
    Saver::new().add_tensor("latents", zeros(&[4, 8, 8])).write(&input).unwrap();
    refuses(
        "forward",
        &[&shared[..], &["--part", "vae-decode"]].concat(),
        1,
        &["latents", "[4, 8, 8]", "4 axes"],
    );
    Saver::new()
        .add_tensor("input_ids", TensorData::new(vec![49_406i64, 70_000], [1, 2]))
        .write(&input)
        .unwrap();
    refuses("forward", &[&shared[..], &["--part", "text-encoder"]].concat(), 1, &["70000"]);
    refuses("forward", &["--part", "unet", "--inputs", "a", "--output", "b"], 2, &["--model"]);
    refuses("forward", &[&shared[..], &["--part", "squirrel"]].concat(), 2, &["squirrel", "vae-encode"]);
}

/// Writes weights drawn from these names under names with a prefix.
fn write_prefixed(path: &Path, shapes: &[(String, Vec<usize>)], prefix: &str) {
    let saver = shapes.iter().fold(Saver::new(), |saver, (name, shape)| {
        let values = TensorData::new(seeded_weight(name, shape), shape.clone());
        saver.add_tensor(format!("{prefix}{name}"), values)
    });
    saver.write(path).unwrap();
}

/// The paper's text transformer: diffusers' `bert` folder without a tokenizer, and CompVis' files with their YAML, or
/// recognised by their keys; alone in the file, or in its place in a whole model.
#[test]
fn forward_serves_the_papers_text_transformer() {
    let folder = tempfile::tempdir().unwrap();
    let check = |fixture: &Fixture, source: &[&str]| {
        let ids = fixture.int::<2>("tokens", &Device::default()).into_data().convert::<i64>();
        let output = forward(folder.path(), source, "text-encoder", "input_ids", ids);
        assert_eq!(output.tensors().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["last_hidden_state"]);
        let (shape, values) = output.read_f32("last_hidden_state").unwrap();
        let actual = Tensor::<3>::from_data(TensorData::new(values, shape), &Device::default());
        assert_close("context", &actual, &fixture.tensor("context", &Device::default()), 1e-4);
    };

    let fixture = Fixture::open("ldmbert");
    let part = folder.path().join("bert");
    fs::create_dir(&part).unwrap();
    fs::write(part.join("config.json"), fixture.json("config").to_string()).unwrap();
    write_weights(&part.join("model.safetensors"), &fixture.shapes("shapes"));
    check(&fixture, &["--model", text(folder.path())]);

    let [file, yaml] = ["text.safetensors", "model.yaml"].map(|name| folder.path().join(name));
    for (name, class) in [("bert_text", "BERTEmbedder"), ("bert_short", "TransformerEmbedder")] {
        let fixture = Fixture::open(name);
        let target = format!("ldm.modules.encoders.modules.{class}");
        let params = json!({
            "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel"},
            "cond_stage_config": {"target": target, "params": fixture.json("config")},
        });
        let model = json!({"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params});
        fs::write(&yaml, json!({ "model": model }).to_string()).unwrap();
        for prefix in ["cond_stage_model.", ""] {
            write_prefixed(&file, &fixture.shapes("shapes"), prefix);
            check(&fixture, &["--checkpoint", text(&file), "--config", text(&yaml)]);
            check(&fixture, &["--checkpoint", text(&file)]);
        }
    }
    let ids = TensorData::new(vec![1i64, 2], [1, 2]);
    let [input, output] = ["in.safetensors", "out.safetensors"].map(|name| folder.path().join(name));
    Saver::new().add_tensor("input_ids", ids).write(&input).unwrap();
    let shared = ["--part", "text-encoder-2", "--inputs", text(&input), "--output", text(&output)];
    refuses("forward", &[&["--checkpoint", text(&file)], &shared[..]].concat(), 1, &["text_encoder_2"]);
}

/// A text encoder or a U-Net that is alone in its file gives what it gives out of the whole model, under the names that
/// it has there and under shorter ones.
#[test]
fn forward_reads_a_part_that_is_alone_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, alone, yaml, input, output] =
        ["whole.safetensors", "alone.safetensors", "m.yaml", "in.safetensors", "out.safetensors"]
            .map(|name| folder.path().join(name));
    let run = |file: &Path, part: &str, described: bool| {
        let config = ["--config", text(&yaml)];
        let config = if described { &config[..] } else { &[] };
        let shared = ["--part", part, "--inputs", text(&input), "--output", text(&output)];
        succeeds("forward", &[&["--checkpoint", text(file)], config, &shared[..]].concat());
        let file = WeightFile::open(&output).unwrap();
        let read = |name: &str| (name.to_string(), file.read_f32(name).unwrap());
        file.tensors().map(|t| read(&t.name)).collect::<BTreeMap<_, _>>()
    };
    // What lies under a prefix of the whole file, as another file with another prefix.
    let cut = |from: &str, to: &str| {
        let file = WeightFile::open(&whole).unwrap();
        let saver = file.tensors().fold(Saver::new(), |saver, info| match info.name.strip_prefix(from) {
            Some(name) => {
                let (shape, values) = file.read_f32(&info.name).unwrap();
                saver.add_tensor(format!("{to}{name}"), TensorData::new(values, shape))
            }
            None => saver,
        });
        saver.write(&alone).unwrap();
    };
    let ids = || Saver::new().add_tensor("input_ids", TensorData::new(vec![49_406i64, 320, 49_407], [1, 3]));

    let [xl_first, xl_second] = ["conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."];
    // The part, its place, shorter names, and whether keys alone tell it: Stable Diffusion 2 reads one layer less of its
    // tower than the file has.
    type Alone<'a> = (&'a str, &'a str, &'a [&'a str], bool);
    let texts: [(&str, &[Alone<'_>]); 3] = [
        (
            "checkpoint_sdxl",
            &[
                ("text-encoder", xl_first, &["transformer.", "model.", ""], true),
                ("text-encoder-2", xl_second, &["transformer.", "model.", ""], true),
            ],
        ),
        ("checkpoint_sd1", &[("text-encoder", "cond_stage_model.transformer.", &["transformer.", ""], true)]),
        ("checkpoint_sd2", &[("text-encoder", "cond_stage_model.model.", &["model.", ""], false)]),
    ];
    for (name, parts) in texts {
        let fixture = Fixture::open(name);
        write_weights(&whole, &fixture.shapes("checkpoint"));
        fs::write(&yaml, fixture.json("yaml").as_str().unwrap()).unwrap();
        for &(part, place, shorter, told) in parts {
            ids().write(&input).unwrap();
            let expected = run(&whole, part, true);
            assert!(expected.contains_key("last_hidden_state"));
            for prefix in [&[place], shorter].concat() {
                cut(place, prefix);
                assert!(run(&alone, part, true) == expected, "{name}: {part} under `{prefix}`");
                if told || prefix == place {
                    assert!(run(&alone, part, false) == expected, "{name}: {part} under `{prefix}`, no YAML");
                }
            }
        }
        if name == "checkpoint_sd1" {
            // As transformers 5 writes a text encoder.
            cut("cond_stage_model.transformer.text_model.", "");
            ids().write(&input).unwrap();
            assert!(run(&alone, "text-encoder", false) == run(&whole, "text-encoder", true));

            let sample = seeded_input::<4>("alone.sample", [1, 4, 8, 8], &Device::default()).into_data();
            let context = seeded_input::<3>("alone.context", [1, 5, 64], &Device::default()).into_data();
            let inputs =
                Saver::new().add_tensor("sample", sample).add_tensor("encoder_hidden_states", context);
            let inputs = inputs.add_tensor("timestep", TensorData::new(vec![500i64], [1]));
            inputs.write(&input).unwrap();
            // No plain EMA weights lie beside the U-Net then.
            let ema = fs::read_to_string(&yaml).unwrap();
            fs::write(&yaml, ema.replace("    scale_factor:", "    use_ema: false\n    scale_factor:"))
                .unwrap();
            let expected = run(&whole, "unet", true);
            for prefix in ["model.diffusion_model.", "diffusion_model.", ""] {
                cut("model.diffusion_model.", prefix);
                assert!(run(&alone, "unet", true) == expected, "U-Net under `{prefix}`");
            }
            // Its keys don't tell how many heads it has.
            let shared = ["--part", "unet", "--inputs", text(&input), "--output", text(&output)];
            let file = ["--checkpoint", text(&alone)];
            refuses("forward", &[&file[..], &shared].concat(), 1, &["alone.safetensors", "YAML"]);
        }
    }
}

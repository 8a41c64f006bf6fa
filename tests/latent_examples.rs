//! The examples of the paper's models as people run them: tiny checkpoints, 2 steps, the PNG that is written.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

#[path = "common/latent.rs"]
mod latent;
#[path = "common/program.rs"]
mod program;

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage};
use latent::narrow;
use ldm::nn::weights::{Saver, WeightFile};
use ldm::presets::ldm;
use ldm::unet::EncoderUNetConfig;
use ldm::{CondStageTarget, LatentDiffusion, LatentDiffusionConfig, Target};
use ldm_test_support::{Fixture, write_weights};
use program::{refuses, succeeds, text};
use tempfile::TempDir;

/// A folder with a published model's checkpoint, narrow, its weights drawn by name.
struct Tiny {
    folder: TempDir,
    yaml: PathBuf,
    file: PathBuf,
}

/// Gives every tensor of a file the weight of its name.
fn draw(file: &Path) {
    let saved = WeightFile::open(file).unwrap();
    let shapes: Vec<_> = saved.tensors().map(|t| (t.name.clone(), t.shape.clone())).collect();
    drop(saved);
    write_weights(file, &shapes);
}

impl Tiny {
    fn of(config: &LatentDiffusionConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [yaml, file] = ["config.yaml", "model.safetensors"].map(|name| folder.path().join(name));
        std::fs::write(&yaml, config.to_yaml().unwrap()).unwrap();
        LatentDiffusion::new(config, &Device::default()).unwrap().save_checkpoint(&file, DType::F32).unwrap();
        draw(&file);
        Self { folder, yaml, file }
    }

    fn published(name: &str) -> Self {
        Self::of(&narrow(ldm(name).unwrap().config()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A picture with soft colours and hard edges.
    fn picture(&self, name: &str, width: u32, height: u32) -> PathBuf {
        let pixel = |x: u32, y: u32| {
            Rgb([(x * 5) as u8, (y * 4) as u8, if (x / 4 + y / 4).is_multiple_of(2) { 200 } else { 40 }])
        };
        RgbImage::from_fn(width, height, pixel).save(self.path(name)).unwrap();
        self.path(name)
    }

    /// White in its left half.
    fn mask(&self, name: &str, width: u32, height: u32) -> PathBuf {
        let pixel = |x: u32, _| Luma([if x < width / 2 { 255 } else { 0 }]);
        GrayImage::from_fn(width, height, pixel).save(self.path(name)).unwrap();
        self.path(name)
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["--model", text(&self.file), "--config", text(&self.yaml), "--steps", "2"][..], more].concat()
    }

    /// What an example draws by this seed.
    #[track_caller]
    fn draw(&self, example: &str, seed: u64, more: &[&str]) -> RgbImage {
        let (output, seed) = (self.path("out.png"), seed.to_string());
        succeeds(
            example,
            &[&self.arguments(more)[..], &["--seed", &seed, "--output", text(&output)]].concat(),
        );
        image::open(output).unwrap().to_rgb8()
    }

    /// Draws by two seeds: pictures of this size, the same for the same seed and not for another.
    #[track_caller]
    fn draws(&self, example: &str, size: (u32, u32), more: &[&str]) -> RgbImage {
        let [first, second, again] = [1, 2, 1].map(|seed| self.draw(example, seed, more));
        assert_eq!(first.dimensions(), size, "{example}");
        assert_eq!(first, again, "{example}");
        assert_ne!(first, second, "{example}");
        first
    }
}

/// The mean difference of the pixels in columns `from..to`.
fn apart(a: &RgbImage, b: &RgbImage, from: u32, to: u32) -> f64 {
    let pixels = a.enumerate_pixels().filter(|(x, ..)| (from..to).contains(x));
    let each = pixels.flat_map(|(x, y, p)| (0..3).map(move |c| p[c].abs_diff(b.get_pixel(x, y)[c])));
    let each: Vec<u8> = each.collect();
    each.iter().map(|d| f64::from(*d)).sum::<f64>() / each.len() as f64
}

#[test]
fn unconditional() {
    let model = Tiny::published("celebahq256");
    model.draws("unconditional", (64, 32), &["--size", "32", "64"]);
    let output = model.path("many.png");
    let said = succeeds(
        "unconditional",
        &model.arguments(&[
            "--size",
            "32",
            "32",
            "--count",
            "2",
            "--sampler",
            "pndm",
            "--output",
            text(&output),
        ]),
    );
    assert!(said.contains("many-1.png") && said.contains("many-2.png"), "{said}");
    refuses(
        "unconditional",
        &model.arguments(&["--size", "30", "32"]),
        1,
        &["--size 30 32", "multiple of 4"],
    );
}

/// The pixels themselves are drawn (the paper's f = 1): with a first stage that does nothing, and as a `DDPM`, which has none.
#[test]
fn pixels() {
    let params = serde_json::json!({"image_size": 16, "in_channels": 3, "out_channels": 3, "model_channels": 32,
        "num_res_blocks": 1, "attention_resolutions": [2], "channel_mult": [1, 2], "num_head_channels": 32});
    let unet = Target::new("ldm.modules.diffusionmodules.openaimodel.UNetModel", params);
    let identity = Target::new("ldm.models.autoencoder.IdentityFirstStage", serde_json::Value::Null);
    let none = CondStageTarget::Name("__is_unconditional__".into());
    let mut config = LatentDiffusionConfig::new(unet, Some(identity), none);
    config.image_size = Some(16);
    let model = Tiny::of(&config);
    let drawn = model.draws("unconditional", (16, 16), &[]);
    model.draws("unconditional", (24, 8), &["--size", "8", "24"]);

    (config.first_stage_config, config.cond_stage_config) = (None, None);
    let model = Tiny::of(&config);
    let yaml = std::fs::read_to_string(&model.yaml).unwrap();
    let ddpm = yaml.replace("ddpm.LatentDiffusion", "ddpm.DDPM");
    assert!(
        ddpm != yaml && !ddpm.contains("first_stage_config") && !ddpm.contains("cond_stage_config"),
        "{ddpm}"
    );
    std::fs::write(&model.yaml, ddpm).unwrap();
    // The same weights, drawn by name.
    assert_eq!(drawn, model.draws("unconditional", (16, 16), &[]));
}

/// The left half of a picture stays, whatever the model and the seed.
#[test]
fn a_part_of_a_picture_is_kept_by_any_model() {
    let text_model = Tiny::published("txt2img-1p4B");
    let picture = text_model.picture("picture.png", 64, 64);
    let [mask, odd] =
        [("mask.png", 64), ("odd.png", 56)].map(|(name, side)| text_model.mask(name, side, side));
    let kept = ["--prompt", "a boat", "--keep", text(&picture), "--keep-mask", text(&mask)];
    let first = text_model.draws("latent_text_to_image", (64, 64), &kept);
    let second = text_model.draw("latent_text_to_image", 2, &kept);
    let [left, right] = [(0, 32), (32, 64)].map(|(from, to)| apart(&first, &second, from, to));
    println!("kept: {left:.2} apart, drawn: {right:.2}");
    assert!(left < 0.5 * right, "{left} {right}");
    let alone = ["--prompt", "a boat", "--keep", text(&picture)];
    refuses("latent_text_to_image", &text_model.arguments(&alone), 2, &["--keep-mask"]);
    let odd = ["--prompt", "a boat", "--keep", text(&picture), "--keep-mask", text(&odd)];
    refuses("latent_text_to_image", &text_model.arguments(&odd), 1, &["--keep-mask", "56x56", "64x64"]);

    let model = Tiny::published("celebahq256");
    let picture = model.picture("picture.png", 32, 32);
    let mask = model.mask("mask.png", 32, 32);
    let kept = ["--count", "2", "--keep", text(&picture), "--keep-mask", text(&mask)];
    let output = model.path("kept.png");
    succeeds("unconditional", &model.arguments(&[&kept[..], &["--output", text(&output)]].concat()));
    let [first, second] = ["kept-1.png", "kept-2.png"].map(|name| image::open(model.path(name)).unwrap());
    assert_ne!(first, second);
}

#[test]
fn class_conditional() {
    let model = Tiny::published("cin256-v2");
    let size = ["--class", "207", "--size", "32", "32"];
    let plain = model.draws("class_conditional", (32, 32), &size);
    assert_ne!(plain, model.draw("class_conditional", 1, &["--class", "3", "--size", "32", "32"]));
    let guided = [&size[..], &["--null-class", "1000", "--guidance", "3"]].concat();
    assert_ne!(plain, model.draw("class_conditional", 1, &guided));

    // By a classifier too, as the reference's checkpoint holds it.
    let params = serde_json::json!({"image_size": 8, "in_channels": 3, "model_channels": 32, "out_channels": 300,
        "num_res_blocks": 1, "attention_resolutions": [2], "channel_mult": [1, 2], "num_head_channels": 32, "pool": "attention"});
    let config = EncoderUNetConfig::from_compvis(&params).unwrap();
    let [classifier, yaml] = ["classifier.safetensors", "classifier.yaml"].map(|name| model.path(name));
    std::fs::write(&yaml, serde_yaml_ng::to_string(&params).unwrap()).unwrap();
    let network = config.init(&Device::default()).unwrap();
    Saver::new().add(&network, &config.compvis_keys().unwrap(), "model.").write(&classifier).unwrap();
    draw(&classifier);
    let led =
        ["--classifier", text(&classifier), "--classifier-config", text(&yaml), "--classifier-scale", "30"];
    let led = [&size[..], &led].concat();
    assert_ne!(plain, model.draws("class_conditional", (32, 32), &led));
    refuses(
        "class_conditional",
        &model.arguments(&[&size[..], &["--classifier", "x"]].concat()),
        2,
        &["classifier-config"],
    );
    let none = model.arguments(&["--class", "1001"]);
    refuses("class_conditional", &none, 1, &["class 1001"]);
}

#[test]
fn text_to_image() {
    let model = Tiny::published("text2img256");
    let prompt = ["--prompt", "a virus monster", "--guidance", "2", "--size", "32", "32"];
    let first = model.draws("latent_text_to_image", (32, 32), &prompt);
    let other = ["--prompt", "a lighthouse", "--guidance", "2", "--size", "32", "32"];
    assert_ne!(first, model.draw("latent_text_to_image", 1, &other));
}

/// In patches each is told its own part of the scene, with or without `--size`.
#[test]
fn layout_to_image() {
    let mut config = narrow(ldm("layout2img-openimages256").unwrap().config());
    config.image_size = Some(16);
    let model = Tiny::of(&config);
    let objects = ["--object", "3,0.1,0.2,0.5,0.4", "--object", "17,0.55,0.5,0.4,0.45"];
    let whole = model.draws("layout_to_image", (64, 64), &objects);
    let patches = [&objects[..], &["--patch", "8"]].concat();
    let in_patches = model.draw("layout_to_image", 1, &patches);
    assert_ne!(whole, in_patches);
    let sized = [&patches[..], &["--size", "64", "64"]].concat();
    assert_eq!(in_patches, model.draw("layout_to_image", 1, &sized));
    refuses("layout_to_image", &model.arguments(&["--object", "601,0,0,1,1"]), 1, &["class 601"]);
}

#[test]
fn semantic_synthesis() {
    let model = Tiny::published("semantic_synthesis256");
    let map = model.path("map.png");
    let class = |x: u32, y: u32| x / 8 + 40 * (y / 16);
    GrayImage::from_fn(48, 32, |x, y| Luma([class(x, y) as u8])).save(&map).unwrap();
    let drawn = model.draws("semantic_synthesis", (48, 32), &["--map", text(&map)]);
    // In 16 bits the numbers are the same, and colours are none.
    let deep = ImageBuffer::<Luma<u16>, Vec<u16>>::from_fn(48, 32, |x, y| Luma([class(x, y) as u16]));
    deep.save(&map).unwrap();
    assert_eq!(model.draw("semantic_synthesis", 1, &["--map", text(&map)]), drawn);
    let colours = model.picture("colours.png", 32, 32);
    refuses("semantic_synthesis", &model.arguments(&["--map", text(&colours)]), 1, &["--map", "grey"]);
    GrayImage::from_pixel(32, 32, Luma([182])).save(&map).unwrap();
    refuses("semantic_synthesis", &model.arguments(&["--map", text(&map)]), 1, &["--map", "class 182"]);
}

#[test]
fn super_resolution() {
    let model = Tiny::published("bsr_sr");
    let small = model.picture("small.png", 16, 8);
    model.draws("super_resolution", (64, 32), &["--image", text(&small), "--eta", "1"]);
    let patches = ["--image", text(&small), "--eta", "1", "--patch", "8"];
    model.draws("super_resolution", (64, 32), &patches);
}

/// Painted where the mask is white, and nowhere else.
#[test]
fn inpainting() {
    let model = Tiny::published("inpainting_big");
    let (picture, mask) = (model.picture("picture.png", 64, 32), model.mask("mask.png", 64, 32));
    let given = ["--image", text(&picture), "--mask", text(&mask)];
    let painted = model.draws("inpaint_latent", (64, 32), &given);
    let picture = image::open(&picture).unwrap().to_rgb8();
    let [left, right] = [(0, 32), (32, 64)].map(|(from, to)| apart(&painted, &picture, from, to));
    assert!(left > 10.0 && right <= 1.0, "{left} {right}");
}

#[test]
fn retrieval() {
    let model = Tiny::published("rdm768x768");
    let fixture = Fixture::open("task_retrieved");
    let clip = model.path("clip");
    std::fs::create_dir(&clip).unwrap();
    std::fs::write(clip.join("config.json"), fixture.json("config").to_string()).unwrap();
    write_weights(&clip.join("model.safetensors"), &fixture.shapes("shapes"));
    let shared =
        ["--clip", text(&clip), "--prompt", "a happy bear", "--size", "128", "128", "--guidance", "3"];
    let alone = model.draws("retrieval", (128, 128), &shared);
    let database = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/retrieval/texts.npz");
    let neighbours = [&shared[..], &["--database", database, "--knn", "4"]].concat();
    let exact = model.draw("retrieval", 1, &neighbours);
    assert_ne!(alone, exact);
    // In so small a database the graph misses nothing.
    let approximate = [&neighbours[..], &["--approximate", "64"]].concat();
    assert_eq!(exact, model.draw("retrieval", 1, &approximate));
    let nowhere = [&shared[..], &["--approximate", "64"]].concat();
    refuses("retrieval", &model.arguments(&nowhere), 2, &["--database"]);
}

/// Small pictures are worn as the reference's YAML says, or as the argument does; a run keeps to what it began with.
#[test]
fn training_with_worn_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let [pictures, yaml, out] = ["pictures", "config.yaml", "run"].map(|name| folder.path().join(name));
    std::fs::create_dir(&pictures).unwrap();
    for i in 0..3u32 {
        let pixel = |x: u32, y: u32| Rgb([(x * (4 + i)) as u8, (y * 6) as u8, ((x ^ y) * 5) as u8]);
        RgbImage::from_fn(40, 32, pixel).save(pictures.join(format!("{i}.png"))).unwrap();
    }
    let unet = serde_json::json!({"in_channels": 6, "out_channels": 3, "model_channels": 8, "num_res_blocks": 1,
        "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 1, "norm_num_groups": 8});
    let model = serde_json::json!({
        "timesteps": 100, "cond_stage_key": "LR_image", "conditioning_key": "concat",
        "cond_stage_config": {"target": "torch.nn.Identity"},
        "first_stage_config": {"target": "ldm.models.autoencoder.IdentityFirstStage"},
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet},
    });
    // In the space of pictures the condition is as large as the picture.
    let data = serde_json::json!({"batch_size": 2, "train": {
        "target": "ldm.data.openimages.SuperresOpenImagesAdvancedTrain",
        "params": {"size": 16, "degradation": "bsrgan_light", "downscale_f": 1},
    }});
    let document = serde_json::json!({
        "model": {"base_learning_rate": 1e-4, "target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": model},
        "data": {"target": "main.DataModuleFromConfig", "params": data},
    });
    std::fs::write(&yaml, serde_yaml_ng::to_string(&document).unwrap()).unwrap();
    let arguments = ["--config", text(&yaml), "--data", text(&pictures), "--out", text(&out), "--steps", "2"];
    assert!(succeeds("train_diffusion", &arguments).contains("finished"));
    for (name, parts) in [("bsrgan", ["degradation", "bsrgan_light"]), ("rain", ["`rain`", "cv_bicubic"])] {
        let other = [&arguments[..], &["--degradation", name]].concat();
        refuses("train_diffusion", &other, 1, &parts);
    }
}

#[test]
fn degrade() {
    let folder = tempfile::tempdir().unwrap();
    let [image, output] = ["photo.png", "worn.png"].map(|name| folder.path().join(name));
    RgbImage::from_fn(65, 49, |x, y| Rgb([(3 * x) as u8, (4 * y) as u8, ((x ^ y) * 3) as u8]))
        .save(&image)
        .unwrap();
    let worn = |seed: &str, kind: &str| {
        succeeds(
            "degrade",
            &["--image", text(&image), "--seed", seed, "--degradation", kind, "--output", text(&output)],
        );
        image::open(&output).unwrap().to_rgb8()
    };
    let first = worn("1", "bsrgan_light");
    assert_eq!(first.dimensions(), (16, 12));
    assert_eq!(first, worn("1", "bsrgan_light"));
    assert_ne!(first, worn("2", "bsrgan_light"));
    assert_ne!(first, worn("1", "bsrgan"));
    refuses("degrade", &["--image", text(&image), "--degradation", "rain"], 1, &["rain", "bsrgan_light"]);
}

#[test]
fn help() {
    for name in [
        "unconditional",
        "class_conditional",
        "latent_text_to_image",
        "layout_to_image",
        "semantic_synthesis",
        "super_resolution",
        "inpaint_latent",
        "retrieval",
        "degrade",
    ] {
        assert!(succeeds(name, &["--help"]).contains("Usage:"), "{name}");
    }
}

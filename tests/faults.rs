//! What comes from outside can be wrong in many ways: each is an error that names what is wrong, none a panic.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use common::{directory, load};
use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use ldm::{Error, LoadOptions, StableDiffusion};
use ldm_test_support::{Fixture, with_warnings};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

fn tiny() -> StableDiffusion {
    load(&Fixture::open("pipeline_sd1"))
}

/// The error of loading the tiny model after `spoil` has been at its directory.
fn load_error(spoil: impl FnOnce(&Path)) -> String {
    let folder = directory(&Fixture::open("pipeline_sd1"));
    spoil(folder.path());
    match StableDiffusion::load(folder.path(), &LoadOptions::default()) {
        Ok(_) => panic!("a spoilt directory was loaded"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_names(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "the error does not name `{part}`: {error}");
    }
}

#[test]
fn a_path_that_is_no_model_is_named() {
    let error = StableDiffusion::load("/no/such/model", &LoadOptions::default()).unwrap_err();
    assert_names(&error.to_string(), &["/no/such/model"]);
    let empty = tempfile::tempdir().unwrap();
    let error = StableDiffusion::load(empty.path(), &LoadOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NotAModel { .. }), "{error}");
    assert_names(&error.to_string(), &["model_index.json"]);
}

#[test]
fn every_part_that_a_directory_lacks_is_named() {
    for part in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        let error = load_error(|folder| fs::remove_dir_all(folder.join(part)).unwrap());
        assert_names(&error, &[part]);
    }
    for (file, named) in [
        ("unet/config.json", "config.json"),
        (UNET, "diffusion_pytorch_model.safetensors"),
        ("text_encoder/model.safetensors", "model.safetensors"),
        ("tokenizer/merges.txt", "merges.txt"),
        ("scheduler/scheduler_config.json", "scheduler_config.json"),
    ] {
        let error = load_error(|folder| fs::remove_file(folder.join(file)).unwrap());
        assert_names(&error, &[named]);
    }
}

#[test]
fn configs_that_are_no_json_are_named_with_the_place() {
    for file in ["model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json"] {
        let error = load_error(|folder| fs::write(folder.join(file), "{\"a\": 1,\n oops").unwrap());
        assert_names(&error, &[file.rsplit('/').next().unwrap(), "line 2"]);
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} is not in {}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn an_unknown_scheduler_is_named() {
    let folder = directory(&Fixture::open("pipeline_sd1"));
    let config = folder.path().join("scheduler/scheduler_config.json");
    // The index says which class it is, whatever the scheduler's own file says.
    edit(&config, "PNDMScheduler", "SquirrelScheduler");
    let model = StableDiffusion::load(folder.path(), &LoadOptions::default()).unwrap();
    assert_eq!(model.scheduler.kind().unwrap(), "pndm".parse().unwrap());
    edit(&folder.path().join("model_index.json"), "PNDMScheduler", "SquirrelScheduler");
    // Loading warns: another sampler may be asked for.
    let (model, warned) =
        with_warnings(|| StableDiffusion::load(folder.path(), &LoadOptions::default()).unwrap());
    assert_names(&warned, &["WARN", "scheduler_config.json", "SquirrelScheduler", "ddim"]);
    let request = model.text_to_image("a boat").steps(1).size(16, 16);
    assert_names(&request.run().unwrap_err().to_string(), &["SquirrelScheduler", "ddim"]);
    request.sampler("ddim".parse().unwrap()).run().unwrap();
}

/// The same file with a key set.
fn set(path: &Path, key: &str, value: serde_json::Value) {
    let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    json[key] = value;
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn texts_whose_padding_is_hidden_are_refused() {
    let error =
        load_error(|folder| set(&folder.join("text_encoder/config.json"), "use_attention_mask", true.into()));
    assert_names(&error, &["text_encoder/config.json", "use_attention_mask"]);
}

/// As diffusers' pipelines mend them: what old versions wrote for less than 64 is of 64.
#[test]
fn outdated_sizes_are_mended() {
    let folder = directory(&Fixture::open("pipeline_sd1"));
    let config = folder.path().join("unet/config.json");
    let size = |version: &str, side: u32| {
        set(&config, "_diffusers_version", version.into());
        set(&config, "sample_size", side.into());
        let model = StableDiffusion::load(folder.path(), &LoadOptions::default()).unwrap();
        model.default_size.map(|pixels| pixels / model.vae.factor() as u32)
    };
    assert_eq!(size("0.6.0", 32), [64; 2]);
    assert_eq!(size("0.8.1.dev0", 63), [64; 2]);
    assert_eq!(size("0.6.0", 96), [96; 2]);
    assert_eq!(size("0.9.0", 32), [32; 2]);
    assert_eq!(size("0.10.2", 32), [32; 2]);
    // Latent consistency models have come since.
    set(&folder.path().join("model_index.json"), "_class_name", "LatentConsistencyModelPipeline".into());
    assert_eq!(size("0.6.0", 32), [32; 2]);
}

/// Stable Diffusion 1's and 2's pipelines heed the factor alone.
#[test]
fn statistics_of_channels_are_sdxls() {
    let folder = directory(&Fixture::open("pipeline_sd1"));
    let config = folder.path().join("vae/config.json");
    let decoded = || {
        let model = StableDiffusion::load(folder.path(), &LoadOptions::default()).unwrap();
        let latents = Tensor::<4>::ones([1, 4, 2, 2], &Device::default());
        model.decode(latents).unwrap().into_data()
    };
    let plain = decoded();
    set(&config, "latents_mean", serde_json::json!([0.5, -0.5, 1.0, 0.0]));
    set(&config, "latents_std", serde_json::json!([2.0, 1.0, 0.5, 3.0]));
    set(&config, "shift_factor", 0.3.into());
    assert_eq!(decoded(), plain);
    set(&config, "scaling_factor", 0.5.into());
    assert_ne!(decoded(), plain);
}

#[test]
fn an_unknown_pipeline_is_named() {
    let error = load_error(|folder| {
        edit(&folder.join("model_index.json"), "\"StableDiffusionPipeline\"", "\"FluxPipeline\"");
    });
    assert_names(&error, &["FluxPipeline", "StableDiffusionPipeline"]);
}

#[test]
fn values_that_make_no_model_are_named() {
    let [unet, vae] = ["unet/config.json", "vae/config.json"];
    for (file, from, to, named) in [
        (unet, "\"CrossAttnDownBlock2D\"", "\"SquirrelBlock2D\"", "SquirrelBlock2D"),
        (unet, "\"norm_num_groups\": 32", "\"norm_num_groups\": 0", "norm_num_groups"),
        (unet, "\"layers_per_block\": 1", "\"layers_per_block\": -3", "layers_per_block"),
        (unet, "\"layers_per_block\": 1", "\"layers_per_block\": 1000000000000", "num_res_blocks"),
        (
            unet,
            "\"transformer_layers_per_block\": 1",
            "\"transformer_layers_per_block\": 1000000000000",
            "transformer_depth",
        ),
        (
            "text_encoder/config.json",
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 16777216",
            "num_hidden_layers",
        ),
        (vae, "\"norm_num_groups\": 32", "\"norm_num_groups\": 7", "norm_num_groups"),
        (vae, "\"layers_per_block\": 1", "\"layers_per_block\": [1]", "layers_per_block: invalid type"),
        (
            vae,
            "\"sample_size\": 64",
            "\"sample_size\": \"64\"",
            "sample_size: expected a side or [height, width]",
        ),
        (vae, "    32,\n    32", "    32,\n    null", "block_out_channels[1]: invalid type"),
        (
            "text_encoder/config.json",
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 5",
            "num_attention_heads",
        ),
        ("text_encoder/config.json", "\"quick_gelu\"", "\"squirrel\"", "squirrel"),
    ] {
        let error = load_error(|folder| edit(&folder.join(file), from, to));
        assert_names(&error, &[file, named]);
    }
}

#[test]
fn text_encoders_that_do_not_go_together_are_named() {
    let folder = directory(&Fixture::open("pipeline_sdxl"));
    let config = folder.path().join("tokenizer_2/tokenizer_config.json");
    edit(&config, "\"model_max_length\": 77", "\"model_max_length\": 7");
    let model = StableDiffusion::load(folder.path(), &LoadOptions::default()).unwrap();
    let error = model.text_to_image("a boat").steps(1).size(16, 16).run().unwrap_err();
    assert_names(&error.to_string(), &["context", "[77, ", "[7, "]);
}

#[test]
fn weights_that_do_not_fit_their_config_are_listed_with_both_shapes() {
    let error = load_error(|folder| {
        edit(&folder.join("unet/config.json"), "\"cross_attention_dim\": 32", "\"cross_attention_dim\": 48")
    });
    assert_names(&error, &["attn2.to_k.weight", "attn2.to_v.weight", "[32, 48]", "[32, 32]"]);
}

#[test]
fn broken_weight_files_are_named() {
    let whole = |folder: &Path| fs::read(folder.join(UNET)).unwrap();
    type Spoil = dyn Fn(Vec<u8>) -> Vec<u8>;
    let spoilt: [(&str, &Spoil); 6] = [
        ("empty", &|_| Vec::new()),
        ("truncated in the data", &|bytes| bytes[..bytes.len() - 1000].to_vec()),
        ("truncated in the header", &|bytes| bytes[..100].to_vec()),
        ("a page instead of a file", &|_| b"<!DOCTYPE html><html>404</html>".to_vec()),
        ("a header that is no JSON", &|mut bytes| {
            bytes[8..40].fill(b'x');
            bytes
        }),
        ("an enormous header", &|mut bytes| {
            bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
            bytes
        }),
    ];
    for (what, spoil) in spoilt {
        let error = load_error(|folder| fs::write(folder.join(UNET), spoil(whole(folder))).unwrap());
        println!("{what}: {error}");
        assert_names(&error, &["diffusion_pytorch_model.safetensors"]);
    }
}

/// The error of running a request on the tiny model.
fn run_error(build: impl for<'a> FnOnce(&'a StableDiffusion) -> ldm::pipeline::Request<'a>) -> String {
    match build(&tiny()).run() {
        Ok(_) => panic!("a request that makes no sense was run"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn arguments_that_make_no_sense_are_named() {
    assert_names(&run_error(|m| m.text_to_image("a").steps(0)), &["steps"]);
    assert_names(&run_error(|m| m.text_to_image("a").steps(5_000)), &["5000"]);
    assert_names(&run_error(|m| m.text_to_image("a").count(0)), &["count"]);
    assert_names(&run_error(|m| m.text_to_image("a").count(1_025)), &["count", "1025", "1024"]);
    assert_names(&run_error(|m| m.text_to_image("a").prompts(["a", "b"]).count(usize::MAX)), &["count"]);
    assert_names(&run_error(|m| m.text_to_image("a").prompts(Vec::<String>::new())), &["0 prompts"]);
    for rescale in [f64::NAN, -0.1, 1.5] {
        let error = run_error(|m| m.text_to_image("a").steps(2).guidance_rescale(rescale));
        assert_names(&error, &["guidance_rescale", &rescale.to_string()]);
    }
    assert_names(&run_error(|m| m.text_to_image("a").steps(2).guidance(f64::NAN)), &["guidance", "NaN"]);
    assert_names(&run_error(|m| m.text_to_image("a").count(2).seeds([1, 2, 3])), &["seeds", "3", "2"]);
    assert_names(
        &run_error(|m| m.text_to_image("a").negative_prompts(["b", "c"])),
        &["negative_prompt", "2"],
    );
    assert_names(&run_error(|m| m.text_to_image("a").steps(2).eta(-1.0)), &["eta"]);
}

#[test]
fn sizes_that_do_not_divide_are_named() {
    assert_names(&run_error(|m| m.text_to_image("a").size(66, 64)), &["width", "66", "4"]);
    assert_names(&run_error(|m| m.text_to_image("a").size(64, 63)), &["height", "63"]);
    assert_names(&run_error(|m| m.text_to_image("a").size(0, 64)), &["width", "0"]);
    assert_names(&run_error(|m| m.text_to_image("a").size(64, 4_000_000)), &["height", "4000000"]);
}

#[test]
fn latents_of_another_shape_are_named() {
    let latents = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &Device::default());
    let error = run_error(|m| m.text_to_image("a").size(64, 64).latents(latents([1, 4, 8, 16])));
    assert_names(&error, &["latents", "[1, 4, 8, 16]", "[1, 4, 16, 16]"]);
    let error = run_error(|m| m.text_to_image("a").latents(latents([1, 3, 16, 16])));
    assert_names(&error, &["latents", "[1, 3, 16, 16]"]);
}

#[test]
fn a_strength_out_of_range_is_named() {
    let picture = DynamicImage::ImageRgb8(RgbImage::new(32, 32));
    for strength in [-0.5, 1.5, f64::NAN] {
        let error = run_error(|m| m.image_to_image("a", &picture).strength(strength));
        assert_names(&error, &["strength"]);
    }
    // So near 0 that no step is left.
    let error = run_error(|m| m.image_to_image("a", &picture).strength(0.0).steps(5));
    assert_names(&error, &["strength"]);
}

#[test]
fn a_model_for_another_task_is_named() {
    let nine = load(&Fixture::open("pipeline_inpaint9"));
    let error = nine.text_to_image("a").steps(2).run().unwrap_err().to_string();
    assert_names(&error, &["9 channels", "4"]);
}

/// Grey, 16-bit, transparent, one pixel or a long strip: all are pictures.
#[test]
fn odd_pictures_are_drawn_from() {
    let model = tiny();
    let pictures: [(&str, DynamicImage); 5] = [
        ("grey", GrayImage::from_pixel(33, 41, Luma([200])).into()),
        ("16-bit", ImageBuffer::<Rgb<u16>, _>::from_pixel(33, 41, Rgb([65_535, 1, 300])).into()),
        ("16-bit grey", ImageBuffer::<Luma<u16>, _>::from_pixel(33, 41, Luma([40_000])).into()),
        ("transparent", RgbaImage::from_pixel(33, 41, Rgba([255, 0, 0, 0])).into()),
        ("a strip", RgbImage::from_pixel(400, 4, Rgb([9, 99, 199])).into()),
    ];
    for (what, picture) in &pictures {
        let output = model.image_to_image("a boat", picture).steps(2).strength(0.5).run();
        let images = output.unwrap_or_else(|e| panic!("{what}: {e}")).images;
        let expected = (picture.width() / 4 * 4, picture.height() / 4 * 4);
        assert_eq!(images[0].dimensions(), expected, "{what}");
    }
}

#[test]
fn one_pixel_is_too_small_unless_a_size_is_given() {
    let model = tiny();
    let dot = DynamicImage::ImageRgb8(RgbImage::from_pixel(1, 1, Rgb([1, 2, 3])));
    let error = model.image_to_image("a boat", &dot).run().unwrap_err().to_string();
    assert_names(&error, &["width", "0"]);
    let output = model.image_to_image("a boat", &dot).size(16, 16).steps(2).run().unwrap();
    assert_eq!(output.images[0].dimensions(), (16, 16));
    let output = model.inpaint("a boat", &dot, &dot).size(16, 16).steps(2).run().unwrap();
    assert_eq!(output.images[0].dimensions(), (16, 16));
}

/// What a picture says of its own size is believed only up to a limit.
#[test]
fn a_huge_picture_is_refused_before_it_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.png");
    let mut encoder = png::Encoder::new(fs::File::create(&path).unwrap(), 100_000, 100_000);
    encoder.set_color(png::ColorType::Rgb);
    // The header is all there is.
    drop(encoder.write_header().unwrap());
    let error = ldm::image::open(&path).unwrap_err().to_string();
    assert_names(&error, &["huge.png"]);
}

#[test]
fn files_that_are_no_pictures_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.png");
    RgbImage::new(40, 40).save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for content in [Vec::new(), b"no picture at all, just text".to_vec(), whole[..whole.len() / 2].to_vec()] {
        fs::write(&path, content).unwrap();
        assert_names(&ldm::image::open(&path).unwrap_err().to_string(), &["picture.png"]);
    }
    assert_names(&ldm::image::open(&folder.path().join("none.png")).unwrap_err().to_string(), &["none.png"]);
}

/// No text is too strange to be a prompt.
#[test]
fn any_text_is_a_prompt() {
    let model = tiny();
    let controls: String =
        (0..32).filter_map(char::from_u32).chain("\u{7f}\u{202e}\u{fffd}".chars()).collect();
    let prompts = [
        String::new(),
        " \n\t".into(),
        "x".repeat(10_000),
        "a red fox, ".repeat(1_000),
        controls,
        "\u{1f98a}\u{200d}\u{2744}\u{fe0f} ふゆ שלג".into(),
        "<|endoftext|><|startoftext|>".into(),
    ];
    for prompt in prompts {
        let output = model.text_to_image(&prompt).negative_prompt(&prompt).steps(1).size(16, 16).run();
        let output =
            output.unwrap_or_else(|e| panic!("{:?}: {e}", prompt.chars().take(20).collect::<String>()));
        assert_eq!(output.images[0].dimensions(), (16, 16));
    }
}

/// What can't be written is told, and leaves nothing half done.
#[test]
fn a_place_that_can_not_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no/such/folder/out.png");
    let error = ldm::image::save_png(&RgbImage::new(4, 4), &path, &[]).unwrap_err().to_string();
    assert_names(&error, &["no/such/folder"]);
    fs::write(folder.path().join("file"), "").unwrap();
    let error = tiny().save_directory(folder.path().join("file"), burn::tensor::DType::F32).unwrap_err();
    assert_names(&error.to_string(), &["file"]);
}

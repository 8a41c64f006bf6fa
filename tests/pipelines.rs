//! Whole runs against diffusers: every pipeline on a tiny model of each family, from a seed to the picture.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::ops::ControlFlow;

use burn::tensor::{DType, Device, Tensor};
use common::{arguments, cases, differences, directory, load, picture, run};
use image::{DynamicImage, ImageBuffer, Rgb, Rgba};
use ldm::conditioning::{Conditioner, Conditioning};
use ldm::pipeline::{
    Denoiser, Guidance, Output, Progress, PromptConditioning, Silent, SizeConditioning, denoise,
};
use ldm::scheduler::{Error as SchedulerError, Noise, SamplerOptions, Scheduler, TorchRng, randn};
use ldm::{LoadOptions, StableDiffusion};
use ldm_test_support::{Fixture, assert_close, relative_difference, seeded_input};

/// Every case of a fixture but those that `skip` names; all that differ are told at once.
fn all_cases(name: &str, skip: &[&str]) {
    let fixture = Fixture::open(name);
    let model = load(&fixture);
    let mut wrong = Vec::new();
    for (key, case) in cases(&fixture) {
        if skip.contains(&key.as_str()) {
            continue;
        }
        match run(&model, &fixture, &case) {
            Ok(output) => wrong.extend(differences(&fixture, &key, &output)),
            Err(error) => wrong.push(format!("{key}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{name} differs from diffusers:\n{}", wrong.join("\n"));
}

#[test]
fn stable_diffusion_1_from_text() {
    all_cases("pipeline_sd1", &[]);
}

#[test]
fn stable_diffusion_1_from_a_picture() {
    all_cases("pipeline_sd1_image", &[]);
}

#[test]
fn inpainting_with_nine_channels() {
    for name in ["pipeline_inpaint9", "pipeline_inpaint9_sd2", "pipeline_inpaint9_sdxl"] {
        all_cases(name, &[]);
    }
}

#[test]
fn inpainting_with_the_v_prediction_of_four_channels() {
    all_cases("pipeline_inpaint4_sd2", &[]);
}

/// A U-Net that takes the guidance scale as an embedding, and one call a step.
#[test]
fn latent_consistency_models() {
    let fixture = Fixture::open("pipeline_lcm");
    let model = load(&fixture);
    assert_eq!(model.unet.config().time_cond_proj_dim, Some(32));
    all_cases("pipeline_lcm", &[]);
    // The scale reaches the picture.
    let case = &cases(&fixture)["text"];
    let mut weaker = case.clone();
    weaker["guidance_scale"] = 1.5.into();
    let [strong, weak] = [case, &weaker].map(|case| run(&model, &fixture, case).unwrap().latents);
    assert!(ldm_test_support::relative_difference(&weak, &strong) > 0.01);
}

#[test]
fn stable_diffusion_2() {
    for name in ["pipeline_sd2", "pipeline_sd2_epsilon"] {
        all_cases(name, &[]);
    }
}

#[test]
fn stable_diffusion_xl() {
    all_cases("pipeline_sdxl", &["two_prompts"]);
}

/// Hard edges, both sides a little smaller: the order of the passes shows.
#[test]
fn a_picture_is_resized_as_pillow_does() {
    let fixture = Fixture::open("pipeline_sd1_image");
    let (shape, expected) = fixture.bytes("uneven.resized");
    let picture = picture(&fixture, "uneven").to_rgb8();
    let resized = ldm::image::resize(&picture, shape[1] as u32, shape[0] as u32).unwrap();
    let off = resized.as_raw().iter().zip(&expected).filter(|(a, b)| a != b).count();
    assert_eq!((off, resized.as_raw().len()), (0, expected.len()));
}

/// Each encoder of SDXL gets a prompt of its own: the short way has no argument for that, the pieces do it.
#[test]
fn the_pieces_recombine() {
    let fixture = Fixture::open("pipeline_sdxl");
    let model = load(&fixture);
    let case = &cases(&fixture)["two_prompts"];

    let text = |key: &str| vec![case[key][0].as_str().unwrap().to_string()];
    let encode = |first: &str, second: &str| {
        let first = model.text.first.encode(&text(first)[..]).unwrap();
        let second = model.text.second.as_ref().unwrap().encode(&text(second)[..]).unwrap();
        let context = Tensor::cat(vec![first.context.unwrap(), second.context.unwrap()], 2);
        Conditioning { text_embeds: second.text_embeds, ..Conditioning::context(context) }
    };
    let positive = encode("prompt", "prompt_2");
    let negative = Some(encode("negative_prompt", "negative_prompt_2"));
    let size = Some(SizeConditioning::of(64, 64));
    let guidance = Guidance::new(case["guidance_scale"].as_f64().unwrap());
    let prompts = PromptConditioning { positive, negative };
    let denoiser = Denoiser::new(&model.unet, prompts, guidance, size).unwrap();

    let kind = case["sampler"].as_str().unwrap().parse().unwrap();
    let scheduler = Scheduler::from_config(kind, &model.scheduler).unwrap();
    let sampler = scheduler.sampler(SamplerOptions::steps(6)).unwrap();
    let mut noise: Box<dyn Noise> = Box::new(TorchRng::new(case["seed"].as_u64().unwrap()));
    let shape = [1, 4, 64 / model.vae.factor(), 64 / model.vae.factor()];
    let latents =
        randn(&mut noise, shape, model.device(), model.dtype()).unwrap() * sampler.init_noise_sigma();
    let predict = |x, t| denoiser.predict(x, f64::from(t));
    let latents = denoise(sampler, latents, &mut noise, None, &mut Silent, predict).unwrap();
    let images = ldm::image::from_tensor(model.decode(latents.clone()).unwrap()).unwrap();

    let output = Output { images, latents };
    assert_eq!(differences(&fixture, "two_prompts", &output), None);
}

/// Guidance is one call of the U-Net a step, over both halves at once; at scale 1 there is the one half alone.
#[test]
fn guidance_is_one_batched_call_a_step() {
    let model = load(&Fixture::open("pipeline_sd1"));
    let prompts = ["a boat", "a fox"].map(String::from);
    for (scale, batch) in [(7.5, 4), (1.0, 2)] {
        let guidance = Guidance::new(scale);
        let prompts = model.text.encode_guided(&prompts, None, guidance.is_active()).unwrap();
        let denoiser = Denoiser::new(&model.unet, prompts, guidance, None).unwrap();
        let scheduler = Scheduler::from_config("ddim".parse().unwrap(), &model.scheduler).unwrap();
        let sampler = scheduler.sampler(SamplerOptions::steps(3)).unwrap();
        let mut noise = TorchRng::new(1);
        let latents = randn(&mut noise, [2, 4, 8, 8], model.device(), DType::F32).unwrap();
        let mut calls = Vec::new();
        let predict = |x: Tensor<4>, t: f32| {
            denoiser.predict_with(x, f64::from(t), |x, t, conditioning| {
                calls.push([x.dims()[0], t.dims()[0], conditioning.batch().unwrap().unwrap()]);
                Ok(model.unet.forward(x, t, conditioning)?)
            })
        };
        let latents = denoise(sampler, latents, &mut noise, None, &mut Silent, predict).unwrap();
        assert_eq!(latents.dims(), [2, 4, 8, 8]);
        assert_eq!(calls, [[batch; 3]; 3], "scale {scale}");
    }
}

/// What a run computes once for all its steps changes no bit of them.
#[test]
fn prepared_conditions_predict_the_same() {
    for name in ["pipeline_sd1", "pipeline_sd2", "pipeline_sdxl", "pipeline_lcm", "pipeline_inpaint9"] {
        let model = load(&Fixture::open(name));
        let prompts = ["a boat", "a fox"].map(String::from);
        let size = model.unet.has_added_embedding().then(|| SizeConditioning::of(64, 64));
        let beside = model.unet.in_channels() - 4;
        let concat = (beside > 0).then(|| seeded_input("beside", [2, beside, 8, 8], model.device()));
        for scale in [5.0, 1.0] {
            let guidance = Guidance::new(scale);
            let prompts = model.text.encode_guided(&prompts, None, guidance.is_active()).unwrap();
            let denoiser = Denoiser::new(&model.unet, prompts, guidance, size).unwrap();
            let denoiser = denoiser.with_concat(concat.clone());
            for t in [981.0, 21.0] {
                let x = seeded_input(&format!("x at {t}"), [2, 4, 8, 8], model.device());
                let forward = |x, t, conditioning: &Conditioning| -> Result<Tensor<4>, ldm::Error> {
                    Ok(model.unet.forward(x, t, conditioning)?)
                };
                let expected = denoiser.predict_with(x.clone(), t, forward).unwrap();
                let found = denoiser.predict(x, t).unwrap();
                assert_eq!(found.into_data(), expected.into_data(), "{name}, guidance {scale}, t {t}");
            }
        }
    }
}

/// Recorded where the device can, launched where it can't: the run is the same. PLMS and DPM-Solver++ keep predictions.
#[test]
fn a_run_may_be_replayed() {
    // On a GPU kernels may differ with the layout of their inputs.
    let tolerance = if Device::default() == Device::flex() { 0.0 } else { 1e-4 };
    for name in ["pipeline_sd1", "pipeline_sdxl"] {
        let model = load(&Fixture::open(name));
        let mut drawn: Vec<Tensor<4>> = Vec::new();
        for (seed, sampler) in [(1, "ddim"), (2, "pndm"), (3, "dpmpp_2m")] {
            let request = model.text_to_image("a boat").steps(6).guidance(5.0).seed(seed).size(64, 64);
            let request = request.sampler(sampler.parse().unwrap());
            let [plain, replayed] =
                [false, true].map(|replay| request.clone().replay(replay).run().unwrap().latents);
            assert_close(&format!("{name}, {sampler}"), &replayed, &plain, tolerance);
            drawn.push(replayed);
        }
        assert!(relative_difference(&drawn[1], &drawn[0]) > 0.1);
    }
}

/// A prediction that is not one for each latent is named, guided or not; its channels are its own.
#[test]
fn a_network_that_gives_another_shape_is_named() {
    let model = load(&Fixture::open("pipeline_sd1"));
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, (model.device(), DType::F32));
    for (scale, items) in [(7.5, 2), (1.0, 1)] {
        let guidance = Guidance::new(scale);
        let prompts = model.text.encode_guided(&["a boat".into()], None, guidance.is_active()).unwrap();
        let denoiser = Denoiser::new(&model.unet, prompts, guidance, None).unwrap();
        let predict = |shape| denoiser.predict_with(zeros([1, 4, 8, 8]), 500.0, |_, _, _| Ok(zeros(shape)));
        assert_eq!(predict([items, 8, 8, 8]).unwrap().dims(), [1, 8, 8, 8]);
        for wrong in [[items + 1, 4, 8, 8], [items, 4, 8, 4], [items, 4, 1, 8]] {
            let error = predict(wrong).unwrap_err();
            assert!(matches!(error, ldm::Error::Argument { name: "network", .. }), "{error}");
            assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
        }
    }
}

/// Of 16 bits the upper eight count, of transparent pixels the colour: so Pillow hands pictures to diffusers.
#[test]
fn deep_and_transparent_pictures_draw_what_their_colours_draw() {
    let fixture = Fixture::open("pipeline_sd1_image");
    let model = load(&fixture);
    let [image, mask] = ["image", "mask"].map(|key| picture(&fixture, key));
    let draw = |image: &DynamicImage, mask: &DynamicImage| {
        let redrawn = model.image_to_image("a boat", image).steps(3).seed(2).run().unwrap();
        let painted = model.inpaint("a boat", image, mask).size(80, 64).steps(3).seed(2).run().unwrap();
        [redrawn, painted].map(|output| output.images)
    };
    let expected = draw(&image, &mask);
    assert!(draw(&deep(&image), &deep(&mask)) == expected, "16 bits");
    assert!(draw(&clear(&image), &clear(&mask)) == expected, "transparent");
}

/// The same colours in 16 bits; rounded instead of cut, they would be others.
fn deep(picture: &DynamicImage) -> DynamicImage {
    let rgb = picture.to_rgb8();
    let pixel = |x, y| Rgb(rgb.get_pixel(x, y).0.map(|v| (u16::from(v) << 8) | 0xff));
    DynamicImage::ImageRgb16(ImageBuffer::from_fn(rgb.width(), rgb.height(), pixel))
}

/// The same colours, more and less transparent.
fn clear(picture: &DynamicImage) -> DynamicImage {
    let rgb = picture.to_rgb8();
    let pixel = |x, y| {
        let [r, g, b] = rgb.get_pixel(x, y).0;
        Rgba([r, g, b, (13 * x + y) as u8])
    };
    DynamicImage::ImageRgba8(ImageBuffer::from_fn(rgb.width(), rgb.height(), pixel))
}

#[test]
fn an_observer_sees_every_step_and_may_cancel() {
    let fixture = Fixture::open("pipeline_sd1");
    let model = load(&fixture);
    let request = arguments(model.text_to_image(""), &cases(&fixture)["ddim"]);
    let mut seen = Vec::new();
    let mut watch = |progress: Progress<'_>| {
        assert_eq!(progress.latents.dims(), [1, 4, 16, 16]);
        seen.push((progress.step, progress.of));
        ControlFlow::Continue(())
    };
    request.run_observed(&mut watch).unwrap();
    assert_eq!(seen, (1..=6).map(|step| (step, 6)).collect::<Vec<_>>());

    let mut stop = |progress: Progress<'_>| {
        if progress.step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error = request.run_observed(&mut stop).unwrap_err();
    assert!(matches!(error, ldm::Error::Cancelled { step: 2, of: 6 }), "{error}");
}

/// In half precision where the device has it; elsewhere an error that names type and device.
#[test]
fn half_precision_stays_near_or_is_refused() {
    let fixture = Fixture::open("pipeline_sd1");
    let folder = directory(&fixture);
    let case = &cases(&fixture)["ddim"];
    let expected = fixture.tensor("ddim.latents", &Device::default());
    for (dtype, tolerance) in [(DType::F16, 1e-2), (DType::BF16, 8e-2)] {
        let loaded = StableDiffusion::load(folder.path(), &LoadOptions::default().dtype(dtype));
        if !Device::default().supports_dtype(dtype) {
            let error = loaded.unwrap_err();
            assert!(matches!(error, ldm::Error::DType { .. }), "{error}");
            continue;
        }
        let output = run(&loaded.unwrap(), &fixture, case).unwrap();
        assert_close(&format!("{dtype:?}"), &output.latents.cast(DType::F32), &expected, tolerance);
    }
}

/// PyTorch's numbers in the order of its draws in f16, not rounded.
struct Halves(TorchRng);

impl Noise for Halves {
    fn normal(&mut self, shape: &[usize], _: DType) -> Result<Vec<f32>, SchedulerError> {
        self.0.normal(shape, DType::F16)
    }

    fn keep(&mut self, shape: &[usize], probability: f64) -> Result<Vec<bool>, SchedulerError> {
        self.0.keep(shape, probability)
    }
}

/// As in diffusers, steps draw their noise in the U-Net's type: PyTorch's f16 has an order of its own where the number of
/// elements is no multiple of 16.
#[test]
fn steps_draw_noise_in_the_type_of_the_unet() {
    let folder = directory(&Fixture::open("pipeline_sd1"));
    let device = Device::default();
    let [f32, f16] = [DType::F32, DType::F16]
        .map(|dtype| StableDiffusion::load(folder.path(), &LoadOptions::default().dtype(dtype)));
    let (model, Ok(half)) = (f32.unwrap(), f16) else { return };
    let start = seeded_input("steps.latents", [1, 4, 5, 5], &device);
    let kind = "euler_a".parse().unwrap();
    let draw = |model: &StableDiffusion| {
        let request = model.text_to_image("a boat").steps(4).sampler(kind).seed(3);
        request.size(20, 20).latents(start.clone()).run().unwrap().latents
    };

    let prompts = model.text.encode_guided(&["a boat".into()], None, true).unwrap();
    let denoiser = Denoiser::new(&model.unet, prompts, Guidance::new(7.5), None).unwrap();
    let config = model.scheduler.clone().for_stable_diffusion(kind);
    let sampler = Scheduler::from_config(kind, &config).unwrap().sampler(SamplerOptions::steps(4)).unwrap();
    let latents = start.clone() * sampler.init_noise_sigma();
    let predict = |x, t| denoiser.predict(x, f64::from(t));
    let mut noise = Halves(TorchRng::new(3));
    let expected = denoise(sampler, latents, &mut noise, None, &mut Silent, predict).unwrap();

    assert_close("f16", &draw(&half).cast(DType::F32), &expected, 2e-2);
    let other = relative_difference(&draw(&model), &expected);
    assert!(other > 0.1, "draws in f32 would pass for draws in f16: {other:.1e}");
}

/// PyTorch's numbers and our own are different noise, each the same every time.
#[test]
fn a_seed_means_the_same_every_time() {
    let fixture = Fixture::open("pipeline_sd1");
    let model = load(&fixture);
    let draw = |rng, seed| {
        let request = model.text_to_image("a boat").steps(2).size(32, 32).rng(rng).seed(seed);
        request.run().unwrap().images.remove(0)
    };
    use ldm::pipeline::Rng::{Native, Torch};
    for rng in [Native, Torch] {
        assert_eq!(draw(rng, 1), draw(rng, 1));
        assert_ne!(draw(rng, 1), draw(rng, 2));
    }
    assert_ne!(draw(Native, 1), draw(Torch, 1));
}

/// A picture alone in its batch, and in a batch with a generator for each.
#[test]
fn seeds_draw_each_picture_as_if_alone() {
    let fixture = Fixture::open("pipeline_sd1");
    let model = load(&fixture);
    let request = model.text_to_image("a boat").steps(3).size(32, 32).sampler("euler_a".parse().unwrap());
    let both = request.clone().count(2).seeds([5, 6]).run().unwrap();
    for (i, seed) in [5, 6].into_iter().enumerate() {
        let alone = request.clone().seed(seed).run().unwrap();
        let pixels = alone.images[0].as_raw().iter().zip(both.images[i].as_raw());
        assert!(pixels.map(|(a, b)| a.abs_diff(*b)).max().unwrap() <= 1);
    }
}

/// Where the mask is black, a run with any model keeps the picture's latent.
#[test]
fn inpainting_keeps_what_the_mask_keeps() {
    let fixture = Fixture::open("pipeline_sd1_image");
    let model = load(&fixture);
    let image = picture(&fixture, "image");
    let keep_all = image::GrayImage::new(80, 64).into();
    let request = model.inpaint("a boat", &image, &keep_all).steps(4).size(80, 64);
    // Nothing is painted anew, so the prompt doesn't matter.
    let latents = request.clone().run().unwrap().latents;
    let other = request.prompts(["a fox"]).run().unwrap().latents;
    assert_close("kept latents", &other, &latents, 1e-5);
}

//! Conditions and arguments that a model can't take, each an error that names it.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor};
use ldm::latent_diffusion::{Patches, Sampled};
use ldm::presets::ldm;
use ldm::{
    CondStageTarget, ConditioningKey, Error, LatentDiffusion, LatentDiffusionConfig, LoadOptions, Target,
};
use ldm_conditioning::{BoundingBox, Condition, Layout, LayoutObject, LayoutTokenizer};
use serde_json::Value;

use crate::latent::narrow;

fn config(name: &str) -> LatentDiffusionConfig {
    narrow(ldm(name).unwrap().config())
}

fn model(name: &str) -> LatentDiffusion {
    LatentDiffusion::new(&config(name), &Device::default()).unwrap()
}

fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::zeros(shape, &Device::default())
}

fn named<T>(result: Result<T, Error>, words: &[&str]) {
    let error = result.err().expect("an error").to_string();
    for word in words {
        assert!(error.contains(word), "no `{word}` in: {error}");
    }
}

#[test]
fn conditions() {
    named(model("cin256").classes(&[3, 1000], None), &["class 1000", "item 1", "1000"]);
    named(model("cin256-v2").classes(&[1001], None), &["class 1001"]);
    named(model("cin256").texts(&["a cat".into()]), &["texts"]);

    let layouts = model("layout2img-openimages256");
    let tokenizer = LayoutTokenizer::new(601);
    let layout = |class, bbox| [Layout::new(vec![LayoutObject::new(class, bbox)])];
    let outside = BoundingBox::new(0.5, 0.5, 0.6, 0.2);
    named(layouts.layouts(&layout(1, outside), &tokenizer), &["object 0", "0.6", "not inside"]);
    named(layouts.layouts(&layout(601, BoundingBox::FULL), &tokenizer), &["class 601", "601"]);

    let maps = model("semantic_synthesis256");
    named(maps.semantic(zeros([1, 181, 32, 32])), &["181", "182"]);
    named(maps.semantic(zeros([1, 182, 3, 32])), &["3x32"]);

    named(model("bsr_sr").upscale(zeros([1, 1, 8, 8])), &["1 channels", "3"]);
    let narrow = model("rdm768x768").embeddings(zeros([1, 2, 16])).unwrap().latent_size(8, 8).steps(2).run();
    named(narrow, &["context", "16", "32"]);
    named(model("celebahq256").condition(&Condition::Classes(vec![1])), &["unconditional"]);
    named(model("cin256").unconditional(1), &["condition"]);
    named(model("inpainting_big").condition(&Condition::Classes(vec![1])), &["picture"]);
}

#[test]
fn pictures_and_masks() {
    let inpainting = model("inpainting_big");
    named(inpainting.inpaint(zeros([1, 3, 32, 32]), zeros([1, 1, 32, 16])), &["mask", "[1, 1, 32, 16]"]);
    named(inpainting.inpaint(zeros([1, 3, 30, 32]), zeros([1, 1, 30, 32])), &["32x30", "4"]);
    named(model("celebahq256").inpaint(zeros([1, 3, 32, 32]), zeros([1, 1, 32, 32])), &["3 channels", "7"]);
}

#[test]
fn arguments() {
    let faces = model("celebahq256");
    let run = || faces.unconditional(1).unwrap().latent_size(8, 8).steps(2);
    let fails = |run: ldm::latent_diffusion::Sampling<'_>, words: &[&str]| {
        named::<Sampled>(run.run(), words);
    };
    fails(run().guidance(2.0), &["guidance", "none"]);
    fails(run().guidance(f64::NAN), &["guidance", "NaN"]);
    fails(run().seeds([1, 2]), &["seeds", "2 for 1"]);
    fails(run().start(zeros([1, 4, 8, 8])), &["start", "[1, 4, 8, 8]", "[1, 3, 8, 8]"]);
    fails(run().keep(zeros([1, 3, 8, 8]), zeros([1, 1, 4, 8])), &["mask", "[1, 1, 4, 8]"]);
    fails(run().latent_size(0, 8), &["latent_size"]);
    for side in [4097, usize::MAX] {
        fails(run().latent_size(8, side), &["latent_size", "longer than 4096"]);
    }
    fails(run().temperature(-1.0), &["temperature"]);
    fails(run().noise_dropout(1.5), &["noise_dropout"]);
    fails(run().steps(300), &["timestep 1000"]);
    fails(faces.unconditional(0).unwrap(), &["batch"]);
    fails(faces.unconditional(1025).unwrap(), &["batch", "1024"]);
    let upscale = model("bsr_sr");
    fails(upscale.upscale(zeros([1, 3, 8, 8])).unwrap().latent_size(8, 12), &["latent_size", "[8, 12]"]);
    // A KL first stage has no codebook to quantise by.
    let churches = model("lsun_churches256");
    let run = churches.unconditional(1).unwrap().latent_size(16, 16).steps(2);
    fails(run.quantize_denoised(true), &["KL"]);
}

#[test]
fn targets() {
    let new = |config: &LatentDiffusionConfig| LatentDiffusion::new(config, &Device::default());
    let mut wrong = config("cin256");
    wrong.unet_config.target = "ldm.modules.Transformer".into();
    named(new(&wrong), &["ldm.modules.Transformer", "UNetModel"]);
    let mut wrong = config("cin256");
    wrong.first_stage_config = Some(Target::new("ldm.models.autoencoder.Nothing", Value::Null));
    named(new(&wrong), &["ldm.models.autoencoder.Nothing", "VQModelInterface"]);
    let mut wrong = config("cin256");
    let encoder = Target::new("ldm.modules.encoders.modules.MindReader", Value::Null);
    wrong.cond_stage_config = Some(CondStageTarget::Encoder(encoder));
    named(new(&wrong), &["MindReader", "ClassEmbedder"]);
    wrong.cond_stage_config = Some(CondStageTarget::Name("__is_magic__".into()));
    named(new(&wrong), &["__is_magic__", "__is_first_stage__"]);
    let mut wrong = config("cin256");
    wrong.beta_schedule = "zigzag".into();
    named(new(&wrong), &["zigzag"]);
    let mut wrong = config("cin256");
    wrong.unet_config.params["out_channels"] = 5.into();
    named(new(&wrong), &["4 channels", "predicts 5"]);
}

/// A `conditioning_key` that the encoder, or the U-Net, is not made for.
#[test]
fn mechanisms() {
    let new = |config: &LatentDiffusionConfig| LatentDiffusion::new(config, &Device::default());
    let with = |name: &str, key| {
        let mut config = config(name);
        config.conditioning_key = Some(key);
        config
    };
    use ConditioningKey::{Adm, Concat, CrossAttn, Hybrid};
    named(new(&with("cin256", Concat)), &["`concat`", "ClassEmbedder", "a context"]);
    named(new(&with("text2img256", Adm)), &["`adm`", "BERTEmbedder"]);
    named(new(&with("semantic_synthesis256", CrossAttn)), &["`crossattn`", "SpatialRescaler", "channels"]);
    named(new(&with("inpainting_big", Hybrid)), &["`hybrid`", "the first stage"]);
    // An encoder that leaves everything as it is gives what the key says; the U-Net lacks the place.
    named(new(&with("bsr_sr", CrossAttn)), &["`crossattn`", "context_dim"]);
    named(new(&with("bsr_sr", Adm)), &["`adm`", "num_classes"]);
    named(new(&with("rdm768x768", Concat)), &["`concat`", "in_channels"]);
    named(new(&with("rdm768x768", Hybrid)), &["`hybrid`", "in_channels"]);

    let folder = tempfile::tempdir().unwrap();
    let [yaml, file] = ["config.yaml", "model.safetensors"].map(|name| folder.path().join(name));
    model("cin256").save_checkpoint(&file, DType::F32).unwrap();
    std::fs::write(&yaml, with("cin256", Concat).to_yaml().unwrap()).unwrap();
    let loaded = LatentDiffusion::load(&file, &LoadOptions::default().config(&yaml));
    named(loaded, &["config.yaml", "conditioning_key", "ClassEmbedder"]);

    // A U-Net that can't be is a matter of the config, not of the weights.
    let mut config = config("celebahq256");
    config.unet_config.params["channel_mult"] = serde_json::json!([2, 4]);
    std::fs::write(&yaml, config.to_yaml().unwrap()).unwrap();
    let loaded = LatentDiffusion::load(&file, &LoadOptions::default().config(&yaml));
    named(loaded, &["config.yaml: U-Net config: `channel_mult` = [2.0, 4.0]"]);
}

/// Patches that were meant for another first stage.
#[test]
fn patches() {
    let mut upscale = model("bsr_sr");
    upscale.patches = Some(Patches { ks: [8, 8], stride: [4, 4], vqf: 8, ..Patches::default() });
    let run = upscale.upscale(zeros([1, 3, 16, 12])).unwrap().steps(1).run();
    named(run, &["patches", "vqf is 8", "factor 4"]);
}

/// Patches that were told where they lie in a latent of another size.
#[test]
fn places_of_patches() {
    let mut model = model("layout2img-openimages256");
    model.patches = Some(Patches { ks: [8, 8], stride: [4, 4], ..Patches::default() });
    let layout = [Layout::new(vec![LayoutObject::new(1, BoundingBox::FULL)])];
    let run = model.layouts_in_patches(&layout, &LayoutTokenizer::new(601), [12, 16]).unwrap().steps(1);
    named(run.clone().latent_size(16, 12).run(), &["latent_size", "[16, 12]", "[12, 16]"]);
    let kept = run.clone().keep(zeros([1, 3, 8, 8]), zeros([1, 1, 8, 8]));
    named(kept.run(), &["latent_size", "[8, 8]", "[12, 16]"]);
    run.latent_size(12, 16).run().unwrap();
}

#[test]
fn files() {
    let options = LoadOptions::default();
    named(LatentDiffusion::load_preset("cin512", "x.ckpt", &options), &["cin512", "cin256-v2"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.ckpt");
    std::fs::write(&file, "nothing").unwrap();
    named(LatentDiffusion::load(&file, &options), &["model.ckpt", "YAML"]);
    named(LatentDiffusion::load(Path::new("/no/such/place"), &options), &["/no/such/place"]);
    std::fs::write(folder.path().join("model_index.json"), r#"{"_class_name": "DanceDiffusionPipeline"}"#)
        .unwrap();
    named(
        LatentDiffusion::load(folder.path(), &options),
        &["DanceDiffusionPipeline", "LDMTextToImagePipeline"],
    );
}

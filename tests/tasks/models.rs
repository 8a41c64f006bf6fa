//! Each of the 14 models at full depth and reduced width: its parts, and its runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm::{LatentDiffusion, LatentDiffusionConfig, LoadOptions};
use ldm_nn::Conditioning;
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::latent::narrow;
use crate::runs;

/// What the checkpoint of a model with `scale_by_std` holds here.
const SCALE: f32 = 0.7;

/// A checkpoint with a weight drawn by name for every tensor of the model; with EMA weights and a scale factor where the
/// model has them.
fn checkpoint(model: &LatentDiffusion, file: &Path) {
    model.save_checkpoint(file, DType::F32).unwrap();
    let bytes = std::fs::read(file).unwrap();
    let saved = SafeTensors::deserialize(&bytes).unwrap();
    let mut drawn: HashMap<String, (Vec<usize>, Vec<f32>)> = HashMap::new();
    let measured = model.config().is_some_and(|config| config.scale_by_std);
    for (name, view) in saved.tensors() {
        let shape = view.shape().to_vec();
        if name == "scale_factor" {
            drawn.insert(name, (shape, vec![SCALE]));
            continue;
        }
        if let (true, Some(plain)) = (measured, name.strip_prefix("model.")) {
            let ema = format!("model_ema.{}", plain.replace('.', ""));
            let values = seeded_weight(&ema, &shape);
            drawn.insert(ema, (shape.clone(), values));
        }
        let values = seeded_weight(&name, &shape);
        drawn.insert(name, (shape, values));
    }
    let bytes: HashMap<_, _> = drawn
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()))
        .collect();
    let views: HashMap<&String, _> = drawn
        .iter()
        .map(|(name, (shape, _))| (name, TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap()))
        .collect();
    safetensors::serialize_to_file(&views, None, file).unwrap();
}

/// The model of a config, loaded from its YAML and a checkpoint.
pub fn load(config: &LatentDiffusionConfig) -> LatentDiffusion {
    let folder = tempfile::tempdir().unwrap();
    let [yaml, file]: [PathBuf; 2] =
        ["config.yaml", "model.safetensors"].map(|name| folder.path().join(name));
    std::fs::write(&yaml, config.to_yaml().unwrap()).unwrap();
    checkpoint(&LatentDiffusion::new(config, &Device::default()).unwrap(), &file);
    LatentDiffusion::load(&file, &LoadOptions::default().config(yaml)).unwrap()
}

/// One of the registry's, narrow.
pub fn published(name: &str) -> LatentDiffusion {
    load(&narrow(ldm::presets::ldm(name).unwrap().config()))
}

/// The side of the latent here: five levels need more than four.
pub fn side(name: &str) -> usize {
    if name == "lsun_churches256" { 16 } else { 8 }
}

/// Compares a model's `parts`, which are all that the fixture has of it.
fn forward(name: &str, parts: &[&str], model: &LatentDiffusion) {
    let (device, fixture) = (Device::default(), Fixture::open("task_models"));
    let mut found: Vec<_> = fixture.names();
    found.retain(|key| key.rsplit_once('.').is_some_and(|(model, _)| model == name));
    found.sort();
    assert_eq!(found, parts.iter().map(|part| format!("{name}.{part}")).collect::<Vec<_>>());
    let n = side(name);
    let conditioning = runs::conditioning(name, model);
    if parts.contains(&"cond") {
        let key = format!("{name}.cond");
        match (&conditioning.context, &conditioning.concat) {
            (Some(context), _) => assert_close(&key, context, &fixture.tensor::<3>(&key, &device), 1e-4),
            (_, concat) => {
                assert_close(&key, concat.as_ref().unwrap(), &fixture.tensor::<4>(&key, &device), 1e-4);
            }
        }
    }
    let x = seeded_input("x", [2, model.channels(), n, n], &device);
    let t = Tensor::<1>::from_data(TensorData::new(vec![1f32, 981.0], [2]), &device);
    let twice = Conditioning::cat(&[conditioning.clone(), conditioning]).unwrap();
    let e = model.unet.forward(x, t, &twice).unwrap();
    let key = format!("{name}.unet");
    assert_close(&key, &e, &fixture.tensor::<4>(&key, &device), 1e-4);
    if parts.contains(&"decoded") {
        let key = format!("{name}.decoded");
        let z = seeded_input("z", [1, model.channels(), 2, 2], &device);
        assert_close(&key, &model.decode(z).unwrap(), &fixture.tensor::<4>(&key, &device), 1e-4);
    }
}

macro_rules! models {
    ($($test:ident: $name:literal, $parts:expr, $runs:literal;)*) => {$(
        #[test]
        fn $test() {
            let model = published($name);
            forward($name, &$parts, &model);
            assert_eq!(runs::check($name, &model), $runs, "runs of {}", $name);
        }
    )*};
}

models! {
    celebahq256: "celebahq256", ["unet"], 4;
    ffhq256: "ffhq256", ["unet"], 2;
    lsun_churches256: "lsun_churches256", ["decoded", "unet"], 2;
    lsun_beds256: "lsun_beds256", ["unet"], 2;
    cin256: "cin256", ["cond", "decoded", "unet"], 2;
    cin256_v2: "cin256-v2", ["cond", "unet"], 2;
    text2img256: "text2img256", ["cond", "unet"], 2;
    txt2img_1p4b: "txt2img-1p4B", ["cond", "decoded", "unet"], 2;
    layout2img_openimages256: "layout2img-openimages256", ["cond", "unet"], 2;
    semantic_synthesis256: "semantic_synthesis256", ["cond", "unet"], 2;
    semantic_synthesis512: "semantic_synthesis512", ["cond", "unet"], 0;
    bsr_sr: "bsr_sr", ["unet"], 3;
    inpainting_big: "inpainting_big", ["cond", "decoded", "unet"], 2;
    rdm768x768: "rdm768x768", ["decoded", "unet"], 2;
}

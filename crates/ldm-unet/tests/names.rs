//! The same weights under CompVis' names and under those of diffusers.
#![allow(clippy::expect_used)] // Helpers of tests are tests.

mod support;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};
use ldm_nn::weights::{KeyMap, Loader, WeightFile, save_safetensors};
use ldm_test_support::{Fixture, assert_close, relative_difference, seeded_input};
use ldm_unet::presets::Preset;
use ldm_unet::{UNet, UNetConfig};
use proptest::prelude::*;
use support::{Case, cases};

/// Saves and loads again, into a model that was initialised anew.
fn saved_and_loaded(model: &UNet, config: &UNetConfig, keys: &dyn KeyMap, device: &Device) -> UNet {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("unet.safetensors");
    save_safetensors(model, keys, &path, DType::F32).expect("a written file");
    let file = WeightFile::open(&path).expect("a readable file");
    let fresh = config.init(device).expect("a valid config");
    let (loaded, report) = Loader::new(keys).load(fresh, &file).unwrap_or_else(|e| panic!("{e}"));
    assert!(report.unknown.is_empty(), "not used: {:?}", report.unknown);
    loaded
}

/// Every parameter's values, by path.
#[derive(Default)]
struct Values {
    path: Vec<String>,
    values: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().to_data().iter::<f32>().collect();
        self.values.insert(self.path.join("."), values);
    }
}

fn values(model: &UNet) -> BTreeMap<String, Vec<f32>> {
    let mut visitor = Values::default();
    model.visit(&mut visitor);
    visitor.values
}

#[test]
fn compvis_weights_become_those_that_diffusers_converts_them_to() {
    for name in ["sd1", "sd2", "sdxl"] {
        let case = Case::open("compvis", name);
        let model = case.model(DType::F32);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("unet.safetensors");
        let keys = case.config.diffusers_keys().expect("a model of diffusers");
        save_safetensors(&model, &keys, &path, DType::F32).expect("a written file");

        let file = WeightFile::open(&path).expect("a readable file");
        let twin: BTreeMap<String, (Vec<usize>, f64)> =
            serde_json::from_value(case.fixture.json("twin")).expect("shapes and sums");
        let names: Vec<_> = file.tensors().map(|t| t.name.clone()).collect();
        assert_eq!(names, twin.keys().cloned().collect::<Vec<_>>(), "{name}");
        for (key, (shape, sum)) in &twin {
            let (got_shape, values) = file.read_f32(key).expect("a tensor");
            let got: f64 = values.iter().map(|v| f64::from(*v)).sum();
            assert_eq!(&got_shape, shape, "{name}: {key}");
            assert!((got - sum).abs() <= 1e-9 * values.len() as f64, "{name}: {key}: {got} and {sum}");
        }

        // And the model that diffusers' own config describes takes the file and gives the same sample.
        let config = UNetConfig::from_diffusers(&case.fixture.json("twin_config")).expect("a valid config");
        let keys = config.diffusers_keys().expect("a model of diffusers");
        let fresh = config.init(&case.device).expect("a valid config");
        let (twin, _) = Loader::new(&keys).load(fresh, &file).expect("all tensors");
        assert_close(name, &case.run(&twin, DType::F32), &case.expected(), 1e-4);
    }
}

#[test]
fn saved_under_either_names_and_loaded_again_is_the_same() {
    let (mut by_compvis, mut by_diffusers) = (0, 0);
    for case in cases() {
        let model = case.model(DType::F32);
        if let Ok(keys) = case.config.compvis_keys() {
            let again = saved_and_loaded(&model, &case.config, &keys, &case.device);
            assert_eq!(values(&again), values(&model), "{} by CompVis' names", case.name);
            by_compvis += 1;
        }
        let keys = case.config.diffusers_keys().expect("a valid config");
        let again = saved_and_loaded(&model, &case.config, &keys, &case.device);
        assert_eq!(values(&again), values(&model), "{} by the names of diffusers", case.name);
        by_diffusers += 1;

        // Under the config that is written beside it, the file gives the reference's sample again.
        if let Ok(json) = case.config.to_diffusers() {
            let config = UNetConfig::from_diffusers(&json).expect("a valid config");
            let keys = config.diffusers_keys().expect("a valid config");
            let again = saved_and_loaded(&model, &config, &keys, &case.device);
            assert_close(&case.name, &case.run(&again, DType::F32), &case.expected(), 1e-4);
        }
    }
    // no_attention, no_middle, lcm and the unconditional "resnet" and "classes" are not CompVis'.
    assert_eq!((by_compvis, by_diffusers), (34, 39));
}

#[test]
fn attention_names_of_old_diffusers_files_are_read() {
    let case = Case::open("unconditional", "plain");
    let model = case.model(DType::F32);
    let keys = case.config.diffusers_keys().expect("a valid config");
    let old = |path: &str| keys.entries(path).pop();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("unet.safetensors");
    save_safetensors(&model, &old, &path, DType::F32).expect("a written file");
    let file = WeightFile::open(&path).expect("a readable file");
    assert!(file.contains("mid_block.attentions.0.proj_attn.weight"));
    assert!(file.contains("up_blocks.0.attentions.1.query.bias"));
    let (loaded, _) =
        Loader::new(&keys).load(case.config.init(&case.device).expect("valid"), &file).expect("all");
    assert_eq!(values(&loaded), values(&model));
}

#[test]
fn the_order_of_qkv_matters() {
    // The same file read in the wrong order must not pass for the right one.
    let case = Case::open("compvis", "new_order");
    let mut wrong = Case::open("compvis", "new_order");
    wrong.config.use_new_attention_order = false;
    let sample = wrong.run(&wrong.model(DType::F32), DType::F32);
    assert!(relative_difference(&sample, &case.expected()) > 1e-2);
}

/// FNV-1a over names and shapes, as `fingerprint` of `tests/reference/unet.py`.
fn fingerprint(shapes: &BTreeMap<String, Vec<usize>>) -> String {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for (name, shape) in shapes {
        let shape: Vec<_> = shape.iter().map(usize::to_string).collect();
        for byte in format!("{name}:{};", shape.join(",")).bytes() {
            h = (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{h:016x}")
}

/// A file's names and shapes; no parameter is made for them.
struct FileShapes<'a> {
    path: Vec<String>,
    keys: &'a dyn KeyMap,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl ModuleVisitor for FileShapes<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        // As the loader walks: an enum's variant is no part of the path.
        if !container.starts_with("Enum:") {
            self.path.push(name.into());
        }
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.pop();
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let entry = self.keys.entry(&self.path.join(".")).expect("a name");
        let shape = entry.layout.file_shape(&param.lazy_shape()).expect("a shape that fits");
        self.shapes.insert(entry.key, shape);
    }
}

fn file_shapes(config: &UNetConfig, keys: &dyn KeyMap) -> BTreeMap<String, Vec<usize>> {
    let model = config.init(&Device::default()).expect("a valid config");
    let mut visitor = FileShapes { path: Vec::new(), keys, shapes: BTreeMap::new() };
    model.visit(&mut visitor);
    visitor.shapes
}

#[test]
fn published_models_have_the_reference_names_shapes_and_sizes() {
    let fixture = Fixture::open("unet_published");
    for name in ["defaults", "defaults_unconditional", "sd1", "sd1_inpaint", "sd2", "sdxl"] {
        let published = fixture.json(name);
        let config = UNetConfig::from_diffusers(&published["config"]).expect(name);
        let model = config.init(&Device::default()).expect(name);
        assert_eq!(Some(model.parameter_count() as u64), published["parameters"].as_u64(), "{name}");
        let keys = config.diffusers_keys().expect(name);
        assert_eq!(published["shapes"], fingerprint(&file_shapes(&config, &keys)), "{name}");
    }
}

#[test]
fn presets_have_the_published_sizes_and_names() {
    let fixture = Fixture::open("unet_published");
    for (preset, published) in [
        (Preset::Sd1, "sd1"),
        (Preset::Sd1Inpaint, "sd1_inpaint"),
        (Preset::Sd2V, "sd2"),
        (Preset::Sd2Base, "sd2"),
        (Preset::Sdxl, "sdxl"),
    ] {
        let (config, published) = (preset.config(), fixture.json(published));
        let keys = config.diffusers_keys().expect("a valid config");
        let shapes = file_shapes(&config, &keys);
        assert_eq!(published["shapes"], fingerprint(&shapes), "{preset:?}");
        let n: usize = shapes.values().map(|shape| shape.iter().product::<usize>()).sum();
        assert_eq!(published["parameters"], n, "{preset:?}");
    }
    for (preset, parameters) in [
        (Preset::Sd1, 859_520_964),
        (Preset::Sd2Base, 865_910_724),
        (Preset::Sd2V, 865_910_724),
        (Preset::Sdxl, 2_567_463_684),
        (Preset::Sd1Inpaint, 859_520_964 + 5 * 320 * 9),
        (Preset::Sd2Inpaint, 865_910_724 + 5 * 320 * 9),
        (Preset::SdxlInpaint, 2_567_463_684 + 5 * 320 * 9),
    ] {
        let model = preset.config().init(&Device::default()).expect("a valid config");
        assert_eq!(model.parameter_count(), parameters, "{preset:?}");
    }
    assert_eq!(Preset::all().count(), 7);
}

#[test]
fn stable_diffusion_checkpoints_have_these_names() {
    let config = Preset::Sd1.config();
    let shapes = file_shapes(&config, &config.compvis_keys().expect("a CompVis model"));
    assert_eq!(shapes.len(), 686);
    for (name, shape) in [
        ("time_embed.0.weight", &[1280, 320][..]),
        ("input_blocks.0.0.weight", &[320, 4, 3, 3]),
        ("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", &[320, 768]),
        ("input_blocks.3.0.op.weight", &[320, 320, 3, 3]),
        ("input_blocks.11.0.out_layers.3.weight", &[1280, 1280, 3, 3]),
        ("middle_block.1.proj_in.weight", &[1280, 1280, 1, 1]),
        ("output_blocks.2.1.conv.weight", &[1280, 1280, 3, 3]),
        ("output_blocks.5.2.conv.weight", &[1280, 1280, 3, 3]),
        ("output_blocks.8.2.conv.weight", &[640, 640, 3, 3]),
        ("output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight", &[2560, 320]),
        ("out.2.weight", &[4, 320, 3, 3]),
    ] {
        assert_eq!(shapes.get(name).map(Vec::as_slice), Some(shape), "{name}");
    }
    let config = Preset::Sdxl.config();
    let shapes = file_shapes(&config, &config.compvis_keys().expect("a CompVis model"));
    for (name, shape) in [
        ("label_emb.0.0.weight", &[1280, 2816][..]),
        ("label_emb.0.2.bias", &[1280]),
        ("input_blocks.7.1.transformer_blocks.9.attn2.to_k.weight", &[1280, 2048]),
        ("output_blocks.2.2.conv.weight", &[1280, 1280, 3, 3]),
        ("output_blocks.5.2.conv.weight", &[640, 640, 3, 3]),
        ("output_blocks.8.0.skip_connection.weight", &[320, 640, 1, 1]),
    ] {
        assert_eq!(shapes.get(name).map(Vec::as_slice), Some(shape), "{name}");
    }
    assert_eq!(shapes.len(), 1680);
}

/// Gives every parameter other values, so that no zero of an initialisation hides a swap.
struct Scatter(u64);

impl ModuleMapper for Scatter {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        let device = param.lazy_device();
        let values = seeded_input(&self.0.to_string(), param.lazy_shape().dims::<D>(), &device);
        param.map(|_| values)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn load_of_save_is_the_same(
        levels in 1usize..4,
        res_blocks in 1usize..3,
        attention in prop::collection::vec(any::<bool>(), 3),
        transformer in any::<bool>(),
        flags in prop::collection::vec(any::<bool>(), 6),
        heads in prop::sample::select(vec![1usize, 2, 4]),
        depth in 1usize..3,
    ) {
        let mut config = UNetConfig::new(3, 8, 2);
        config.channel_mult = [1.0, 2.0, 3.0][..levels].to_vec();
        config.norm_num_groups = 4;
        config.num_res_blocks = ldm_unet::PerLevel::All(res_blocks);
        config.attention_resolutions = (0..levels).filter(|i| attention[*i]).map(|i| 1 << i).collect();
        config.num_heads = Some(ldm_unet::PerLevel::All(heads));
        config.use_spatial_transformer = transformer;
        config.context_dim = transformer.then_some(6);
        config.transformer_depth = ldm_unet::PerLevel::All(depth);
        config.use_linear_in_transformer = flags[0];
        config.use_new_attention_order = flags[1];
        config.use_scale_shift_norm = flags[2];
        config.resblock_updown = ldm_unet::PerLevel::All(flags[3]);
        config.conv_resample = flags[4];
        config.num_classes = flags[5].then_some(ldm_unet::NumClasses::Count(3));

        let device = Device::default();
        let model = config.init(&device).expect("a valid config").map(&mut Scatter(0));
        for keys in [
            Box::new(config.compvis_keys().expect("names")) as Box<dyn KeyMap>,
            Box::new(config.diffusers_keys().expect("names")),
        ] {
            let again = saved_and_loaded(&model, &config, &*keys, &device);
            prop_assert_eq!(values(&again), values(&model));
        }
    }
}

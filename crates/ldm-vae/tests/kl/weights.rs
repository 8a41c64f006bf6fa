use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};
use ldm_nn::weights::{Loader, WeightError, WeightFile, save_safetensors};
use ldm_test_support::{relative_difference, write_weights};
use ldm_vae::{AutoencoderKl, AutoencoderKlConfig, Naming};
use proptest::prelude::*;
use serde_json::json;

use crate::Case;

/// Every parameter's bits, by path.
#[derive(Default)]
struct Values {
    path: Vec<String>,
    values: BTreeMap<String, (Vec<usize>, Vec<u32>)>,
}

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.val().into_data();
        let bits = data.iter::<f32>().map(f32::to_bits).collect();
        self.values.insert(self.path.join("."), (param.shape().to_vec(), bits));
    }
}

fn values(model: &AutoencoderKl) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    let mut values = Values::default();
    model.visit(&mut values);
    values.values
}

fn reload(model: &AutoencoderKl, naming: Naming, dir: &tempfile::TempDir) -> AutoencoderKl {
    let path = dir.path().join("saved.safetensors");
    let names = model.weight_names(naming);
    save_safetensors(model, &names, &path, DType::F32).unwrap();
    let fresh = model.config().init(&Device::default()).unwrap();
    let (fresh, report) = Loader::new(&names).load(fresh, &WeightFile::open(&path).unwrap()).unwrap();
    assert!(report.kept.is_empty() && report.unknown.is_empty(), "{report:?}");
    fresh
}

#[test]
fn a_saved_model_has_the_references_names_and_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let cases = ["f16", "f32", "uneven", "one_level", "no_attention"].map(Case::compvis);
    for case in cases.into_iter().chain(["sd", "attention", "no_quant"].map(Case::diffusers)) {
        let model = case.config().init(&Device::default()).unwrap();
        let path = dir.path().join("saved.safetensors");
        save_safetensors(&model, &model.weight_names(case.naming), &path, DType::F32).unwrap();
        let file = WeightFile::open(&path).unwrap();
        let saved: BTreeMap<_, _> =
            file.tensors().map(|info| (info.name.clone(), info.shape.clone())).collect();
        assert_eq!(saved, case.fixture.shapes("shapes").into_iter().collect(), "{}", case.name);
    }
}

#[test]
fn one_module_speaks_both_namings() {
    let device = Device::default();
    let dir = tempfile::tempdir().unwrap();
    let case = Case::compvis("f16");
    let model = case.model(DType::F32, &device);
    let through_diffusers = reload(&model, Naming::Diffusers, &dir);
    assert_eq!(values(&through_diffusers), values(&model));
    let expected = case.fixture.tensor::<4>("decoded", &device);
    let decoded = through_diffusers.decode(case.latent(&model, &device)).unwrap();
    assert!(relative_difference(&decoded, &expected) < 1e-4);
}

#[test]
fn files_older_than_diffusers_0_18_load() {
    let device = Device::default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.safetensors");
    let old = |name: &str| {
        let renames = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        renames.iter().fold(name.to_string(), |name, (new, old)| name.replace(new, old))
    };
    let shapes = Case::diffusers("sd").fixture.shapes("shapes");
    let shapes: Vec<_> = shapes.into_iter().map(|(name, shape)| (old(&name), shape)).collect();
    assert!(shapes.iter().any(|(name, _)| name == "decoder.mid_block.attentions.0.proj_attn.weight"));
    write_weights(&path, &shapes);
    let model = Case::diffusers("sd").config().init(&device).unwrap();
    let names = model.weight_names(Naming::Diffusers);
    let (_, report) = Loader::new(&names).load(model, &WeightFile::open(&path).unwrap()).unwrap();
    assert!(report.kept.is_empty() && report.unknown.is_empty(), "{report:?}");
}

#[test]
fn a_whole_models_file_needs_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.safetensors");
    let case = Case::compvis("one_level");
    let shapes = case.fixture.shapes("shapes").into_iter();
    let shapes: Vec<_> = shapes.map(|(name, shape)| (format!("first_stage_model.{name}"), shape)).collect();
    write_weights(&path, &shapes);
    let file = WeightFile::open(&path).unwrap();
    let model = || case.config().init(&Device::default()).unwrap();
    let names = model().weight_names(Naming::CompVis);
    let (_, report) = Loader::new(&names).prefix("first_stage_model.").load(model(), &file).unwrap();
    assert_eq!(report.loaded.len(), shapes.len());
    let Err(WeightError::Tensors { problems, .. }) = Loader::new(&names).load(model(), &file) else {
        panic!("loaded without the prefix");
    };
    assert_eq!(problems.len(), shapes.len());
}

fn configs() -> impl Strategy<Value = AutoencoderKlConfig> {
    let mults = prop::collection::vec(1usize..=3, 1..=3);
    (mults, 1usize..=2, 0usize..8, any::<bool>(), any::<bool>()).prop_map(
        |(mut ch_mult, num_res_blocks, attention, middle, quant)| {
            ch_mult[0] = 1;
            let sizes: Vec<usize> = (0..3).filter(|i| attention >> i & 1 == 1).map(|i| 64 >> i).collect();
            let ddconfig = json!({
                "double_z": true, "z_channels": 3, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 8,
                "ch_mult": ch_mult, "num_res_blocks": num_res_blocks, "attn_resolutions": sizes,
                "dropout": 0.0, "norm_num_groups": 4, "mid_block_add_attention": middle,
            });
            let config = json!({
                "embed_dim": 3, "ddconfig": ddconfig, "use_quant_conv": quant, "use_post_quant_conv": quant,
            });
            serde_json::from_value(config).unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_is_saved_is_loaded(config in configs(), compvis in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let model = config.init(&Device::default()).unwrap();
        let naming = if compvis { Naming::CompVis } else { Naming::Diffusers };
        prop_assert_eq!(values(&reload(&model, naming, &dir)), values(&model));
    }

    #[test]
    fn a_config_survives_diffusers(config in configs()) {
        let theirs = config.to_diffusers().unwrap();
        let json = serde_json::to_string(&theirs).unwrap();
        let read: ldm_vae::DiffusersAutoencoderKl = serde_json::from_str(&json).unwrap();
        let mut back = AutoencoderKlConfig::try_from(&read).unwrap();
        // Sizes that no level has are not written.
        back.ddconfig.attn_resolutions = config.ddconfig.attn_resolutions.clone();
        prop_assert_eq!(&back, &config);
        prop_assert_eq!(read.to_owned(), theirs);
    }
}

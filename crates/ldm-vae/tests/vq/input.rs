use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};
use ldm_nn::weights::{Loader, WeightFile, save_safetensors};
use ldm_vae::{Naming, VaeError, VqModel};
use std::collections::BTreeMap;

use crate::Case;

#[test]
fn bad_pictures_and_latents_are_named() {
    let device = Device::default();
    let model = Case::compvis("vq-f8").config().init(&device).unwrap();
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
    let error = model.encode(zeros([1, 3, 20, 16])).unwrap_err();
    assert_eq!(error, VaeError::Size { height: 20, width: 16, factor: 8 });
    let error = model.encode(zeros([1, 4, 16, 16])).unwrap_err();
    assert_eq!(error.to_string(), "picture has 4 channels, the model takes 3");
    for error in [
        model.decode(zeros([1, 3, 2, 2])).unwrap_err(),
        model.decode_unquantized(zeros([1, 3, 2, 2])).unwrap_err(),
        model.quantize.forward(zeros([1, 3, 2, 2])).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "latent has 3 channels, the model takes 4");
    }
    assert!(matches!(model.decode(zeros([1, 4, 0, 2])), Err(VaeError::Shape { what: "latent", .. })));
}

#[derive(Default)]
struct Values(Vec<String>, BTreeMap<String, Vec<u32>>);

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let bits = param.val().into_data().iter::<f32>().map(f32::to_bits).collect();
        self.1.insert(self.0.join("."), bits);
    }
}

fn values(model: &VqModel) -> BTreeMap<String, Vec<u32>> {
    let mut values = Values::default();
    model.visit(&mut values);
    values.1
}

#[test]
fn what_is_saved_is_loaded_under_either_naming() {
    let device = Device::default();
    let dir = tempfile::tempdir().unwrap();
    let case = Case::compvis("vq-f8-n256");
    let model = case.model(DType::F32, &device);
    for naming in [Naming::CompVis, Naming::Diffusers] {
        let path = dir.path().join("saved.safetensors");
        let names = model.weight_names(naming);
        save_safetensors(&model, &names, &path, DType::F32).unwrap();
        let file = WeightFile::open(&path).unwrap();
        assert!(file.contains("quantize.embedding.weight"));
        if naming == Naming::CompVis {
            let saved: Vec<_> = file.tensors().map(|info| (info.name.clone(), info.shape.clone())).collect();
            let saved: BTreeMap<_, _> = saved.into_iter().collect();
            assert_eq!(saved, case.fixture.shapes("shapes").into_iter().collect());
        }
        let fresh = model.config().init(&device).unwrap();
        let (fresh, report) = Loader::new(&names).load(fresh, &file).unwrap();
        assert!(report.kept.is_empty() && report.unknown.is_empty(), "{report:?}");
        assert_eq!(values(&fresh), values(&model));
    }
}

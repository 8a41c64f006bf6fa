//! The VQ first stage against CompVis', taming's and diffusers' (fixtures from tests/reference/vq.py).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod codebook;
mod config;
mod first_stage;
mod gradients;
mod input;
mod parity;

use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_nn::weights::{Loader, WeightFile};
use ldm_test_support::{Fixture, seeded_input, write_weights};
use ldm_vae::{DiffusersVqModel, Naming, VqModel, VqModelConfig};

/// A fixture of one model: its config, its weights (drawn again), its outputs.
struct Case {
    name: String,
    fixture: Fixture,
    naming: Naming,
}

impl Case {
    fn compvis(name: &str) -> Self {
        let fixture = Fixture::open(&name.replace('-', "_"));
        Self { name: name.into(), fixture, naming: Naming::CompVis }
    }

    fn diffusers(name: &str) -> Self {
        let fixture = Fixture::open(&format!("vq_diffusers_{name}"));
        Self { name: format!("diffusers_{name}"), fixture, naming: Naming::Diffusers }
    }

    fn config(&self) -> VqModelConfig {
        let config = self.fixture.json("config");
        match self.naming {
            Naming::CompVis => serde_json::from_value(config).unwrap(),
            Naming::Diffusers => {
                let theirs: DiffusersVqModel = serde_json::from_value(config).unwrap();
                VqModelConfig::try_from(&theirs).unwrap()
            }
        }
    }

    /// The model with the reference's weights; every tensor of the file must be used.
    fn model(&self, dtype: DType, device: &Device) -> VqModel {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights.safetensors");
        let shapes = self.fixture.shapes("shapes");
        write_weights(&path, &shapes);
        let file = WeightFile::open(path).unwrap();
        assert_eq!(Naming::detect(file.tensors().map(|info| info.name.as_str())), Some(self.naming));
        let model = self.config().init(device).unwrap();
        let names = model.weight_names(self.naming);
        let (model, report) = Loader::new(&names).dtype(dtype).load(model, &file).unwrap();
        assert_eq!(report.loaded.len(), shapes.len());
        assert!(report.kept.is_empty() && report.unknown.is_empty() && report.ignored.is_empty());
        model
    }

    fn picture(&self, device: &Device) -> Tensor<4> {
        let shape: [usize; 4] = serde_json::from_value(self.fixture.json("shape")).unwrap();
        seeded_input(&format!("{}.x", self.name), shape, device).clamp(-1.0, 1.0)
    }

    /// A latent of one item, of the size of the picture's, in which nothing is a near-tie.
    fn latent(&self, model: &VqModel, device: &Device) -> Tensor<4> {
        let ([_, _, h, w], f) = (self.picture(device).dims(), model.factor());
        let shape = [1, model.config().embed_dim, h / f, w / f];
        seeded_input(&format!("{}.z", self.name), shape, device)
    }
}

/// The integers of a tensor's data.
fn ints(data: &TensorData) -> Vec<i64> {
    data.iter::<i64>().collect()
}

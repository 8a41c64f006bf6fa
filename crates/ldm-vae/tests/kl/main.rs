//! The KL first stage against CompVis' and diffusers' (fixtures from tests/reference/vae.py).

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, which clippy takes for plain code

mod config;
mod gaussian;
mod input;
mod parity;
mod tiling;
mod weights;

use std::path::PathBuf;

use burn::tensor::{DType, Device, Tensor};
use ldm_nn::weights::{Loader, WeightFile};
use ldm_test_support::{Fixture, seeded_input, write_weights};
use ldm_vae::{AutoencoderKl, AutoencoderKlConfig, DiffusersAutoencoderKl, Naming};

/// A fixture of one model: its config, its weights (drawn again), its outputs.
struct Case {
    name: String,
    fixture: Fixture,
    naming: Naming,
}

impl Case {
    fn compvis(name: &str) -> Self {
        let fixture = Fixture::open(&format!("vae_compvis_{name}"));
        Self { name: name.into(), fixture, naming: Naming::CompVis }
    }

    fn diffusers(name: &str) -> Self {
        let fixture = Fixture::open(&format!("vae_diffusers_{name}"));
        Self { name: name.into(), fixture, naming: Naming::Diffusers }
    }

    fn tiling() -> Self {
        Self { name: "tiling".into(), fixture: Fixture::open("vae_tiling"), naming: Naming::Diffusers }
    }

    fn config(&self) -> AutoencoderKlConfig {
        let config = self.fixture.json("config");
        match self.naming {
            Naming::CompVis => serde_json::from_value(config).unwrap(),
            Naming::Diffusers => {
                let theirs: DiffusersAutoencoderKl = serde_json::from_value(config).unwrap();
                AutoencoderKlConfig::try_from(&theirs).unwrap()
            }
        }
    }

    /// The reference's weights, under the reference's names.
    fn weights(&self, dir: &tempfile::TempDir) -> PathBuf {
        let path = dir.path().join(format!("{}.safetensors", self.name));
        write_weights(&path, &self.fixture.shapes("shapes"));
        path
    }

    /// The model with the reference's weights; every tensor of the file must be used.
    fn model(&self, dtype: DType, device: &Device) -> AutoencoderKl {
        let dir = tempfile::tempdir().unwrap();
        let file = WeightFile::open(self.weights(&dir)).unwrap();
        assert_eq!(Naming::detect(file.tensors().map(|info| info.name.as_str())), Some(self.naming));
        let model = self.config().init(device).unwrap();
        let names = model.weight_names(self.naming);
        let (model, report) = Loader::new(&names).dtype(dtype).load(model, &file).unwrap();
        assert_eq!(report.loaded.len(), self.fixture.shapes("shapes").len());
        assert!(report.kept.is_empty() && report.unknown.is_empty() && report.ignored.is_empty());
        model
    }

    fn shape(&self) -> [usize; 4] {
        serde_json::from_value(self.fixture.json("shape")).unwrap()
    }

    fn picture(&self, device: &Device) -> Tensor<4> {
        seeded_input(&format!("{}.x", self.name), self.shape(), device).clamp(-1.0, 1.0)
    }

    fn latent(&self, model: &AutoencoderKl, device: &Device) -> Tensor<4> {
        let ([b, _, h, w], f) = (self.shape(), model.factor());
        let shape = [b, model.config().embed_dim, h / f, w / f];
        seeded_input(&format!("{}.z", self.name), shape, device)
    }
}

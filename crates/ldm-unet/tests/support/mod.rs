//! A fixture's model and inputs.
#![allow(dead_code)] // Each test file is a crate of its own and uses its part.

use burn::tensor::{DType, Device, Tensor};
use ldm_nn::weights::{KeyMap, Loader, WeightFile};
use ldm_test_support::{Fixture, seeded_input, write_weights};
use ldm_unet::{Conditioning, UNet, UNetConfig};

/// One fixture of `tests/reference/unet.py`.
pub struct Case {
    pub name: String,
    pub fixture: Fixture,
    pub config: UNetConfig,
    pub device: Device,
}

impl Case {
    pub fn open(kind: &str, name: &str) -> Self {
        let name = format!("unet_{kind}_{name}");
        let fixture = Fixture::open(&name);
        let json = fixture.json("config");
        let config = match kind {
            "compvis" => UNetConfig::from_compvis(&json),
            _ => UNetConfig::from_diffusers(&json),
        };
        let config = config.unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { name, fixture, config, device: Device::default() }
    }

    pub fn keys(&self) -> Box<dyn KeyMap> {
        match self.name.starts_with("unet_compvis") {
            true => Box::new(self.config.compvis_keys().expect("a CompVis model")),
            false => Box::new(self.config.diffusers_keys().expect("a model of diffusers")),
        }
    }

    /// The model with the reference's seeded weights, loaded from a file with the reference's names.
    pub fn model(&self, dtype: DType) -> UNet {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("unet.safetensors");
        write_weights(&path, &self.fixture.shapes("shapes"));
        let model = self.config.init(&self.device).expect("a valid config");
        let file = WeightFile::open(&path).expect("a readable file");
        let (model, report) =
            Loader::new(&*self.keys()).dtype(dtype).load(model, &file).unwrap_or_else(|e| panic!("{e}"));
        assert!(report.unknown.is_empty(), "{}: not used: {:?}", self.name, report.unknown);
        model
    }

    pub fn run(&self, model: &UNet, dtype: DType) -> Tensor<4> {
        let (x, timesteps, conditioning) = self.inputs();
        model
            .forward(x.cast(dtype), timesteps, &conditioning)
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    pub fn expected(&self) -> Tensor<4> {
        self.fixture.tensor("sample", &self.device)
    }

    /// Drawn from the same names as in the script.
    pub fn inputs(&self) -> (Tensor<4>, Tensor<1>, Conditioning) {
        let inputs = self.fixture.json("inputs");
        let shape = |key: &str| -> Vec<usize> {
            serde_json::from_value(inputs[key].clone())
                .unwrap_or_else(|e| panic!("{}: {key}: {e}", self.name))
        };
        let name = |key: &str| format!("{}.{key}", self.name);
        let matrix = |key: &str, scale: f64| {
            inputs.get(key).map(|_| {
                let [b, d] = shape(key)[..] else { panic!("{key} has two axes") };
                seeded_input(&name(key), [b, d], &self.device) * scale
            })
        };
        let [b, c, h, w] = shape("x")[..] else { panic!("x has four axes") };
        let x = seeded_input(&name("x"), [b, c, h, w], &self.device);
        let timesteps: Vec<f32> = serde_json::from_value(inputs["timesteps"].clone()).expect("numbers");
        let timesteps = Tensor::from_floats(&timesteps[..], &self.device);
        let one_number = inputs.get("y").is_some_and(|y| y[1] == 1);
        let labels = inputs.get("class_labels");
        let conditioning = Conditioning {
            concat: inputs.get("concat").map(|_| {
                let [b, c, h, w] = shape("concat")[..] else { panic!("concat has four axes") };
                seeded_input(&name("concat"), [b, c, h, w], &self.device)
            }),
            context: inputs.get("context").map(|_| {
                let [b, m, d] = shape("context")[..] else { panic!("context has three axes") };
                seeded_input(&name("context"), [b, m, d], &self.device)
            }),
            class_labels: labels.map(|labels| serde_json::from_value(labels.clone()).expect("labels")),
            y: matrix("y", if one_number { 100.0 } else { 1.0 }),
            text_embeds: matrix("text_embeds", 1.0),
            time_ids: matrix("time_ids", 512.0),
            timestep_cond: matrix("timestep_cond", 1.0),
        };
        (x, timesteps, conditioning)
    }
}

/// Every fixture, by the reference that made it.
pub const CASES: [(&str, &[&str]); 3] = [
    (
        "condition",
        &[
            "sd1",
            "sd2",
            "sdxl",
            "odd",
            "head40",
            "concat9",
            "classes",
            "label_projection",
            "label_linear",
            "label_timestep",
            "label_identity",
            "scale_shift",
            "updown",
            "one_level",
            "no_attention",
            "no_middle",
            "lcm",
            "details",
            "cross_only",
            "per_level",
        ],
    ),
    ("unconditional", &["plain", "ddpm", "classes", "resnet", "timestep"]),
    (
        "compvis",
        &[
            "sd1",
            "sd2",
            "sdxl",
            "blocks",
            "one_head",
            "new_order",
            "heads_upsample",
            "not_legacy",
            "updown",
            "pooled",
            "per_level",
            "concat",
            "hybrid",
            "adm",
        ],
    ),
];

pub fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().flat_map(|(kind, names)| names.iter().map(|name| Case::open(kind, name)))
}

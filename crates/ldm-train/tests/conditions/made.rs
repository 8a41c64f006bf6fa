//! Tiny trainings in the space of pictures (f = 1), and data that is made.

use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use ldm_conditioning::{BoundingBox, CondStage, Layout, LayoutObject};
use ldm_scheduler::NativeRng;
use ldm_train::RunError;
use ldm_train::conditions::{ConditionConfig, Conditions};
use ldm_train::config::{ModelConfig, RunConfig};
use ldm_train::data::{Batch, MapKind, Maps};
use ldm_train::run::{At, DiffusionTraining, Latents, Stage};
use ldm_vae::FirstStage;
use serde_json::{Value, json};

/// Side of the pictures.
pub const SIDE: usize = 8;

/// A backend has one generator for all threads: whoever draws weights holds this.
static DRAWING: Mutex<()> = Mutex::new(());

/// Keys of the U-Net beside its smallest.
pub fn unet(in_channels: usize, more: Value) -> Value {
    let mut params = json!({
        "in_channels": in_channels, "out_channels": 3, "model_channels": 16, "num_res_blocks": 1,
        "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 2, "norm_num_groups": 8,
    });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

/// The keys of a U-Net with cross-attention.
pub fn cross_attention() -> Value {
    json!({"use_spatial_transformer": true, "context_dim": 8})
}

/// A run's config; `model` are further keys of `model.params`.
pub fn config(unet: &Value, model: &Value) -> RunConfig {
    let mut params = json!({
        "timesteps": 100, "parameterization": "x0", "linear_start": 0.015, "linear_end": 0.195,
        "unet_config": {"target": "UNetModel", "params": unet},
        "first_stage_config": {"target": "ldm.models.autoencoder.IdentityFirstStage"},
        "cond_stage_config": "__is_unconditional__",
    });
    params.as_object_mut().unwrap().extend(model.as_object().unwrap().clone());
    let target = "ldm.models.diffusion.ddpm.LatentDiffusion";
    let document = json!({
        "model": {"base_learning_rate": 1e-3, "target": target, "params": params},
        "data": {"loader": {"transform": {"size": SIDE}}},
        // Decay moves what has no gradient too.
        "train": {"scale_lr": false, "seed": 7, "sample_steps": 2, "images": 3, "optimizer": {"weight_decay": 0.0}},
    });
    RunConfig::from_value(&document).unwrap()
}

/// A training; the first stage is the identity unless one is given.
pub fn training(
    config: &RunConfig,
    first_stage: Option<FirstStage>,
    tau: impl FnOnce(&Device) -> Option<CondStage>,
    conditions: Box<dyn Conditions>,
) -> Result<DiffusionTraining, RunError> {
    let _alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Device::default();
    device.seed(11);
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    let first_stage = match first_stage {
        Some(first_stage) => first_stage,
        None => model.first_stage.init(&device)?,
    };
    let tau = tau(&device);
    DiffusionTraining::conditioned(model, config, first_stage, Latents::Encoded, tau, conditions, &device)
}

/// Steps at a rate over these batches.
pub fn steps(training: &mut DiffusionTraining, batches: &[Batch], rate: f64) -> Result<(), RunError> {
    for (step, batch) in (0..).zip(batches) {
        training.step(&At { step, micro: step, rate }, std::slice::from_ref(batch))?;
    }
    Ok(())
}

/// Samples with everything that a condition can be made of, which all say the same two bits.
pub fn batch(number: u64, n: usize) -> Batch {
    let mut rng = NativeRng::new(1000 + number);
    let bits: Vec<[bool; 2]> =
        (0..n).map(|_| [rng.next_u64() >> 63 == 1, rng.next_u64() >> 63 == 1]).collect();
    let sign = |bit: bool| if bit { 1.0 } else { -1.0 };
    let picture = |[a, b]: &[bool; 2]| {
        let plane = |value: f32| vec![value; SIDE * SIDE];
        [plane(sign(*a)), plane(sign(*b)), plane(0.0)].concat()
    };
    let layout = |[a, b]: &[bool; 2]| {
        let object = |class: usize, x: f64| LayoutObject::new(class, BoundingBox::new(x, 0.0, 0.5, 0.5));
        Layout::new([object(usize::from(*a), 0.0), object(2 + usize::from(*b), 0.5)])
    };
    let name = |bit: bool| if bit { "light" } else { "dark" };
    Batch {
        number,
        pictures: bits.iter().flat_map(picture).collect(),
        size: SIDE,
        captions: bits.iter().map(|[a, b]| format!("{} and {}", name(*a), name(*b))).collect(),
        classes: Some(bits.iter().map(|[a, b]| i64::from(*a) + 2 * i64::from(*b)).collect()),
        keys: (0..n).map(|i| format!("p{i:03}")).collect(),
        views: None,
        maps: None,
        layouts: Some(bits.iter().map(layout).collect()),
    }
}

/// The same with a map of labels in each, of 0 and 1 in places of its own, `side` wide, which the first channel of the
/// picture repeats.
pub fn mapped(number: u64, n: usize, side: usize) -> Batch {
    let mut batch = batch(number, n);
    let mut rng = NativeRng::new(5000 + number);
    let small: Vec<f32> = (0..n * SIDE * SIDE).map(|_| (rng.next_u64() >> 63) as f32).collect();
    for (picture, labels) in batch.pictures.chunks_mut(3 * SIDE * SIDE).zip(small.chunks(SIDE * SIDE)) {
        for (pixel, label) in picture.iter_mut().zip(labels) {
            *pixel = 2.0 * label - 1.0;
        }
    }
    let times = side / SIDE;
    let values = (0..n * side * side).map(|i| {
        let (item, y, x) = (i / (side * side), i / side % side, i % side);
        small[(item * SIDE + y / times) * SIDE + x / times]
    });
    batch.maps = Some(Maps { kind: MapKind::Labels, size: side, values: values.collect() });
    batch
}

/// A layout's tokens in a vocabulary as small as can be: two objects of four classes.
pub fn layouts() -> ConditionConfig {
    ConditionConfig::Layouts {
        no_object_classes: 4,
        no_max_objects: 2,
        no_tokens: 101,
        encode_crop: true,
        use_group_parameter: false,
        use_additional_parameters: false,
    }
}

/// All parameters of a module, one after the other.
pub fn weights<M: Module>(module: &M) -> Vec<f32> {
    struct All(Vec<f32>);
    impl ModuleVisitor for All {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(param.val().into_data().iter::<f32>());
        }
    }
    let mut all = All(Vec::new());
    module.visit(&mut all);
    all.0
}

/// How many numbers differ.
pub fn moved(before: &[f32], after: &[f32]) -> usize {
    assert_eq!(before.len(), after.len());
    before.iter().zip(after).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
}

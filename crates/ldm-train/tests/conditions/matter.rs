//! With every mechanism the loss falls, and rises again where everybody is given somebody else's condition.

use burn::tensor::{Device, Tensor};
use ldm_conditioning::{ClassEmbedderConfig, CondStage, SpatialRescalerConfig};
use ldm_scheduler::NativeRng;
use ldm_train::conditions::{Asked, ConditionConfig, Conditions};
use ldm_train::config::ModelConfig;
use ldm_train::data::Batch;
use ldm_train::run::{DiffusionTraining, Purpose, Random};
use ldm_train::{Objective, RunError};
use ldm_vae::{FirstStage, IdentityFirstStage};
use serde_json::{Value, json};

use crate::made::{SIDE, batch, config, cross_attention, mapped, steps, training, unet};

const ITEMS: usize = 16;
const EVALUATED: usize = 64;

/// The loss on pictures that training has not seen, each with the condition of the picture `shift` places on.
fn loss(
    training: &DiffusionTraining,
    objective: &Objective,
    conditions: &ConditionConfig,
    seen: &Batch,
    shift: usize,
) -> f32 {
    let device = Device::default();
    let (identity, random) = (FirstStage::Identity(IdentityFirstStage::new(3)), Random::new(99));
    let asked = Asked { micro: 0, random, first_stage: &identity, device: &device };
    let given = conditions.of(seen, &asked).unwrap();
    let others: Vec<usize> = (0..EVALUATED).map(|i| (i + shift) % EVALUATED).collect();
    let given = if given.batch().is_some() { given.select(&others).unwrap() } else { given };
    let tau = training.denoiser().cond_stage_model.clone().unwrap_or_else(CondStage::identity);
    let conditioning = tau.encode(&given).unwrap();
    let noise = random.normal(0, Purpose::Noise, [EVALUATED, 3, SIDE, SIDE], &device).unwrap();
    let mut rng = NativeRng::new(4);
    let timesteps: Vec<usize> = (0..EVALUATED).map(|_| (rng.next_u64() % 100) as usize).collect();
    let losses = objective.loss(seen.to_tensor(&device), noise, &timesteps, None, |z_t, t| {
        let t: Vec<f32> = t.iter().map(|t| *t as f32).collect();
        let t = Tensor::<1>::from_floats(t.as_slice(), &device);
        Ok::<_, RunError>(training.denoiser().model.forward(z_t, t, &conditioning)?)
    });
    losses.unwrap().loss.into_scalar::<f32>()
}

/// The loss before training, after it, and after it with everybody's condition given to somebody else.
fn train(
    name: &str,
    (unet, key): (Value, &str),
    tau: fn(&Device) -> CondStage,
    conditions: ConditionConfig,
    data: fn(u64, usize) -> Batch,
    count: u64,
) -> [f32; 3] {
    let mut model = json!({"cond_stage_trainable": true});
    if !key.is_empty() {
        model["cond_stage_config"] = json!({"target": "torch.nn.Identity"});
        model["conditioning_key"] = json!(key);
    }
    let config = config(&unet, &model);
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    let objective = Objective::from_config(&model.objective).unwrap();
    let given = |device: &Device| (!key.is_empty()).then(|| tau(device));
    let mut training = training(&config, None, given, Box::new(conditions.clone())).unwrap();
    let seen = data(1_000_000, EVALUATED);
    let before = loss(&training, &objective, &conditions, &seen, 0);
    let batches: Vec<_> = (0..count).map(|number| data(number, ITEMS)).collect();
    steps(&mut training, &batches, 4e-3).unwrap();
    let [after, shuffled] = [0, 1].map(|shift| loss(&training, &objective, &conditions, &seen, shift));
    println!("{name}: before {before:.3}, after {after:.3}, with others' conditions {shuffled:.3}");
    [before, after, shuffled]
}

fn it_matters([before, after, shuffled]: [f32; 3]) {
    assert!(after < 0.4 * before, "{before} {after}");
    assert!(shuffled > 2.0 * after, "{after} {shuffled}");
}

#[test]
fn without_conditions_the_loss_falls() {
    let none = ConditionConfig::None;
    let [before, after, shuffled] =
        train("none", (unet(3, json!({})), ""), |_| CondStage::identity(), none, batch, 60);
    assert!(after < 0.6 * before, "{before} {after}");
    assert_eq!(shuffled, after);
}

#[test]
fn maps_matter() {
    let tau = |device: &Device| {
        let config = SpatialRescalerConfig { out_channels: Some(2), ..SpatialRescalerConfig::new(1, 2) };
        CondStage::SpatialRescaler(config.init(device).unwrap())
    };
    let data = |number, n| mapped(number, n, 2 * SIDE);
    let map = ConditionConfig::Map { classes: Some(2) };
    it_matters(train("concat", (unet(5, json!({})), "concat"), tau, map, data, 80));
}

#[test]
fn classes_matter_through_cross_attention() {
    let tau = |device: &Device| CondStage::ClassEmbedder(ClassEmbedderConfig::new(8, 4).init(device));
    let classes = ConditionConfig::Classes { null_class: None };
    it_matters(train("crossattn", (unet(3, cross_attention()), "crossattn"), tau, classes, batch, 120));
}

#[test]
fn both_of_hybrid_matter() {
    let tau = |device: &Device| {
        let classes = ClassEmbedderConfig::new(8, 4).init(device);
        CondStage::hybrid(CondStage::identity(), CondStage::ClassEmbedder(classes))
    };
    let both = ConditionConfig::Both {
        first: Box::new(ConditionConfig::Map { classes: Some(2) }),
        second: Box::new(ConditionConfig::Classes { null_class: None }),
    };
    let data = |number, n| mapped(number, n, SIDE);
    it_matters(train("hybrid", (unet(5, cross_attention()), "hybrid"), tau, both, data, 120));
}

#[test]
fn classes_matter_in_the_time_embedding() {
    let classes = ConditionConfig::Classes { null_class: None };
    let unet = unet(3, json!({"num_classes": 4}));
    it_matters(train("adm", (unet, "adm"), |_| CondStage::identity(), classes, batch, 100));
}

//! Every conditioning mechanism: a training step's gradients against the original code
//! (tests/reference/mechanisms.py), and a small model whose condition comes to matter.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Gradients, Int, Tensor, TensorData};
use ldm_conditioning::bert::BertEmbedderConfig;
use ldm_conditioning::{ClassEmbedderConfig, CondStage, CondStageConfig, Condition, SpatialRescalerConfig};
use ldm_nn::Conditioning;
use ldm_nn::weights::{KeyMap, Loader, Saver, WeightFile};
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight, write_weights};
use ldm_train::{Objective, ObjectiveConfig, ObjectiveError, Parameterization};
use ldm_unet::{NumClasses, PerLevel, UNet, UNetConfig};
use safetensors::SafeTensors;
use serde_json::Value;

const UNET: &str = "model.diffusion_model.";
const TAU: &str = "cond_stage_model.";

/// The denoiser and what it is trained with.
#[derive(Module, Debug)]
struct Model {
    unet: UNet,
    tau: CondStage,
}

impl Model {
    /// The loss of one step, tau_theta included.
    fn loss(&self, objective: &Objective, step: &Step, condition: &Condition) -> Tensor<1> {
        let conditioning = self.tau.encode(condition).unwrap();
        self.loss_given(objective, step, &conditioning)
    }

    fn loss_given(&self, objective: &Objective, step: &Step, conditioning: &Conditioning) -> Tensor<1> {
        let losses = objective.loss(step.z.clone(), step.noise.clone(), &step.timesteps, None, |z_t, t| {
            let t: Vec<f32> = t.iter().map(|t| *t as f32).collect();
            let t = Tensor::<1>::from_floats(t.as_slice(), &z_t.device());
            Ok::<_, ObjectiveError>(self.unet.forward(z_t, t, conditioning).unwrap())
        });
        losses.unwrap().loss
    }
}

/// Everything random about a step.
struct Step {
    z: Tensor<4>,
    noise: Tensor<4>,
    timesteps: Vec<usize>,
}

/// Puts every parameter's gradient in its place.
struct Gradient<'a>(&'a Gradients);

impl ModuleMapper for Gradient<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = param.val();
        let gradient = value.grad(self.0).unwrap_or_else(|| Tensor::zeros(value.dims(), &Device::default()));
        Param::from_tensor(gradient)
    }
}

fn tau(name: &str, params: &Value, device: &Device) -> CondStage {
    let target = match name {
        "concat" => "ldm.modules.encoders.modules.SpatialRescaler",
        "crossattn" => "ldm.modules.encoders.modules.BERTEmbedder",
        "hybrid" => "ldm.modules.encoders.modules.ClassEmbedder",
        _ => return CondStage::identity(),
    };
    CondStageConfig::from_target(target, params).unwrap().init(device).unwrap()
}

fn conditioning(name: &str, tau: &CondStage, device: &Device) -> Conditioning {
    let ids = [[3, 17, 2, 2, 9], [0, 1, 19, 4, 4]];
    let condition = match name {
        "concat" => Condition::Image(seeded_input("mechanisms.map", [2, 5, 16, 16], device)),
        "crossattn" => Condition::Tokens(Tensor::<2, Int>::from_ints(ids, device)),
        "hybrid" | "adm" => Condition::Classes(vec![5, 2]),
        _ => Condition::None,
    };
    let given = tau.encode(&condition).unwrap();
    match name {
        "hybrid" => given.with_concat(seeded_input("mechanisms.concat", [2, 2, 8, 8], device)),
        _ => given,
    }
}

fn load<M: Module>(module: M, keys: &dyn KeyMap, prefix: &str, file: &WeightFile) -> M {
    let (module, report) = Loader::new(keys).prefix(prefix).load(module, file).unwrap();
    assert_eq!((report.kept, report.unknown), (vec![], vec![]), "{prefix}");
    module
}

/// Loss and gradients under the original's names, as a checkpoint would hold them.
#[test]
fn a_steps_gradients_are_the_originals() {
    let (fixture, plain) = (Fixture::open("mechanisms"), Device::default());
    let device = plain.clone().autodiff();
    let objective = Objective::from_config(&ObjectiveConfig {
        linear_start: 0.0015,
        linear_end: 0.0195,
        ..ObjectiveConfig::default()
    })
    .unwrap();
    for name in ["none", "concat", "crossattn", "hybrid", "adm"] {
        let case = &fixture.json("cases")[name];
        let shapes: BTreeMap<String, Vec<usize>> = serde_json::from_value(case["shapes"].clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write_weights(&path, &shapes.clone().into_iter().collect::<Vec<_>>());
        let file = WeightFile::open(&path).unwrap();
        let config = UNetConfig::from_compvis(&case["unet"]).unwrap();
        let tau = tau(name, &case["tau"], &device);
        let (unet_keys, tau_keys) = (config.compvis_keys().unwrap(), tau.compvis_keys());
        let unet = load(config.init(&device).unwrap(), &unet_keys, UNET, &file);
        let model = Model { unet, tau: load(tau, &tau_keys, TAU, &file) };

        let draw = |what: &str| seeded_input(&format!("mechanisms.{what}"), [2, 3, 8, 8], &device);
        let step = Step { z: draw("z"), noise: draw("noise"), timesteps: vec![20, 730] };
        let loss = model.loss_given(&objective, &step, &conditioning(name, &model.tau, &device));
        let key = |part: &str| format!("{name}.{part}");
        assert_close(name, &loss.clone().inner(), &fixture.tensor(&key("loss"), &plain), 1e-4);

        let gradients = loss.backward();
        let Model { unet, tau } = model.map(&mut Gradient(&gradients));
        let saved = folder.path().join("gradients.safetensors");
        Saver::new().add(&unet, &unet_keys, UNET).add(&tau, &tau_keys, TAU).write(&saved).unwrap();
        let bytes = std::fs::read(&saved).unwrap();
        let saved = SafeTensors::deserialize(&bytes).unwrap();
        let names: Vec<_> = shapes.keys().collect();
        let mut given: Vec<_> = saved.names();
        given.sort();
        assert_eq!(given, names, "{name}");

        let summary: Vec<f32> = fixture.tensor::<2>(&key("summary"), &plain).into_data().iter().collect();
        // A bias before a norm of one channel a group has no gradient but rounding's.
        let floor = 1e-4 * summary.iter().step_by(2).fold(0f64, |most, norm| most.max(f64::from(*norm)));
        let mut worst = 0f64;
        for (parameter, expected) in names.iter().zip(summary.chunks(2)) {
            let values: Vec<f64> = saved.tensor(parameter).unwrap().data().chunks(4).map(number).collect();
            let [norm, product] = [expected[0], expected[1]].map(f64::from);
            let found = values.iter().map(|v| v * v).sum::<f64>().sqrt();
            // `uniform` of the script: a weight's draw without its scale.
            let drawn = seeded_weight(&format!("{parameter}.gradient"), &[values.len()]);
            let along: f64 = values.iter().zip(drawn).map(|(v, u)| v * f64::from(u) * 10.0).sum();
            let scale = norm.max(floor);
            worst = worst.max((found - norm).abs() / scale).max((along - product).abs() / scale);
        }
        println!("{name}: {} gradients, worst {worst:.2e}", names.len());
        assert!(worst < 1e-3, "{name}: {worst:e}");
        let whole =
            fixture.names().into_iter().filter(|n| n.starts_with(&key("model.")) || n.starts_with(&key(TAU)));
        let mut count = 0;
        for full in whole {
            let view = saved.tensor(&full[name.len() + 1..]).unwrap();
            let values: Vec<f32> = view.data().chunks(4).map(|b| number(b) as f32).collect();
            let n = values.len();
            let found = Tensor::<1>::from_data(TensorData::new(values, [n]), &plain);
            assert_close(&full, &found, &fixture.flat(&full, &plain), 1e-3);
            count += 1;
        }
        assert!(count >= 2, "{name}: {count}");
    }
}

fn number(bytes: &[u8]) -> f64 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into()
}

/// A backend has one generator for all threads: whoever draws holds this.
static GENERATOR: Mutex<()> = Mutex::new(());
const BATCH: usize = 16;
const EVALUATED: usize = 64;

fn small(mechanism: &str) -> UNetConfig {
    let mut config = UNetConfig::new(2, 16, 2);
    config.channel_mult = vec![1.0, 2.0];
    config.num_res_blocks = PerLevel::All(1);
    config.norm_num_groups = 8;
    config.num_heads = Some(PerLevel::All(2));
    config.attention_resolutions = vec![2];
    config.in_channels = match mechanism {
        "concat" => 4,
        "hybrid" => 3,
        _ => 2,
    };
    if matches!(mechanism, "crossattn" | "hybrid") {
        config.use_spatial_transformer = true;
        config.context_dim = Some(8);
    }
    if mechanism == "adm" {
        config.num_classes = Some(NumClasses::Count(4));
    }
    config
}

fn encoder(mechanism: &str, device: &Device) -> CondStage {
    match mechanism {
        "concat" => {
            let mut config = SpatialRescalerConfig::new(1, 1);
            config.out_channels = Some(2);
            CondStage::SpatialRescaler(config.init(device).unwrap())
        }
        "crossattn" => {
            let mut config = BertEmbedderConfig::new(8, 1).over_tokens(4, 2);
            (config.heads, config.dim_head) = (2, 4);
            CondStage::BertEmbedder(config.init(device).unwrap())
        }
        "hybrid" => {
            let classes = ClassEmbedderConfig::new(8, 2).init(device);
            CondStage::hybrid(CondStage::identity(), CondStage::ClassEmbedder(classes))
        }
        _ => CondStage::identity(),
    }
}

/// Latents that their conditions determine: two channels of signs, from two bits or a map of signs.
fn data(mechanism: &str, n: usize, device: &Device) -> (Tensor<4>, Condition) {
    let draw =
        |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Bernoulli(0.5), device) * 2.0 - 1.0;
    let bits: Vec<[i64; 2]> = draw([n, 2, 1, 1])
        .into_data()
        .iter::<f32>()
        .map(|v| i64::from(v > 0.0))
        .collect::<Vec<_>>()
        .chunks(2)
        .map(|pair| [pair[0], pair[1]])
        .collect();
    let constant = |bit: usize| {
        let signs: Vec<f32> = bits.iter().map(|b| b[bit] as f32 * 2.0 - 1.0).collect();
        Tensor::<4>::from_data(TensorData::new(signs, [n, 1, 1, 1]), device).expand([n, 1, 8, 8])
    };
    let both = || Tensor::cat(vec![constant(0), constant(1)], 1);
    match mechanism {
        "concat" => {
            let map = draw([n, 1, 8, 8]);
            // In pixels: each of the map's points is a square of four.
            let pixels =
                map.clone().reshape([n, 1, 8, 1, 8, 1]).expand([n, 1, 8, 2, 8, 2]).reshape([n, 1, 16, 16]);
            (Tensor::cat(vec![map.clone(), map * -1.0], 1), Condition::Image(pixels))
        }
        "crossattn" => {
            let ids: Vec<i64> = bits.iter().flat_map(|b| [b[0], 2 + b[1]]).collect();
            (both(), Condition::Tokens(Tensor::from_data(TensorData::new(ids, [n, 2]), device)))
        }
        "hybrid" => {
            let map = draw([n, 1, 8, 8]);
            let classes = Condition::Classes(bits.iter().map(|b| b[1]).collect());
            (Tensor::cat(vec![map.clone(), constant(1)], 1), Condition::both(Condition::Latent(map), classes))
        }
        "adm" => (both(), Condition::Classes(bits.iter().map(|b| b[0] + 2 * b[1]).collect())),
        _ => (both(), Condition::None),
    }
}

fn step(z: Tensor<4>, device: &Device) -> Step {
    let noise = Tensor::random(z.dims(), Distribution::Normal(0.0, 1.0), device);
    let n = z.dims()[0];
    let drawn = Tensor::<1>::random([n], Distribution::Uniform(0.0, 1.0), device).into_data();
    let timesteps = drawn.iter::<f32>().map(|u| ((u * 100.0) as usize).min(99)).collect();
    Step { z, noise, timesteps }
}

/// The mean loss before training, after it, and after it with a condition given to somebody else: the whole, or each
/// part of two by itself.
fn train(mechanism: &str, steps: usize) -> (f32, f32, Vec<f32>) {
    let _drawing = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Device::default().autodiff();
    device.seed(17);
    let objective = Objective::from_config(&ObjectiveConfig {
        timesteps: 100,
        parameterization: Parameterization::X0,
        linear_start: 0.015,
        linear_end: 0.195,
        ..ObjectiveConfig::default()
    })
    .unwrap();
    let mut model = Model { unet: small(mechanism).init(&device).unwrap(), tau: encoder(mechanism, &device) };
    let (z, condition) = data(mechanism, EVALUATED, &device);
    let evaluated = step(z, &device);
    let evaluate = |model: &Model, condition: &Condition| {
        model.loss(&objective, &evaluated, condition).inner().into_scalar::<f32>()
    };
    let before = evaluate(&model, &condition);
    let mut optimizer = AdamConfig::new().init();
    for _ in 0..steps {
        let (z, condition) = data(mechanism, BATCH, &device);
        let gradients = model.loss(&objective, &step(z, &device), &condition).backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        model = optimizer.step(4e-3, model, gradients);
    }
    let others: Vec<usize> = (0..EVALUATED).map(|i| (i + 1) % EVALUATED).collect();
    let shuffled = |condition: &Condition| condition.select(&others).unwrap();
    let shuffled = match &condition {
        Condition::Both(first, second) => vec![
            Condition::both(shuffled(first), Condition::clone(second)),
            Condition::both(Condition::clone(first), shuffled(second)),
        ],
        whole => vec![shuffled(whole)],
    };
    let after = evaluate(&model, &condition);
    let shuffled: Vec<f32> = shuffled.iter().map(|condition| evaluate(&model, condition)).collect();
    println!("{mechanism}: before {before:.3}, after {after:.3}, with others' conditions {shuffled:.3?}");
    (before, after, shuffled)
}

#[test]
fn a_loss_without_conditions_falls() {
    let (before, after, _) = train("none", 60);
    assert!(after < 0.6 * before, "{before} {after}");
}

/// With others' conditions, half of the bits are wrong; of two parts each decides one channel.
fn the_condition_matters(mechanism: &str, steps: usize) {
    let (before, after, shuffled) = train(mechanism, steps);
    assert!(after < 0.4 * before, "{mechanism}: {before} {after}");
    assert_eq!(shuffled.len(), if mechanism == "hybrid" { 2 } else { 1 });
    assert!(shuffled.iter().all(|shuffled| *shuffled > 2.0 * after), "{mechanism}: {after} {shuffled:?}");
}

#[test]
fn channels_matter() {
    the_condition_matters("concat", 50);
}

#[test]
fn cross_attention_matters() {
    the_condition_matters("crossattn", 120);
}

#[test]
fn both_of_hybrid_matter() {
    the_condition_matters("hybrid", 80);
}

#[test]
fn class_embeddings_matter() {
    the_condition_matters("adm", 60);
}

/// A frozen encoder gets no gradient, one that is trained along does, through the U-Net.
#[test]
fn encoders_are_trained_along_or_frozen() {
    let _drawing = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Device::default().autodiff();
    let objective = Objective::from_config(&ObjectiveConfig::default()).unwrap();
    for frozen in [false, true] {
        let tau = encoder("crossattn", &device);
        let tau = if frozen { tau.no_grad() } else { tau };
        let mut unet = small("crossattn").init(&device).unwrap();
        // Fresh ones are zero, and let no gradient through.
        unet.conv_out = ldm_nn::Conv2dConfig::new([16, 2], 3).init(&device);
        let transformer = unet.down_blocks[1].attentions.first_mut().unwrap();
        if let ldm_unet::SpatialAttention::Transformer(transformer) = transformer {
            transformer.proj_out = ldm_nn::LinearConfig::new(32, 32).init(&device);
        }
        let model = Model { unet, tau };
        let (z, condition) = data("crossattn", 2, &device);
        let gradients = model.loss(&objective, &step(z, &device), &condition).backward();
        let CondStage::BertEmbedder(bert) = &model.tau else { panic!("{}", model.tau.name()) };
        let gradient = bert.token_emb.weight.val().grad(&gradients);
        let size = gradient.map(|g| g.abs().max().into_scalar::<f32>());
        assert_eq!(size.is_some_and(|size| size > 0.0), !frozen, "{size:?}");
    }
}

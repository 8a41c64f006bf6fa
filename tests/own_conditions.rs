//! Conditions that the trainer does not make itself: worn pictures, as bsr_sr is trained with, and the embeddings of
//! neighbours out of a database, as rdm is.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[allow(dead_code, reason = "shared with the tests of conditions")]
#[path = "../crates/ldm-train/tests/conditions/made.rs"]
mod made;

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use image::{Rgb, RgbImage};
use ldm::degradation::{Degradation, Worn};
use ldm::retrieval::{Database, Metric};
use ldm_conditioning::{CondStage, Condition};
use ldm_scheduler::NativeRng;
use ldm_test_support::{Fixture, relative_difference};
use ldm_train::conditions::{Asked, ConditionConfig, Conditions};
use ldm_train::config::{ModelConfig, RunConfig};
use ldm_train::data::Batch;
use ldm_train::run::{At, Batches, DiffusionTraining, Latents, LoadedBatches, Purpose, Random, Stage};
use ldm_train::{Objective, RunError};
use ldm_vae::{FirstStage, IdentityFirstStage};
use made::{batch, config, steps, training, unet};
use serde_json::{Value, json};

const ITEMS: usize = 16;
const EVALUATED: usize = 64;

/// A micro-batch's condition: a picture, or a context with an axis more.
fn of(conditions: &dyn Conditions, batch: &Batch, micro: u64) -> Tensor<4> {
    let (device, identity) = (Device::default(), FirstStage::Identity(IdentityFirstStage::new(3)));
    let asked = Asked { micro, random: Random::new(1), first_stage: &identity, device: &device };
    match conditions.of(batch, &asked).unwrap() {
        Condition::Image(picture) => picture,
        Condition::Context(context) => context.unsqueeze_dim::<4>(1),
        other => panic!("{}", other.kind()),
    }
}

/// Two pictures, which are the same: soft colours and hard edges, 32 pixels a side.
fn pictures() -> Batch {
    let side = 32;
    let picture = |i: usize| {
        let (channel, y, x) = (i / (side * side), i / side % side, i % side);
        let byte = [8 * x, 7 * y, if (x / 8 + y / 8).is_multiple_of(2) { 220 } else { 30 }][channel];
        2.0 * (byte as f32 / 255.0) - 1.0
    };
    let one: Vec<f32> = (0..3 * side * side).map(picture).collect();
    let keys = ["a", "b"].map(String::from).to_vec();
    Batch { pictures: one.repeat(2), size: side, keys, ..Batch::default() }
}

#[test]
fn a_picture_is_worn_anew_each_time_it_is_seen() {
    let batch = pictures();
    let bicubic = of(&ConditionConfig::LowResolution { factor: 4 }, &batch, 0);
    for name in ["bsrgan", "bsrgan_light"] {
        let worn = Worn::named(name, 4).unwrap();
        let first = of(&worn, &batch, 0);
        assert_eq!(first.dims(), [2, 3, 8, 8]);
        assert_eq!(first.to_data(), of(&worn, &batch, 0).to_data(), "{name}");
        assert_ne!(first.to_data(), of(&worn, &batch, 1).to_data(), "{name}");
        // Two that are the same are not worn the same.
        let [a, b] = [0, 1].map(|item| first.clone().narrow(0, item, 1));
        assert_ne!(a.to_data(), b.to_data(), "{name}");
        let apart = relative_difference(&first, &bicubic);
        println!("{name}: {apart:.3} from the bicubic picture");
        assert!(apart > 0.02, "{name}: {apart}");
        assert!(first.clone().abs().max().into_scalar::<f32>() <= 1.0, "{name}");
        // What was drawn is the micro-batch's alone, whatever else is in it.
        let alone = Batch {
            pictures: batch.pictures[..3 * 32 * 32].to_vec(),
            keys: vec!["a".into()],
            ..batch.clone()
        };
        assert_eq!(of(&worn, &alone, 0).to_data(), a.to_data(), "{name}");
    }
    assert_eq!(Worn::named("bsrgan", 4).unwrap(), Worn::new(Degradation::Bsrgan, 4).unwrap());
    // Nothing is drawn where it is only resized.
    let area = Worn::named("cv_area", 4).unwrap();
    assert_eq!(of(&area, &batch, 0).to_data(), of(&area, &batch, 1).to_data());
    assert!(relative_difference(&of(&area, &batch, 0), &bicubic) < 0.5);
}

#[test]
fn what_cannot_be_worn_is_named() {
    let error = Worn::named("rain", 4).unwrap_err().to_string();
    assert!(error.contains("`rain`") && error.contains("bsrgan_light"), "{error}");
    assert!(Worn::named("bsrgan", 0).unwrap_err().to_string().contains("factor"));
    let (device, identity) = (Device::default(), FirstStage::Identity(IdentityFirstStage::new(3)));
    let asked = Asked { micro: 0, random: Random::new(1), first_stage: &identity, device: &device };
    let fails = |factor, batch: &Batch| {
        let error = Worn::new(Degradation::BsrganLight, factor).unwrap().of(batch, &asked).unwrap_err();
        assert!(
            matches!(&error, RunError::Sample { key, .. } if ["a", "b"].contains(&key.as_str())),
            "{error}"
        );
        error.to_string()
    };
    assert!(fails(5, &pictures()).contains("32 pixels"));
    assert!(fails(32, &pictures()).contains("too small"));
    let undecoded = Batch { pictures: vec![], ..pictures() };
    assert!(fails(4, &undecoded).contains("not decoded"));
}

/// The published file says how its pictures are worn: that is what they are, or an error, and never bicubic in silence.
#[test]
fn the_papers_super_resolution_says_how_it_is_worn() {
    let files = Fixture::open("published_configs").json("configs");
    let run = RunConfig::from_value(&files["models/ldm/bsr_sr/config.yaml"]).unwrap();
    let transform = &run.data.loader.transform;
    assert_eq!((transform.size, transform.crop_f), (256, Some([0.5, 1.0])));
    let condition = run.data.condition.as_ref().unwrap();
    assert_eq!(Worn::of_config(condition).unwrap(), Some(Worn::new(Degradation::BsrganLight, 4).unwrap()));
    assert_eq!(Worn::of_config(&ConditionConfig::Picture).unwrap(), None);

    let mut config = config(&unet(6, json!({})), &concat());
    config.data.condition = Some(condition.clone());
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    let device = Device::default();
    let (first_stage, tau) = (model.first_stage.init(&device).unwrap(), model.tau(&device).unwrap());
    let error =
        DiffusionTraining::new(model, &config, first_stage, Latents::Encoded, tau, &device).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RunError::Degradation { .. }) && text.contains("is bsrgan_light,"), "{text}");
}

/// Keys of a model whose condition is joined to the latent as it is.
fn concat() -> Value {
    json!({
        "cond_stage_config": {"target": "torch.nn.Identity"}, "conditioning_key": "concat",
        "cond_stage_key": "LR_image",
    })
}

fn identity(_: &Device) -> Option<CondStage> {
    Some(CondStage::identity())
}

/// The loss on a batch that no step has taken, with noise and timesteps that are always the same, and for each picture
/// the condition of the one `shift` places on.
fn loss(training: &DiffusionTraining, conditions: &dyn Conditions, seen: &Batch, shift: usize) -> f32 {
    let (device, random, n) = (Device::default(), Random::new(99), seen.len());
    let ModelConfig::Diffusion(model) = &training.config().model else { panic!() };
    let objective = Objective::from_config(&model.objective).unwrap();
    let asked = Asked { micro: 0, random, first_stage: training.first_stage(), device: &device };
    let others: Vec<usize> = (0..n).map(|i| (i + shift) % n).collect();
    let given = conditions.of(seen, &asked).unwrap().select(&others).unwrap();
    let conditioning = CondStage::identity().encode(&given).unwrap();
    let z = training.first_stage().encode(seen.to_tensor(&device)).unwrap().mode();
    let z = z * training.scale_factor().expect("the first step measures it");
    let noise = random.normal(0, Purpose::Noise, z.dims(), &device).unwrap();
    let mut rng = NativeRng::new(4);
    let timesteps: Vec<usize> = (0..n).map(|_| (rng.next_u64() % 100) as usize).collect();
    let losses = objective.loss(z, noise, &timesteps, None, |z_t, t| {
        let t: Vec<f32> = t.iter().map(|t| *t as f32).collect();
        let t = Tensor::<1>::from_floats(t.as_slice(), &device);
        Ok::<_, RunError>(training.denoiser().model.forward(z_t, t, &conditioning)?)
    });
    losses.unwrap().loss.into_scalar::<f32>()
}

/// The loss before training, after it, and after it with everybody's condition given to somebody else. Steps are `fast`
/// and then `slow` ones, at a quarter of the rate.
fn trained<C: Conditions + Clone + 'static>(
    name: &str,
    (unet, model): (Value, Value),
    conditions: C,
    [fast, slow]: [u64; 2],
) -> [f32; 3] {
    let config = config(&unet, &model);
    let mut training = training(&config, None, identity, Box::new(conditions.clone())).unwrap();
    let seen = batch(1_000_000, EVALUATED);
    let before = loss(&training, &conditions, &seen, 0);
    let batches: Vec<_> = (0..fast + slow).map(|number| batch(number, ITEMS)).collect();
    let (fast, slow) = batches.split_at(fast as usize);
    steps(&mut training, fast, 4e-3).unwrap();
    steps(&mut training, slow, 1e-3).unwrap();
    let [after, shuffled] = [0, 1].map(|shift| loss(&training, &conditions, &seen, shift));
    println!("{name}: before {before:.3}, after {after:.3}, with others' conditions {shuffled:.3}");
    [before, after, shuffled]
}

/// With others' conditions the loss is at least so many times as high.
fn it_matters([before, after, shuffled]: [f32; 3], times: f32) {
    assert!(after < 0.5 * before, "{before} {after}");
    assert!(shuffled > times * after, "{after} {shuffled}");
}

/// In the space of pictures (f = 1), where a worn picture is as large as the picture.
#[test]
fn worn_pictures_matter() {
    let worn = Worn::new(Degradation::BsrganLight, 1).unwrap();
    it_matters(trained("worn", (unet(6, json!({})), concat()), worn, [100, 0]), 1.5);
}

/// With a VQ first stage of f = 4, as bsr_sr has, over a folder of pictures whose crops are of any size.
#[test]
fn super_resolution_learns_from_worn_pictures() {
    let root = tempfile::tempdir().unwrap();
    for i in 0..6u32 {
        let pixel = |x: u32, y: u32| Rgb([(x * (3 + i)) as u8, (y * 4 + 40 * i) as u8, ((x ^ y) * 3) as u8]);
        RgbImage::from_fn(48, 40, pixel).save(root.path().join(format!("{i}.png"))).unwrap();
    }
    let first_stage = json!({
        "embed_dim": 3, "n_embed": 16,
        "ddconfig": {
            "double_z": false, "z_channels": 3, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 4,
            "ch_mult": [1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0, "norm_num_groups": 4,
        },
    });
    let mut params = concat();
    params["first_stage_config"] =
        json!({"target": "ldm.models.autoencoder.VQModelInterface", "params": first_stage});
    params["scale_by_std"] = json!(true);
    let mut config = config(&unet(6, json!({})), &params);
    config.data.source.path = root.path().into();
    config.data.loader.batch_size = 4;
    config.data.loader.transform = serde_json::from_value(json!({
        "size": 32, "crop": "random", "crop_f": [0.5, 1.0], "flip": true,
    }))
    .unwrap();
    let worn = Worn::new(Degradation::BsrganLight, 4).unwrap();
    let mut training = training(&config, None, identity, Box::new(worn)).unwrap();
    let mut batches = LoadedBatches::new(config.data.open().unwrap(), None);
    // Other crops of the same pictures, far from where the steps come to.
    config.data.loader.batch_size = EVALUATED;
    let seen = config.data.open().unwrap().batches_from(1_000).unwrap().next().unwrap().unwrap();
    let mut losses = Vec::new();
    for step in 0..40 {
        let batch = batches.next_batch().unwrap();
        training.step(&At { step, micro: step, rate: 4e-3 }, &[batch]).unwrap();
        if [0, 39].contains(&step) {
            losses.push(loss(&training, &worn, &seen, 0));
        }
    }
    println!("the loss after the first step and after the last: {losses:.3?}");
    assert!(losses[1] < 0.8 * losses[0], "{losses:?}");
}

/// The neighbours of each picture's embedding. What stands for CLIP's embedding here is a row of the database for each
/// class.
#[derive(Clone)]
struct Neighbours {
    database: std::sync::Arc<Database>,
    k: usize,
}

impl Conditions for Neighbours {
    fn of(&self, batch: &Batch, asked: &Asked<'_>) -> Result<Condition, RunError> {
        let named = |source: Box<dyn std::error::Error + Send + Sync>| RunError::Sample {
            key: batch.keys.first().cloned().unwrap_or_default(),
            source,
        };
        let classes = batch.classes.as_ref().ok_or_else(|| named("it has no class".into()))?;
        let rows = classes.iter().flat_map(|class| self.database.embedding(17 * *class as usize));
        let queries =
            TensorData::new(rows.copied().collect::<Vec<f32>>(), [classes.len(), self.database.width()]);
        let queries = Tensor::<2>::from_data(queries, asked.device);
        let found = self.database.nearest(queries, self.k, Metric::Cosine).map_err(|e| named(e.into()))?;
        Ok(Condition::Context(self.database.context(&found, asked.device).map_err(|e| named(e.into()))?))
    }

    fn reads_pictures(&self) -> bool {
        false
    }
}

/// Retrieval-augmented: the U-Net attends to the embeddings of neighbours, which no encoder changes (`rdm`).
#[test]
fn neighbours_matter() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/retrieval/parts");
    let database = std::sync::Arc::new(Database::open(path).unwrap());
    let neighbours = Neighbours { database: database.clone(), k: 4 };
    let seen = batch(3, 8);
    let context = of(&neighbours, &seen, 0);
    assert_eq!(context.dims(), [8, 1, 4, 12]);
    // Whatever is drawn, a picture's neighbours are its own; the nearest is the row itself, of length 1.
    assert_eq!(context.to_data(), of(&neighbours, &seen, 1).to_data());
    let values: Vec<f32> = context.into_data().iter().collect();
    for (item, class) in values.chunks(4 * 12).zip(seen.classes.as_ref().unwrap()) {
        let row = database.embedding(17 * *class as usize);
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!(item.iter().zip(row).all(|(found, row)| (found - row / length).abs() < 1e-5));
    }
    // At both sizes, so that the context has several ways in.
    let attending =
        json!({"use_spatial_transformer": true, "context_dim": 12, "attention_resolutions": [1, 2]});
    let model = json!({
        "cond_stage_config": {"target": "torch.nn.Identity"}, "conditioning_key": "crossattn",
        "cond_stage_key": "nix",
    });
    it_matters(trained("neighbours", (unet(3, attending), model), neighbours, [300, 100]), 1.5);
}

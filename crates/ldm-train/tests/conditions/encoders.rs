//! Every encoder, trained along and frozen.

use burn::tensor::{Device, Tensor};
use ldm_conditioning::bert::BertEmbedderConfig;
use ldm_conditioning::clip::{ClipImageEmbedder, ClipText, ClipTextEmbedder, ClipTokenizer, HiddenState};
use ldm_conditioning::{ClassEmbedderConfig, CondStage, CondStageConfig, Condition, SpatialRescalerConfig};
use ldm_train::RunError;
use ldm_train::conditions::{Asked, ConditionConfig, Conditions};
use ldm_train::data::Batch;
use ldm_train::run::{At, Stage};
use ldm_vae::{AutoencoderKlConfig, FirstStage};
use serde_json::{Value, json};

use crate::clip;
use crate::made::{
    SIDE, batch, config, cross_attention, layouts, mapped, moved, steps, training, unet, weights,
};

struct Case {
    name: &'static str,
    unet: Value,
    key: &'static str,
    tau: fn(&Device) -> CondStage,
    conditions: fn() -> Box<dyn Conditions>,
    /// Whether pictures go through a first stage of f = 2.
    encoded: bool,
}

fn bert(config: BertEmbedderConfig, device: &Device) -> CondStage {
    let config = BertEmbedderConfig { heads: 2, dim_head: 4, ..config };
    CondStageConfig::BertEmbedder(config).init(device).unwrap()
}

fn classes(device: &Device) -> CondStage {
    CondStage::ClassEmbedder(ClassEmbedderConfig::new(8, 4).init(device))
}

fn rescaler(device: &Device) -> CondStage {
    let config = SpatialRescalerConfig { out_channels: Some(2), ..SpatialRescalerConfig::new(1, 2) };
    CondStage::SpatialRescaler(config.init(device).unwrap())
}

fn by_class() -> Box<dyn Conditions> {
    Box::new(ConditionConfig::Classes { null_class: None })
}

/// A caller's own: embeddings that need no encoder, as of neighbours.
fn embeddings(batch: &Batch, asked: &Asked<'_>) -> Result<Condition, RunError> {
    let n = batch.len();
    let noise =
        asked.random.normal(asked.micro, ldm_train::run::Purpose::Condition, [n, 3, 8], asked.device)?;
    Ok(Condition::Context(noise))
}

fn case(
    name: &'static str,
    unet: Value,
    key: &'static str,
    tau: fn(&Device) -> CondStage,
    conditions: fn() -> Box<dyn Conditions>,
) -> Case {
    Case { name, unet, key, tau, conditions, encoded: false }
}

fn cases() -> Vec<Case> {
    let attending = || unet(3, cross_attention());
    vec![
        case("none", unet(3, json!({})), "", |_| CondStage::identity(), || Box::new(ConditionConfig::None)),
        case(
            "Identity, classes",
            unet(3, json!({"num_classes": 4})),
            "adm",
            |_| CondStage::identity(),
            by_class,
        ),
        case(
            "Identity, embeddings",
            attending(),
            "crossattn",
            |_| CondStage::identity(),
            || Box::new(embeddings),
        ),
        case(
            "Identity, a smaller picture",
            unet(6, json!({})),
            "concat",
            |_| CondStage::identity(),
            || Box::new(ConditionConfig::LowResolution { factor: 1 }),
        ),
        case("ClassEmbedder", attending(), "crossattn", classes, by_class),
        case(
            "BERTEmbedder, texts",
            attending(),
            "crossattn",
            |device| bert(BertEmbedderConfig { max_seq_len: 8, ..BertEmbedderConfig::new(8, 1) }, device),
            || Box::new(ConditionConfig::Captions),
        ),
        case(
            "BERTEmbedder, layouts",
            attending(),
            "crossattn",
            |device| bert(BertEmbedderConfig::new(8, 1).over_tokens(101, 8), device),
            || Box::new(layouts()),
        ),
        case("SpatialRescaler", unet(5, json!({})), "concat", rescaler, || {
            Box::new(ConditionConfig::Map { classes: Some(2) })
        }),
        case(
            "CLIP's text transformer",
            attending(),
            "crossattn",
            |device| {
                let encoder = clip::text().init(device).unwrap();
                CondStage::ClipText(ClipText::new(
                    ClipTokenizer::open_ai().unwrap(),
                    encoder,
                    HiddenState::LAST,
                ))
            },
            || Box::new(ConditionConfig::Captions),
        ),
        case(
            "FrozenCLIPTextEmbedder",
            attending(),
            "crossattn",
            |device| {
                let mut config = clip::text();
                config.architectures = vec!["CLIPTextModelWithProjection".into()];
                let tokenizer = ClipTokenizer::open_ai().unwrap();
                let embedder = ClipTextEmbedder::new(tokenizer, config.init(device).unwrap()).unwrap();
                CondStage::ClipTextEmbedder(embedder)
            },
            || Box::new(ConditionConfig::Captions),
        ),
        case(
            "FrozenClipImageEmbedder",
            attending(),
            "crossattn",
            |device| {
                CondStage::ClipImageEmbedder(ClipImageEmbedder::new(clip::vision().init(device).unwrap()))
            },
            || Box::new(ConditionConfig::Picture),
        ),
        Case {
            encoded: true,
            ..case(
                "the first stage",
                unet(6, json!({})),
                "concat",
                |_| CondStage::identity(),
                || Box::new(ConditionConfig::FirstStage { of: Box::new(ConditionConfig::Picture) }),
            )
        },
        Case {
            encoded: true,
            ..case(
                "the first stage, holes",
                unet(7, json!({})),
                "concat",
                |_| CondStage::identity(),
                || Box::new(ConditionConfig::Masked),
            )
        },
        case(
            "hybrid",
            unet(5, cross_attention()),
            "hybrid",
            |device| CondStage::hybrid(rescaler(device), classes(device)),
            || {
                Box::new(ConditionConfig::Both {
                    first: Box::new(ConditionConfig::Map { classes: Some(2) }),
                    second: Box::new(ConditionConfig::Classes { null_class: None }),
                })
            },
        ),
    ]
}

/// A first stage of f = 2 with latents of three channels, drawn once.
fn first_stage() -> FirstStage {
    let config: AutoencoderKlConfig = serde_json::from_value(json!({
        "embed_dim": 3,
        "ddconfig": {
            "double_z": true, "z_channels": 3, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 4,
            "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0, "norm_num_groups": 4,
        },
    }))
    .unwrap();
    FirstStage::Kl(config.init(&Device::default()).unwrap())
}

/// Batches as the case needs them: twice as large where a first stage halves them.
fn batches(encoded: bool) -> Vec<Batch> {
    let double = |mut batch: Batch| {
        let (small, side) = (std::mem::take(&mut batch.pictures), 2 * SIDE);
        let at = |i: usize| {
            let (plane, y, x) = (i / (side * side), i / side % side, i % side);
            small[(plane * SIDE + y / 2) * SIDE + x / 2]
        };
        batch.pictures = (0..4 * small.len()).map(at).collect();
        batch.size = side;
        batch
    };
    let batches = (0..3).map(|number| mapped(number, 4, 16));
    if encoded { batches.map(double).collect() } else { batches.collect() }
}

#[test]
fn every_encoder_is_trained_along_or_stays_as_it_is() {
    for Case { name, unet, key, tau, conditions, encoded } in cases() {
        for joint in [true, false] {
            let mut model = json!({"cond_stage_trainable": joint});
            if !key.is_empty() {
                model["cond_stage_config"] = json!({"target": "torch.nn.Identity"});
                model["conditioning_key"] = json!(key);
            }
            let config = config(&unet, &model);
            let given = |device: &Device| (!key.is_empty()).then(|| tau(device));
            let first = encoded.then(first_stage);
            let mut training = training(&config, first, given, conditions())
                .unwrap_or_else(|e| panic!("{name}, joint {joint}: {e}"));
            let weigh = |training: &ldm_train::run::DiffusionTraining| {
                let tau = training.denoiser().cond_stage_model.as_ref().map_or(Vec::new(), weights);
                (tau, weights(&training.denoiser().model))
            };
            let before = weigh(&training);
            let batches = batches(encoded);
            steps(&mut training, &batches, 1e-2).unwrap_or_else(|e| panic!("{name}, joint {joint}: {e}"));
            let after = weigh(&training);
            let (tau, unet) = (moved(&before.0, &after.0), moved(&before.1, &after.1));
            println!(
                "{name}, joint {joint}: {tau} of {} in tau, {unet} of {}",
                before.0.len(),
                before.1.len()
            );
            assert!(unet > before.1.len() / 2, "{name}: {unet} of the U-Net's {}", before.1.len());
            match joint && !before.0.is_empty() {
                true => assert!(tau > 0, "{name}: tau_theta stays"),
                false => assert_eq!(tau, 0, "{name}: tau_theta moves"),
            }
            // What it shows of itself goes the same way.
            let at = At { step: 3, micro: 3, rate: 0.0 };
            let [sheet] = &training.sheets(&at, &batches[0]).unwrap()[..] else { panic!("{name}") };
            let side = batches[0].size;
            assert_eq!(sheet.pictures.dims(), [3, 3, side, side], "{name}");
            let finite = sheet.pictures.clone().is_finite().all();
            assert!(finite.into_scalar::<bool>(), "{name}");
        }
    }
}

/// Holes are those of the reference's script: black in the picture, 1 in the last channel, and drawn anew each time.
#[test]
fn holes_are_black_and_marked() {
    let (device, identity) = (Device::default(), FirstStage::Identity(ldm_vae::IdentityFirstStage::new(3)));
    let mut batch = batch(0, 2);
    batch.pictures.iter_mut().for_each(|v| *v = 0.5);
    let of = |micro| {
        let random = ldm_train::run::Random::new(1);
        let asked = Asked { micro, random, first_stage: &identity, device: &device };
        let Condition::Latent(x) = ConditionConfig::Masked.of(&batch, &asked).unwrap() else { panic!() };
        assert_eq!(x.dims(), [2, 4, SIDE, SIDE]);
        x
    };
    let given: Tensor<4> = of(0);
    let values: Vec<f32> = given.clone().into_data().iter().collect();
    let area = SIDE * SIDE;
    let mut holes = 0;
    for item in values.chunks(4 * area) {
        for pixel in 0..area {
            let hole = item[3 * area + pixel] == 1.0;
            holes += usize::from(hole);
            let expected = if hole { -1.0 } else { 0.5 };
            assert!((0..3).all(|c| (item[c * area + pixel] - expected).abs() < 1e-6));
        }
    }
    assert!(holes > 0 && holes < 2 * area, "{holes}");
    assert_eq!(of(0).into_data(), given.clone().into_data());
    assert_ne!(of(1).into_data(), given.into_data());
}

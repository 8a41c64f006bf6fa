//! Configs as they are published, and wrong ones.
#![allow(clippy::expect_used)] // Helpers of tests are tests.

mod support;

use burn::tensor::Device;
use ldm_unet::presets::Preset;
use ldm_unet::{ConfigError, DiffusersClass, Middle, NumClasses, PerLevel, UNetConfig, VectorLabel};
use serde_json::{Value, json};
use support::cases;

/// `unet_config.params` of v1-inference.yaml.
const SD1: &str = "
image_size: 32 # unused
in_channels: 4
out_channels: 4
model_channels: 320
attention_resolutions: [ 4, 2, 1 ]
num_res_blocks: 2
channel_mult: [ 1, 2, 4, 4 ]
num_heads: 8
use_spatial_transformer: True
transformer_depth: 1
context_dim: 768
use_checkpoint: True
legacy: False
";

/// `unet_config.params` of v2-inference.yaml.
const SD2: &str = "
use_checkpoint: True
use_fp16: True
image_size: 32 # unused
in_channels: 4
out_channels: 4
model_channels: 320
attention_resolutions: [ 4, 2, 1 ]
num_res_blocks: 2
channel_mult: [ 1, 2, 4, 4 ]
num_head_channels: 64 # need to fix for flash-attn
use_spatial_transformer: True
use_linear_in_transformer: True
transformer_depth: 1
context_dim: 1024
legacy: False
";

/// `network_config.params` of sd_xl_base.yaml.
const SDXL: &str = "
adm_in_channels: 2816
num_classes: sequential
use_checkpoint: True
in_channels: 4
out_channels: 4
model_channels: 320
attention_resolutions: [4, 2]
num_res_blocks: 2
channel_mult: [1, 2, 4]
num_head_channels: 64
use_linear_in_transformer: True
use_spatial_transformer: True
transformer_depth: [1, 2, 10]
context_dim: 2048
spatial_transformer_attn_type: softmax-xformers
";

/// `unet_config.params` of celebahq-ldm-vq-4.yaml: no context, 32 channels a head.
const CELEBA: &str = "
image_size: 64
in_channels: 3
out_channels: 3
model_channels: 224
attention_resolutions: [ 8, 4, 2 ]
num_res_blocks: 2
channel_mult: [ 1, 2, 3, 4 ]
num_head_channels: 32
";

fn yaml(text: &str) -> UNetConfig {
    serde_yaml_ng::from_str(text).expect("a config")
}

fn parameters(config: &UNetConfig) -> usize {
    config.init(&Device::default()).expect("a valid config").parameter_count()
}

#[test]
fn yaml_configs_deserialise_as_they_are() {
    for (text, preset) in [(SD1, Preset::Sd1), (SD2, Preset::Sd2Base), (SDXL, Preset::Sdxl)] {
        let (config, preset) = (yaml(text), preset.config());
        assert_eq!(parameters(&config), parameters(&preset));
        // The written config.json is the same, but for the size, which the U-Net's params don't say.
        let mut expected = preset;
        expected.sample_size = None;
        assert_eq!(config.to_diffusers().expect("a config"), expected.to_diffusers().expect("a config"));
    }
    // As published: 274 million.
    assert_eq!(parameters(&yaml(CELEBA)), 274_056_163);
}

#[test]
fn minus_one_is_not_given() {
    let config = yaml(&format!("{SD1}num_head_channels: -1\nnum_heads_upsample: -1\n"));
    assert_eq!((config.num_head_channels, config.num_heads), (None, Some(PerLevel::All(8))));
    assert_eq!(config.num_heads_upsample, None);
}

#[test]
fn a_config_survives_json_and_yaml() {
    for config in cases().map(|case| case.config).chain(Preset::all().map(Preset::config)) {
        let json = serde_json::to_value(&config).expect("JSON");
        assert_eq!(UNetConfig::from_compvis(&json).expect("a config"), config);
        let text = serde_yaml_ng::to_string(&config).expect("YAML");
        assert_eq!(yaml(&text), config);
    }
    // The reference multiplies channels by these: whole numbers have to stay whole.
    let json = serde_json::to_value(Preset::Sd1.config()).expect("JSON");
    assert_eq!(json["channel_mult"], json!([1, 2, 4, 4]));
}

#[test]
fn a_config_survives_diffusers() {
    let mut written = 0;
    for case in cases() {
        let json = match case.config.to_diffusers() {
            Ok(json) => json,
            Err(e) => {
                assert!(matches!(e, ConfigError::Inexpressible { .. }), "{}: {e}", case.name);
                continue;
            }
        };
        let read = UNetConfig::from_diffusers(&json).expect(&case.name);
        assert_eq!(read.to_diffusers().expect("a config"), json, "{}", case.name);
        assert_eq!(parameters(&read), parameters(&case.config), "{}", case.name);
        // What the reference's file said is there, word for word.
        // (Both classes have a model with neither attention nor middle: there the class may change.)
        if !case.name.starts_with("unet_compvis") && !case.name.ends_with("no_middle") {
            let original = case.fixture.json("config");
            for (key, value) in original.as_object().expect("an object") {
                if key != "_diffusers_version" && same(&json[key], value).is_none() {
                    panic!("{}: {key}: {} and {value}", case.name, json[key]);
                }
            }
        }
        written += 1;
    }
    // All of diffusers, and of CompVis what has the same heads up as down, convolutions and all attention.
    assert_eq!(written, 25 + 10);
}

/// Equal, a list of equal values counting as one of them.
fn same(a: &Value, b: &Value) -> Option<()> {
    let one = |v: &Value| match v.as_array() {
        Some(list) if list.iter().all(|x| x == &list[0]) && list[0].is_number() => list[0].clone(),
        _ => v.clone(),
    };
    let (a, b) = (one(a), one(b));
    (a == b || (a.is_number() && a.as_f64() == b.as_f64())).then_some(())
}

#[test]
fn absent_keys_have_the_defaults_of_their_class() {
    let condition = UNetConfig::from_diffusers(&json!({"_class_name": "UNet2DConditionModel"})).expect("ok");
    let plain = UNetConfig::from_diffusers(&json!({"_class_name": "UNet2DModel"})).expect("ok");
    assert_eq!((condition.in_channels, plain.in_channels), (4, 3));
    assert_eq!((condition.context_dim, plain.context_dim), (Some(1280), None));
    // The same key: a number of heads here, the width of a head there.
    assert_eq!((condition.num_heads, condition.num_head_channels), (Some(PerLevel::All(8)), None));
    assert_eq!((plain.num_heads, plain.num_head_channels), (None, Some(PerLevel::All(8))));
    assert_eq!(condition.attention_resolutions, [1, 2, 4]);
    assert_eq!(plain.attention_resolutions, [2, 4, 8]);
    assert_eq!(Preset::Sdxl.config().diffusers_class(), DiffusersClass::UNet2DConditionModel);
}

/// An SD 1 config with one key changed, as an error's text.
fn refused(change: impl Fn(&mut UNetConfig)) -> String {
    let mut config = Preset::Sd1.config();
    change(&mut config);
    match config.init(&Device::default()) {
        Ok(_) => panic!("{config:?} was accepted"),
        Err(e) => e.to_string(),
    }
}

/// The same with these multipliers on two levels.
fn two_levels(channel_mult: Vec<f64>) -> String {
    refused(|c| {
        c.attention_resolutions = vec![1];
        c.channel_mult = channel_mult.clone();
    })
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    for (message, text) in [
        (refused(|c| c.model_channels = 100), "channels 100 is not divisible by `norm_num_groups` 32"),
        (refused(|c| c.num_heads = Some(PerLevel::All(7))), "channels 320 is not divisible by `num_heads` 7"),
        (refused(|c| c.num_head_channels = Some(PerLevel::All(48))), "`num_head_channels` 48"),
        (refused(|c| c.num_heads = Some(PerLevel::All(0))), "`num_heads` 0"),
        (refused(|c| c.num_heads = None), "`num_heads` is needed"),
        (
            refused(|c| c.num_heads = Some(PerLevel::Each(vec![8, 8]))),
            "`num_heads` has 2 values for 4 levels",
        ),
        (
            refused(|c| c.num_res_blocks = PerLevel::Each(vec![2])),
            "`num_res_blocks` has 1 values for 4 levels",
        ),
        (refused(|c| c.num_res_blocks = PerLevel::All(0)), "`num_res_blocks` = 0"),
        (refused(|c| c.transformer_depth = PerLevel::All(0)), "`transformer_depth` = 0"),
        (refused(|c| c.num_res_blocks = PerLevel::All(1_025)), "`num_res_blocks` = 1025"),
        (
            refused(|c| c.num_res_blocks = PerLevel::All(usize::MAX)),
            "`num_res_blocks` = 18446744073709551615",
        ),
        (refused(|c| c.transformer_depth = PerLevel::All(1_025)), "`transformer_depth` = 1025"),
        (
            refused(|c| c.transformer_depth_middle = Some(usize::MAX)),
            "`transformer_depth` = 18446744073709551615",
        ),
        (refused(|c| c.channel_mult = vec![1.0; 17]), "`channel_mult` = 17 levels"),
        (refused(|c| c.channel_mult = vec![1.0; 100_000]), "at most 16 levels"),
        (refused(|c| c.model_channels = usize::MAX), "`model_channels` = 18446744073709551615"),
        (two_levels(vec![1.0, 1e30]), "`channel_mult`"),
        (refused(|c| c.attention_resolutions = vec![3]), "`attention_resolutions` = 3"),
        (refused(|c| c.channel_mult = vec![]), "`channel_mult`"),
        (two_levels(vec![2.0, 4.0]), "`channel_mult`"),
        (two_levels(vec![1.0, -1.0]), "`channel_mult`"),
        (two_levels(vec![1.0, 1.001]), "`channel_mult`"),
        (two_levels(vec![1.0, f64::NAN]), "`channel_mult`"),
        (refused(|c| c.norm_num_groups = 0), "`norm_num_groups` = 0"),
        (refused(|c| c.in_channels = 0), "`in_channels` = 0"),
        (
            refused(|c| c.context_dim = None),
            "`context_dim` is needed, because `use_spatial_transformer` is true",
        ),
        (refused(|c| c.use_spatial_transformer = false), "`use_spatial_transformer` is needed"),
        (refused(|c| c.downsample_padding = 2), "`downsample_padding` = 2"),
        (refused(|c| c.num_classes = Some(NumClasses::Count(0))), "`num_classes` = 0"),
        (
            refused(|c| c.num_classes = Some(NumClasses::Vector(VectorLabel::Sequential))),
            "`adm_in_channels` is needed",
        ),
        (
            refused(|c| c.addition_embed_type = Some(ldm_unet::AddedEmbedding::TextTime)),
            "`addition_time_embed_dim` is needed",
        ),
    ] {
        assert!(message.contains(text), "{message:?} does not say {text:?}");
    }
}

/// A directory's config can have any number of levels before it is checked.
#[test]
fn too_many_levels_of_diffusers_are_named() {
    let config = |levels: usize| {
        UNetConfig::from_diffusers(&json!({
            "_class_name": "UNet2DModel",
            "block_out_channels": vec![32; levels],
            "down_block_types": vec!["AttnDownBlock2D"; levels],
            "up_block_types": vec!["AttnUpBlock2D"; levels],
        }))
    };
    config(16).expect("ok").init(&Device::default()).expect("a U-Net of 16 levels");
    for levels in [17, 100] {
        let error = config(levels).expect_err("an error").to_string();
        assert!(
            error.contains("block_out_channels") && error.contains(&format!("{levels} levels")),
            "{error}"
        );
    }
}

#[test]
fn yaml_keys_that_are_absent_unknown_or_elsewhere_are_named() {
    let error = |text: &str| serde_yaml_ng::from_str::<UNetConfig>(text).expect_err("an error").to_string();
    for (text, part) in [
        (SD1.replace("in_channels: 4\n", ""), "in_channels"),
        (format!("{SD1}attention_levels: [1]\n"), "attention_levels"),
        (format!("{SD1}dims: 3\n"), "`dims` = 3"),
        (format!("{SD1}n_embed: 8192\n"), "`n_embed` = 8192"),
        (SD1.replace("num_heads: 8", "num_heads: -3"), "-3 heads"),
        (SD1.replace("context_dim: 768", "context_dim: [768, 1024]"), "`context_dim` = [768, 1024]"),
        (
            SD1.replace("[ 1, 2, 4, 4 ]", "wide"),
            "channel_mult: invalid type: string \"wide\", expected a sequence",
        ),
        (SD1.replace("[ 1, 2, 4, 4 ]", "[ 1, 2, wide ]"), "channel_mult[2]: invalid type"),
        (SD1.replace("num_heads: 8", "num_heads: many"), "num_heads: expected one value, or a list"),
    ] {
        let message = error(&text);
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    let list = SD1.replace("context_dim: 768", "context_dim: [768]");
    assert_eq!(yaml(&list).context_dim, Some(768));
}

#[test]
fn keys_of_diffusers_that_have_no_counterpart_are_named() {
    let error = |class: &str, key: &str, value: Value| {
        let mut config =
            json!({"_class_name": class, "_diffusers_version": "0.42.1", "use_ema_warmup": false});
        config[key] = value;
        match UNetConfig::from_diffusers(&config) {
            Ok(_) => panic!("{key} was read over"),
            Err(ConfigError::Unsupported { key, value, .. }) => format!("{key} {value}"),
            Err(e) => e.to_string(),
        }
    };
    let condition = "UNet2DConditionModel";
    for (key, value) in [
        ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("act_fn", json!("mish")),
        ("class_embed_type", json!("other")),
        ("addition_embed_type", json!("text_image")),
        ("encoder_hid_dim", json!(1024)),
        ("encoder_hid_dim_type", json!("text_proj")),
        ("dual_cross_attention", json!(true)),
        ("attention_type", json!("gated")),
        ("conv_in_kernel", json!(5)),
        ("conv_out_kernel", json!(1)),
        ("time_embedding_type", json!("fourier")),
        ("time_embedding_act_fn", json!("silu")),
        ("timestep_post_act", json!("silu")),
        ("resnet_time_scale_shift", json!("ada_group")),
        ("resnet_skip_time_act", json!(true)),
        ("resnet_out_scale_factor", json!(2.0)),
        ("class_embeddings_concat", json!(true)),
        ("cross_attention_norm", json!("group_norm")),
        ("num_attention_heads", json!(4)),
        ("norm_num_groups", json!(null)),
        ("transformer_layers_per_block", json!([[1, 1], 2, 3, 4])),
        ("reverse_transformer_layers_per_block", json!([1, 2, 3, 4])),
        ("in_channels", json!(-4)),
        ("block_out_channels", json!([])),
        ("a_new_key", json!(1)),
    ] {
        assert_eq!(error(condition, key, value.clone()), format!("{key} {value}"));
    }
    for (key, value) in [
        ("time_embedding_type", json!("learned")),
        ("downsample_type", json!("fir")),
        ("attn_norm_num_groups", json!(8)),
        ("class_embed_type", json!("projection")),
        ("cross_attention_dim", json!(768)),
    ] {
        assert_eq!(error("UNet2DModel", key, value.clone()), format!("{key} {value}"));
    }
    assert_eq!(error("VQModel", "x", json!(1)), "_class_name \"VQModel\"");

    let blocks = json!(["KDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]);
    assert_eq!(error(condition, "down_block_types", blocks), "down_block_types \"KDownBlock2D\"");
    let blocks = json!(["UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]);
    assert_eq!(error(condition, "up_block_types", blocks), "up_block_types \"UpBlock2D\"");
    let short = error(condition, "down_block_types", json!(["DownBlock2D"]));
    assert!(short.contains("`down_block_types` has 1 values for 4 levels"), "{short}");
    let lists = error(condition, "cross_attention_dim", json!([768, 768, 768, 1024]));
    assert_eq!(lists, "cross_attention_dim [768,768,768,1024]");
    assert!(UNetConfig::from_diffusers(&json!([1])).is_err());
}

#[test]
fn what_a_format_cannot_say_is_named() {
    let base = Preset::Sd1.config();
    let lacks = |change: &dyn Fn(&mut UNetConfig)| {
        let mut config = base.clone();
        change(&mut config);
        (config.to_diffusers().err(), config.compvis_keys().err())
    };
    let key = |e: Option<ConfigError>| match e {
        Some(ConfigError::Inexpressible { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(key(lacks(&|c| c.conv_resample = false).0), "conv_resample");
    assert_eq!(key(lacks(&|c| c.disable_middle_self_attn = true).0), "disable_middle_self_attn");
    assert_eq!(key(lacks(&|c| c.resblock_updown = PerLevel::All(true)).0), "resblock_updown");
    assert_eq!(key(lacks(&|c| c.num_attention_blocks = Some(vec![1; 4])).0), "num_attention_blocks");
    assert_eq!(key(lacks(&|c| c.middle = Middle::Resnets).0), "middle");
    assert_eq!(key(lacks(&|c| c.middle = Middle::Nothing).1), "middle");
    assert_eq!(key(lacks(&|c| c.time_cond_proj_dim = Some(256)).1), "time_cond_proj_dim");
}

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use ldm_test_support::Fixture;
use ldm_vae::{AutoencoderKlConfig, DiffusersAutoencoderKl, KL_PRESETS, KlPreset, VaeError};
use serde_json::{Value, json};

type Change = fn(&mut AutoencoderKlConfig);

/// A config as a file of either world holds it.
fn read(config: &Value) -> AutoencoderKlConfig {
    if config.get("ddconfig").is_some() {
        return serde_json::from_value(config.clone()).unwrap();
    }
    AutoencoderKlConfig::try_from(&serde_json::from_value::<DiffusersAutoencoderKl>(config.clone()).unwrap())
        .unwrap()
}

#[test]
fn every_preset_is_the_published_config_and_as_large() {
    let fixture = Fixture::open("vae_presets");
    let counts: BTreeMap<String, usize> = serde_json::from_value(fixture.json("counts")).unwrap();
    let configs = fixture.json("configs");
    assert_eq!(counts.len(), KL_PRESETS.len());
    for preset in KL_PRESETS {
        let config = KlPreset::find(preset.name).unwrap().config();
        let mut published = read(&configs[preset.name]);
        // diffusers' class default, which its Stable Diffusion pipelines before XL do not read.
        published.force_upcast = config.force_upcast;
        assert_eq!(config, published, "{}", preset.name);
        let model = config.init(&Device::default()).unwrap();
        println!("{}: {} parameters, f = {}", preset.name, model.num_params(), model.factor());
        assert_eq!(model.num_params(), counts[preset.name], "{}", preset.name);
    }
    assert!(KlPreset::find("kl-f2").is_none());
}

#[test]
fn absent_keys_have_the_classes_defaults() {
    let theirs: DiffusersAutoencoderKl = serde_json::from_value(json!({})).unwrap();
    assert_eq!(theirs, DiffusersAutoencoderKl::default());
    let config = AutoencoderKlConfig::try_from(&theirs).unwrap();
    assert_eq!(config.scaling.scaling_factor, 0.18215);
    assert!(config.force_upcast && config.use_quant_conv && config.ddconfig.mid_block_add_attention);
    assert_eq!((config.ddconfig.ch, config.ddconfig.num_res_blocks, config.factor()), (64, 1, 1));

    let theirs: DiffusersAutoencoderKl =
        serde_json::from_value(json!({ "sample_size": [48, 64], "not_a_key": 3 })).unwrap();
    assert_eq!(theirs.sample_size, 48);
}

#[test]
fn a_diffusers_config_that_cannot_be_built_names_its_key() {
    let two = json!(["DownEncoderBlock2D", "DownEncoderBlock2D"]);
    let cases = [
        (json!({ "_class_name": "VQModel" }), "_class_name", "VQModel"),
        (json!({ "act_fn": "gelu" }), "act_fn", "gelu"),
        (json!({ "down_block_types": ["DownBlock2D"] }), "down_block_types", "DownBlock2D"),
        (json!({ "up_block_types": ["UpBlock2D"] }), "up_block_types", "UpBlock2D"),
        (json!({ "down_block_types": two }), "down_block_types", "1 levels"),
        (json!({ "up_block_types": ["AttnUpDecoderBlock2D"] }), "up_block_types", "AttnUpDecoderBlock2D"),
        (
            json!({ "block_out_channels": [], "down_block_types": [], "up_block_types": [] }),
            "block_out_channels",
            "[]",
        ),
        (json!({ "block_out_channels": [0] }), "block_out_channels", "0"),
        (json!({ "norm_num_groups": 48 }), "norm_num_groups", "64"),
        (json!({ "layers_per_block": 0 }), "layers_per_block", "0"),
        (json!({ "latent_channels": 0 }), "latent_channels", "0"),
        (json!({ "latents_mean": [0.0], "latents_std": [1.0] }), "latents_mean", "4 channels"),
        (json!({ "latents_mean": [0.0, 0.0, 0.0, 0.0] }), "latents_mean", "latents_std"),
        (json!({ "scaling_factor": 0.0 }), "scaling_factor", "0"),
        (json!({ "sample_size": 18446744073709551615u64 }), "sample_size", "18446744073709551615"),
    ];
    for (config, key, value) in cases {
        let theirs: DiffusersAutoencoderKl = serde_json::from_value(config.clone()).unwrap();
        let error = AutoencoderKlConfig::try_from(&theirs).unwrap_err();
        assert!(matches!(&error, VaeError::Config { key: found, .. } if *found == key), "{config}: {error}");
        assert!(error.to_string().contains(value), "{config}: {error}");
    }
}

#[test]
fn a_compvis_config_that_cannot_be_built_names_its_key() {
    let preset = KlPreset::find("kl-f8").unwrap().config();
    let cases: [(Change, &str); 10] = [
        (|c| c.ddconfig.double_z = false, "double_z"),
        (|c| c.embed_dim = 0, "embed_dim"),
        (|c| c.ddconfig.ch = 100, "norm_num_groups"),
        (|c| c.ddconfig.ch_mult = vec![], "ch_mult"),
        (|c| c.ddconfig.ch_mult = vec![1.0; 100], "ch_mult"),
        (|c| c.ddconfig.ch_mult = vec![1.0, f64::NAN], "ch_mult"),
        (|c| c.ddconfig.ch_mult = vec![1.0, 1.003], "ch_mult"),
        (|c| c.ddconfig.ch_mult = vec![1e300], "ch_mult"),
        (|c| c.ddconfig.resolution = 0, "resolution"),
        (
            |c| {
                c.use_quant_conv = false;
                c.embed_dim = 8;
            },
            "use_quant_conv",
        ),
    ];
    for (spoil, key) in cases {
        let mut config = preset.clone();
        spoil(&mut config);
        let error = config.init(&Device::default()).unwrap_err();
        assert!(matches!(&error, VaeError::Config { key: found, .. } if *found == key), "{key}: {error}");
    }
    let linear = json!({ "embed_dim": 4, "ddconfig": {
        "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1],
        "num_res_blocks": 2, "attn_resolutions": [], "attn_type": "linear" } });
    let error = serde_json::from_value::<AutoencoderKlConfig>(linear).unwrap_err();
    assert!(error.to_string().contains("linear"), "{error}");
}

#[test]
fn what_diffusers_cannot_express_is_named() {
    let preset = KlPreset::find("kl-f16").unwrap().config();
    let theirs = preset.to_diffusers().unwrap();
    assert_eq!(theirs.down_block_types[4], "AttnDownEncoderBlock2D");
    assert_eq!(theirs.up_block_types[0], "AttnUpDecoderBlock2D");
    assert_eq!(theirs.block_out_channels, [128, 128, 256, 256, 512]);
    assert_eq!(theirs.down_block_types[..4], ["DownEncoderBlock2D"; 4]);
    let cases: [(Change, &str); 4] = [
        (|c| c.embed_dim = 8, "embed_dim"),
        (|c| c.ddconfig.ch_mult[0] = 2.0, "ch_mult"),
        (|c| c.ddconfig.resamp_with_conv = false, "resamp_with_conv"),
        (|c| c.ddconfig.tanh_out = true, "tanh_out"),
    ];
    for (change, key) in cases {
        let mut config = preset.clone();
        change(&mut config);
        let error = config.to_diffusers().unwrap_err();
        assert!(matches!(&error, VaeError::Config { key: found, .. } if *found == key), "{key}: {error}");
    }
}

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use ldm_test_support::Fixture;
use ldm_vae::{
    DiffusersVqModel, LatentScaling, UnknownIndex, UsedCodes, VQ_PRESETS, VaeError, VqModelConfig, VqPreset,
};
use serde_json::json;

type Change = fn(&mut VqModelConfig);

#[test]
fn every_preset_is_the_published_config_and_as_large() {
    let fixture = Fixture::open("vq_presets");
    let counts: BTreeMap<String, usize> = serde_json::from_value(fixture.json("counts")).unwrap();
    let configs = fixture.json("configs");
    assert_eq!(counts.len(), VQ_PRESETS.len());
    for preset in VQ_PRESETS {
        let config = VqPreset::find(preset.name).unwrap().config();
        let published: VqModelConfig = serde_json::from_value(configs[preset.name].clone()).unwrap();
        assert_eq!(config, published, "{}", preset.name);
        let model = config.init(&Device::default()).unwrap();
        println!("{}: {} parameters, f = {}", preset.name, model.num_params(), model.factor());
        assert_eq!(model.num_params(), counts[preset.name], "{}", preset.name);
        assert_eq!(model.scaling(), &LatentScaling::factor(1.0));
    }
    assert!(VqPreset::find("vq-f32").is_none());
}

#[test]
fn a_yaml_s_fields_are_read() {
    let mut config = serde_json::to_value(VqPreset::find("vq-f4").unwrap().config()).unwrap();
    let fields =
        json!({ "remap": [1, 2, 3], "unknown_index": "extra", "sane_index_shape": true, "monitor": "x" });
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let read: VqModelConfig = serde_json::from_value(config.clone()).unwrap();
    assert_eq!(read.remap, Some(UsedCodes::Indices(vec![1, 2, 3])));
    assert_eq!((read.unknown_index, read.sane_index_shape), (UnknownIndex::Extra, true));
    assert_eq!(read.init(&Device::default()).unwrap().quantize.re_embed(), 4);
    config["unknown_index"] = json!(2);
    config["remap"] = json!("data/used.npy");
    let read: VqModelConfig = serde_json::from_value(config.clone()).unwrap();
    assert_eq!(read.unknown_index, UnknownIndex::Index(2));
    let error = read.init(&Device::default()).unwrap_err();
    assert!(error.to_string().contains("data/used.npy"), "{error}");
    config["unknown_index"] = json!("sometimes");
    assert!(serde_json::from_value::<VqModelConfig>(config).is_err());
}

#[test]
fn a_scaling_factor_that_is_not_said_is_diffusers_default() {
    let theirs: DiffusersVqModel = serde_json::from_value(json!({})).unwrap();
    assert_eq!(theirs, DiffusersVqModel::default());
    let config = VqModelConfig::try_from(&theirs).unwrap();
    assert_eq!(config.scaling.scaling_factor, 0.18215);
    assert_eq!((config.embed_dim, config.n_embed, config.ddconfig.ch), (3, 256, 64));
    // A converted model must say its 1.
    let written = VqPreset::find("vq-f4").unwrap().config().to_diffusers().unwrap();
    let written = serde_json::to_value(written).unwrap();
    assert_eq!(written["scaling_factor"], json!(1.0));
    assert_eq!(written["num_vq_embeddings"], json!(8192));
    let read: DiffusersVqModel = serde_json::from_value(written).unwrap();
    assert_eq!(VqModelConfig::try_from(&read).unwrap(), VqPreset::find("vq-f4").unwrap().config());
}

#[test]
fn a_diffusers_config_that_cannot_be_built_names_its_key() {
    let cases = [
        (json!({ "_class_name": "AutoencoderKL" }), "_class_name", "AutoencoderKL"),
        (json!({ "norm_type": "spatial" }), "norm_type", "spatial"),
        (json!({ "act_fn": "gelu" }), "act_fn", "gelu"),
        (json!({ "down_block_types": ["DownBlock2D"] }), "down_block_types", "DownBlock2D"),
        (json!({ "num_vq_embeddings": 0 }), "num_vq_embeddings", "0"),
        (json!({ "latent_channels": 0 }), "latent_channels", "0"),
        (json!({ "vq_embed_dim": 0 }), "embed_dim", "0"),
        (json!({ "scaling_factor": 0.0 }), "scaling_factor", "0"),
    ];
    for (config, key, value) in cases {
        let theirs: DiffusersVqModel = serde_json::from_value(config.clone()).unwrap();
        let error = VqModelConfig::try_from(&theirs).unwrap_err();
        assert!(matches!(&error, VaeError::Config { key: found, .. } if *found == key), "{config}: {error}");
        assert!(error.to_string().contains(value), "{config}: {error}");
    }
}

#[test]
fn a_config_that_cannot_be_built_or_expressed_names_its_key() {
    let preset = VqPreset::find("vq-f8").unwrap().config();
    let cases: [(Change, &str); 6] = [
        (|c| c.ddconfig.double_z = true, "double_z"),
        (|c| c.embed_dim = 0, "embed_dim"),
        (|c| c.n_embed = 0, "n_embed"),
        (|c| c.n_embed = usize::MAX, "n_embed"),
        (|c| c.beta = f64::NAN, "beta"),
        (|c| c.ddconfig.ch = 100, "norm_num_groups"),
    ];
    let named = |error: VaeError, key: &str| {
        assert!(matches!(&error, VaeError::Config { key: found, .. } if *found == key), "{key}: {error}");
    };
    for (spoil, key) in cases {
        let mut config = preset.clone();
        spoil(&mut config);
        named(config.init(&Device::default()).unwrap_err(), key);
    }
    let cases: [(Change, &str); 4] = [
        (|c| c.remap = Some(UsedCodes::Indices(vec![1])), "remap"),
        (|c| c.scaling.shift_factor = Some(1.0), "scaling"),
        (|c| c.ddconfig.tanh_out = true, "tanh_out"),
        (|c| c.ddconfig.ch_mult[0] = 2.0, "ch_mult"),
    ];
    for (change, key) in cases {
        let mut config = preset.clone();
        change(&mut config);
        named(config.to_diffusers().unwrap_err(), key);
    }
}

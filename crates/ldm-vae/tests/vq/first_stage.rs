use burn::tensor::{DType, Device, Tensor};
use ldm_test_support::{assert_close, seeded_input};
use ldm_vae::{
    Encoded, FirstStage, FirstStageConfig, KlPreset, LatentScaling, Naming, Tiling, VaeError, VqPreset,
};

use crate::Case;

#[test]
fn a_vq_stage_keeps_quantisation_for_the_decoder() {
    let device = Device::default();
    let case = Case::compvis("vq-f4");
    let model = case.model(DType::F32, &device);
    let stage = FirstStage::Vq(model.clone());
    let (x, z) = (case.picture(&device), case.latent(&model, &device));
    let encoded = stage.encode(x.clone()).unwrap();
    assert!(matches!(encoded, Encoded::Latent(_)));
    assert_eq!(encoded.dims(), [2, 3, 8, 6]);
    let latents = case.fixture.tensor("latents", &device);
    assert_close("mode", &encoded.mode(), &latents, 1e-4);
    let noise = seeded_input("noise", [2, 3, 8, 6], &device);
    assert_close("nothing to draw", &encoded.sample(noise).unwrap(), &latents, 1e-4);
    assert_close("decode", &stage.decode(z.clone()).unwrap(), &case.fixture.tensor("decoded", &device), 1e-4);
    let plain = stage.decode_unquantized(z.clone()).unwrap();
    assert_close("unquantized", &plain, &case.fixture.tensor("unquantized", &device), 1e-4);
    let quantized = model.quantize.forward(z.clone()).unwrap().z_q;
    assert_close("quantize", &stage.quantize(z).unwrap(), &quantized, 1e-6);
    assert_eq!((stage.factor(), stage.in_channels(), stage.latent_channels()), (4, 3, 3));
    assert_eq!(stage.config(), FirstStageConfig::Vq(case.config()));
}

#[test]
fn a_kl_stage_gives_its_posterior() {
    let device = Device::default();
    let mut config = KlPreset::find("kl-f8").unwrap().config();
    config.ddconfig.ch = 32;
    let config = FirstStageConfig::Kl(config).with_scaling(LatentScaling::factor(0.18215));
    let stage = config.init(&device).unwrap().with_slicing(true);
    let stage = stage.with_tiling(Some(Tiling::with_latent_size(8, 8))).unwrap();
    assert_eq!((stage.factor(), stage.latent_channels(), stage.dtype()), (8, 4, DType::F32));
    assert_eq!(stage.scaling().scaling_factor, 0.18215);
    let encoded = stage.encode(seeded_input("x", [2, 3, 16, 24], &device)).unwrap();
    let Encoded::Posterior(posterior) = &encoded else { panic!("{encoded:?}") };
    let noise = seeded_input::<4>("noise", encoded.dims(), &device);
    let expected = posterior.mean() + posterior.std() * noise.clone();
    assert_close("sample", &encoded.sample(noise).unwrap(), &expected, 1e-6);
    let wrong = Tensor::<4>::zeros([1, 4, 2, 3], &device);
    assert!(matches!(encoded.sample(wrong), Err(VaeError::Shape { what: "noise", .. })));
    assert_eq!(stage.quantize(encoded.mode()).unwrap_err(), VaeError::NoCodebook { stage: "KL" });
    assert_eq!(stage.decode(encoded.mode()).unwrap().dims(), [2, 3, 16, 24]);
    assert!(stage.with_tiling(Some(Tiling::with_latent_size(8, 4))).is_err());
}

#[test]
fn an_identity_stage_is_f_1() {
    let device = Device::default();
    let config = FirstStageConfig::Identity(3, LatentScaling::default());
    assert_eq!((config.factor(), config.force_upcast()), (1, false));
    let stage = config.init(&device).unwrap();
    let x = seeded_input::<4>("x", [2, 3, 5, 7], &device);
    let z = stage.encode(x.clone()).unwrap().mode();
    assert_close("encode", &z, &x, 0.0);
    assert_close("decode", &stage.decode(z.clone()).unwrap(), &x, 0.0);
    assert_close("quantize", &stage.quantize(z).unwrap(), &x, 0.0);
    assert_eq!((stage.factor(), stage.in_channels(), stage.latent_channels()), (1, 3, 3));
    assert_eq!(stage.config(), config);
    let wrong = Tensor::<4>::zeros([1, 4, 2, 3], &device);
    let error = stage.encode(wrong).unwrap_err();
    assert_eq!(error.to_string(), "picture has 4 channels, the model takes 3");
    let bad = FirstStageConfig::Identity(3, LatentScaling::factor(0.0));
    assert!(matches!(bad.init(&device), Err(VaeError::Config { key: "scaling_factor", .. })));
}

#[test]
fn every_preset_is_a_stage() {
    for name in ["vq-f4", "vq-f8", "vq-f16"] {
        let config = FirstStageConfig::Vq(VqPreset::find(name).unwrap().config());
        let stage = config.init(&Device::default()).unwrap();
        assert_eq!(stage.config(), config);
        let names = stage.weight_names(Naming::CompVis);
        use ldm_nn::weights::KeyMap;
        let entry = names.entry("quantize.embedding.weight").unwrap();
        assert_eq!(entry.key, "quantize.embedding.weight");
    }
}

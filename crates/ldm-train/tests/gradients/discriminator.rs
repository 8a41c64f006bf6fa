//! What the discriminator's configs and inputs must be.

use burn::tensor::{Device, Tensor};
use ldm_train::{
    DiscLoss, FirstStageError, FirstStageLossConfig, FirstStageObjective, NLayerDiscriminator, PixelLoss,
    Reconstruction,
};
use ldm_vae::{AutoencoderKlConfig, DdConfig};
use serde_json::json;

const KL: &str = "ldm.modules.losses.LPIPSWithDiscriminator";
const VQ: &str = "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator";

#[test]
fn yaml_params_are_read_and_wrong_ones_named() {
    let params = json!({"disc_start": 50001, "kl_weight": 0.000001, "disc_weight": 0.5});
    let kl = FirstStageLossConfig::from_target(KL, &params).unwrap();
    let FirstStageLossConfig::Kl(read) = &kl else { panic!("{kl:?}") };
    assert_eq!((read.disc_start, read.kl_weight, read.disc_loss), (50001, 1e-6, DiscLoss::Hinge));
    assert_eq!((kl.disc_factor(50000), kl.disc_factor(50001)), (0.0, 1.0));
    let json = serde_json::to_value(&kl).unwrap();
    assert_eq!(serde_json::from_value::<FirstStageLossConfig>(json).unwrap(), kl);

    let params = json!({"disc_conditional": false, "disc_in_channels": 3, "disc_start": 0, "disc_weight": 0.75,
        "disc_num_layers": 2, "codebook_weight": 1.0, "pixel_loss": "l2"});
    let vq = FirstStageLossConfig::from_target(VQ, &params).unwrap();
    let FirstStageLossConfig::Vq(read) = &vq else { panic!("{vq:?}") };
    assert_eq!((read.disc_num_layers, read.pixel_loss, read.disc_ndf), (2, PixelLoss::L2, 64));

    let refused =
        |target, params| FirstStageLossConfig::from_target(target, &params).unwrap_err().to_string();
    for (target, key, value) in [
        (KL, "use_actnorm", json!(true)),
        (VQ, "disc_conditional", json!(true)),
        (KL, "pixelloss_weight", json!(2.0)),
        (VQ, "perceptual_loss", json!("clips")),
        (KL, "codebook_weight", json!(1.0)),
        (KL, "disc_loss", json!("wgan")),
        (VQ, "disc_num_layers", json!(0)),
    ] {
        let problem = refused(target, json!({key: value}));
        assert!(problem.contains(key) || problem.contains("wgan"), "{problem}");
    }
    assert!(refused("torch.nn.Identity", json!({})).contains("torch.nn.Identity"));
}

fn objective(params: serde_json::Value) -> (FirstStageObjective, Option<NLayerDiscriminator>) {
    let config = FirstStageLossConfig::from_target(KL, &params).unwrap();
    let objective = FirstStageObjective::new(&config, None).unwrap();
    let discriminator = objective.discriminator(&Device::default().autodiff());
    (objective, discriminator)
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let (device, plain) = (Device::default().autodiff(), Device::default());
    let ddconfig: DdConfig =
        serde_json::from_value(json!({"z_channels": 2, "resolution": 32, "in_channels": 3,
        "out_ch": 3, "ch": 32, "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": []}))
        .unwrap();
    let config: AutoencoderKlConfig =
        serde_json::from_value(json!({"embed_dim": 2, "ddconfig": ddconfig})).unwrap();
    let (objective, discriminator) = objective(json!({"disc_num_layers": 2}));
    let discriminator = discriminator.unwrap();
    objective.config().validate_for(&ddconfig).unwrap();
    let grey = DdConfig { out_ch: 1, ..ddconfig };
    assert!(objective.config().validate_for(&grey).unwrap_err().to_string().contains("disc_in_channels"));

    let run = |device: &Device, side: usize, discriminator| {
        let vae = config.init(device).unwrap();
        let made = Reconstruction::new(
            &vae.decoder,
            vae.post_quant_conv.as_ref(),
            Tensor::ones([1, 2, side, side], device),
        );
        let inputs = Tensor::ones([1, 3, side, 12], device);
        let kl = Tensor::ones([1], device);
        objective.generator_loss(inputs, &made, kl, discriminator, None, 0).map(|_| ())
    };
    run(&device, 12, Some(&discriminator)).unwrap();
    assert!(matches!(run(&plain, 12, Some(&discriminator)), Err(FirstStageError::NoGradient)));
    assert!(matches!(run(&device, 12, None), Err(FirstStageError::Missing { key: "disc_factor", .. })));
    assert!(matches!(
        run(&device, 13, Some(&discriminator)),
        Err(FirstStageError::Shape { what: "reconstruction", .. })
    ));
    let small = Tensor::<4>::ones([1, 3, 8, 12], &plain);
    let small = objective.discriminator_loss(small.clone(), small, &discriminator, 0).unwrap_err();
    assert!(small.to_string().contains("sides of at least 12"), "{small}");
}

#[test]
fn no_weight_means_no_discriminator() {
    let (_, discriminator) = objective(json!({"disc_factor": 0.0}));
    assert!(discriminator.is_none());
}

/// The least side that the error names is the least.
#[test]
fn the_least_side_leaves_one_patch() {
    let device = Device::default();
    for layers in 1..=4 {
        let (objective, discriminator) = objective(json!({"disc_num_layers": layers}));
        let side = objective.config().discriminator().unwrap().least_side();
        let logits = discriminator.unwrap().forward(Tensor::ones([1, 3, side, side], &device));
        assert_eq!(logits.dims(), [1, 1, 1, 1]);
    }
}

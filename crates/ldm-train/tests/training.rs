//! The parts of a run: optimiser, gradients of several devices, configs, logs, finished models.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod tiny;
#[path = "tiny/trained.rs"]
mod trained;

use std::sync::PoisonError;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_conditioning::CondStage;
use ldm_nn::weights::{Loader, WeightFile};
use ldm_nn::{Conv2dConfig, Linear, LinearConfig};
use ldm_test_support::{Fixture, assert_close, seeded_input, seeded_weight};
use ldm_train::RunError;
use ldm_train::config::{ModelConfig, RunConfig};
use ldm_train::export::load_first_stage;
use ldm_train::log::EventWriter;
use ldm_train::optim::{
    AdamW, AdamWConfig, Decay, Named, Precision, clip_by_global_norm, gradients, trainable,
};
use ldm_train::parallel::{Reduction, average, on_devices};
use ldm_train::run::DiffusionTraining;
use serde_json::{Value, json};
use trained::{DRAWING, trained};

fn seeded<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(seeded_weight(name, &shape), shape), (device, DType::F32))
}

/// The fixture's layer, its parameters drawn by name.
fn layer(device: &Device) -> Linear {
    let mut layer = LinearConfig::new(3, 5).init(device);
    layer.weight = Param::from_tensor(seeded("weight", [5, 3], device));
    layer.bias = Some(Param::from_tensor(seeded("bias", [5], device)));
    layer
}

/// Twenty steps of each optimiser against PyTorch's (tests/reference/optimizer.py).
#[test]
fn optimisers_step_as_pytorch_does() {
    let device = Device::default();
    let fixture = Fixture::open("optimizer");
    let cases = [
        ("adamw", AdamWConfig::default(), Some(1.0), 2),
        ("adamw_no_clip", AdamWConfig::default(), None, 1),
        ("adam", AdamWConfig::FIRST_STAGE, None, 1),
    ];
    for (case, config, clip, accumulate) in cases {
        let mut layer = layer(&device);
        let mut optimizer = AdamW::new(config, &layer, &device);
        let mut norms = Vec::new();
        for step in 0..20 {
            let working = trainable(&layer, Precision::F32);
            let sets = (0..accumulate).map(|k| {
                // A loss whose gradient is drawn by name.
                let drawn = |name: &str| format!("{name}.{step}.{k}");
                let weight = seeded_input(&drawn("weight"), [5, 3], &device);
                let bias = seeded_input(&drawn("bias"), [5], &device);
                let bias = (working.bias.as_ref().unwrap().val() * bias).sum();
                let loss = (working.weight.val() * weight).sum() + bias;
                gradients(&working, &mut loss.backward())
            });
            let mut mean = Named::mean(sets.collect());
            norms.push(clip_by_global_norm(&mut mean, clip) as f32);
            layer = optimizer.step(layer, mean, 1e-2);
        }
        let tensor = |key: &str| fixture.tensor::<1>(&format!("{case}.{key}"), &device);
        let norms = Tensor::<1>::from_data(TensorData::new(norms, [20]), &device);
        assert_close(&format!("{case}: norms"), &norms, &tensor("norms"), 1e-5);
        let weight = fixture.tensor::<2>(&format!("{case}.weight"), &device);
        assert_close(&format!("{case}: weight"), &layer.weight.val(), &weight, 1e-5);
        assert_close(&format!("{case}: bias"), &layer.bias.unwrap().val(), &tensor("bias"), 1e-5);
    }
}

/// Four devices' gradients, averaged, are those of one batch of all pictures; so are four micro-batches'.
#[test]
fn gradients_of_several_devices_average_to_those_of_one_batch() {
    let device = Device::default();
    let alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    let conv = Conv2dConfig::new([3, 4], 3).init(&device);
    let whole = |x: Tensor<4>| conv.forward(x);
    drop((whole(Tensor::zeros([1, 3, 6, 6], &device)), alone));
    let x = seeded_input("x", [8, 3, 6, 6], &device);
    let of = |conv: &ldm_nn::Conv2d, x: Tensor<4>| {
        let loss = conv.forward(x).square().mean();
        gradients(conv, &mut loss.backward())
    };
    let whole = of(&trainable(&conv, Precision::F32), x.clone());
    assert_eq!(whole.len(), 2);

    let devices = vec![device.clone(); 4];
    let sets = on_devices(&devices, |i, device| {
        let replica = trainable(&conv.clone().to_device(device), Precision::F32);
        Ok::<_, RunError>(of(&replica, x.clone().narrow(0, 2 * i, 2)))
    });
    assert_eq!(Reduction::of(&devices), Reduction::Gather);
    let averaged = average(sets.unwrap(), Reduction::Gather);
    for (path, gradient) in whole.iter() {
        assert_close(path, averaged.get(path).unwrap(), gradient, 1e-5);
        // A single device's differs: the test could fail.
        let one = of(&trainable(&conv, Precision::F32), x.clone().narrow(0, 0, 2));
        let difference = ldm_test_support::relative_difference(one.get(path).unwrap(), gradient);
        assert!(difference > 1e-2, "{path}: {difference}");
    }
}

/// Byte for byte what TensorBoard's own writer makes (tests/reference/tensorboard_events.py).
#[test]
fn event_files_are_tensorboards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    let mut writer = EventWriter::create(&path, 1.5).unwrap();
    writer.session_start(2.0, 300).unwrap();
    writer.scalars(2.5, 301, &vec![("loss".into(), 0.25), ("learning_rate".into(), 1e-4)]).unwrap();
    writer.image(3.0, 301, "samples", [2, 1], b"PNG").unwrap();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/tensorboard.tfevents");
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(fixture).unwrap());
}

fn yaml(text: &str) -> Result<RunConfig, String> {
    RunConfig::from_value(&serde_yaml_ng::from_str::<Value>(text).unwrap())
}

/// The keys of the reference's `autoencoder_kl_32x32x4.yaml`.
#[test]
fn a_compvis_first_stage_config_loads() {
    let config = yaml(
        "
model:
  base_learning_rate: 4.5e-6
  target: ldm.models.autoencoder.AutoencoderKL
  params:
    monitor: val/rec_loss
    embed_dim: 4
    lossconfig:
      target: ldm.modules.losses.LPIPSWithDiscriminator
      params: {disc_start: 50001, kl_weight: 0.000001, disc_weight: 0.5}
    ddconfig:
      double_z: True
      z_channels: 4
      resolution: 256
      in_channels: 3
      out_ch: 3
      ch: 128
      ch_mult: [1, 2, 4, 4]
      num_res_blocks: 2
      attn_resolutions: []
      dropout: 0.0
data:
  target: main.DataModuleFromConfig
  params:
    batch_size: 12
    wrap: True
    train: {target: ldm.data.imagenet.ImageNetSRTrain, params: {size: 256, degradation: pil_nearest}}
lightning:
  callbacks:
    image_logger:
      target: main.ImageLogger
      params: {batch_frequency: 1000, max_images: 8, increase_log_steps: True}
  trainer:
    benchmark: True
    accumulate_grad_batches: 2
",
    )
    .unwrap();
    let ModelConfig::FirstStage(model) = &config.model else { panic!() };
    assert_eq!(model.first_stage.factor(), 8);
    assert_eq!(config.train.accumulate_grad_batches, 2);
    assert_eq!(config.train.images_every, 1000);
    // The data set's crops are taken, its small pictures are of no use here.
    let transform = &config.data.loader.transform;
    assert_eq!((transform.size, transform.crop_f), (256, Some([0.5, 1.0])));
    assert_eq!(config.data.condition, None);
    // scale_lr: 2 x 12 pictures a step.
    assert!((config.learning_rate(1) - 24.0 * 4.5e-6).abs() < 1e-12);
    let expected = [
        "model.params.monitor",
        "lightning.callbacks.image_logger.params.increase_log_steps",
        "lightning.callbacks.image_logger.target",
        "lightning.trainer.benchmark",
        "data.params.wrap",
        "data.params.train.target = ldm.data.imagenet.ImageNetSRTrain",
        "data.target = main.DataModuleFromConfig",
    ];
    let mut unused = config.unused.clone();
    unused.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(unused, expected);
}

/// The keys of the reference's `txt2img-1p4B-eval.yaml` and `lsun_churches-ldm-kl-8.yaml`.
#[test]
fn a_compvis_diffusion_config_loads() {
    let text = "
model:
  base_learning_rate: 5.0e-5
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.0015
    linear_end: 0.0155
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    loss_type: l1
    first_stage_key: image
    cond_stage_key: caption
    image_size: 32
    channels: 4
    cond_stage_trainable: true
    conditioning_key: crossattn
    monitor: val/loss_simple_ema
    scale_by_std: True
    scheduler_config:
      target: ldm.lr_scheduler.LambdaLinearScheduler
      params:
        warm_up_steps: [10000]
        cycle_lengths: [10000000000000]
        f_start: [1.e-6]
        f_max: [1.]
        f_min: [ 1.]
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 32
        in_channels: 4
        out_channels: 4
        model_channels: 192
        attention_resolutions: [4, 2, 1]
        num_res_blocks: 2
        channel_mult: [1, 2, 4, 4]
        num_heads: 8
        use_spatial_transformer: true
        transformer_depth: 1
        context_dim: 1280
        use_checkpoint: true
        legacy: False
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        monitor: val/rec_loss
        ckpt_path: models/first_stage_models/kl-f8/model.ckpt
        ddconfig: {double_z: true, z_channels: 4, resolution: 256, in_channels: 3, out_ch: 3, ch: 128,
                   ch_mult: [1, 2, 4, 4], num_res_blocks: 2, attn_resolutions: [], dropout: 0.0}
        lossconfig: {target: torch.nn.Identity}
    cond_stage_config:
      target: ldm.modules.encoders.modules.BERTEmbedder
      params: {n_embed: 1280, n_layer: 32}
";
    let config = yaml(text).unwrap();
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    assert!(model.use_ema && model.cond_stage_trainable && model.objective.scale_by_std);
    assert_eq!(model.unet.sample_size, Some([32, 32]));
    assert_eq!(
        model.first_stage_ckpt.as_ref().unwrap().to_str(),
        Some("models/first_stage_models/kl-f8/model.ckpt")
    );
    let rate = config.rate();
    assert_eq!((rate.warm_up_steps, rate.decay), (10_000, Decay::Constant));
    assert_eq!(rate.factor(20_000, 30_000), 1.0);
    assert!((rate.factor(5_000, 30_000) - 0.5).abs() < 1e-5);
    assert!(model.use_checkpoint);

    for (from, to, expected) in [
        ("LatentDiffusion", "Upscaler", "`model.target` is ldm.models.diffusion.ddpm.Upscaler"),
        ("BERTEmbedder", "T5Embedder", "T5Embedder"),
        ("model_channels: 192", "model_channel: 192", "model_channel"),
        ("base_learning_rate: 5.0e-5", "base_learning_rate: fast", "`model.base_learning_rate`"),
        ("f_max: [1.]", "f_max: [-1.]", "f_max"),
        ("loss_type: l1", "loss_type: l3", "l3"),
    ] {
        let error = yaml(&text.replace(from, to)).unwrap_err();
        assert!(error.contains(expected), "{to}: {error}");
    }
    let error = yaml(&format!("{text}\ntrain: {{max_step: 3}}\n")).unwrap_err();
    assert!(error.contains("max_step"), "{error}");
}

#[test]
fn the_configs_of_the_shipped_model_load() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    for (file, seconds) in [("emoji_autoencoder.yaml", false), ("emoji_diffusion.yaml", true)] {
        let config = RunConfig::read(folder.join(file)).unwrap();
        assert_eq!(matches!(config.model, ModelConfig::Diffusion(_)), seconds);
        assert_eq!(config.data.loader.transform.size, 64);
        let known = ["model.params.first_stage_key", "model.params.cond_stage_key"];
        assert!(config.unused.iter().all(|key| known.contains(&key.as_str())), "{:?}", config.unused);
    }
}

/// For comparisons of runs that draw differently.
fn no_dropout() -> (&'static str, Value) {
    ("/model/params/unet_config/params/dropout", json!(0.0))
}

#[test]
fn a_finished_run_is_written_in_both_formats() {
    let root = tempfile::tempdir().unwrap();
    let training = trained(root.path(), &[], 3).unwrap();
    let folder = root.path().join("compvis");
    training.save_compvis(&folder, DType::F32).unwrap();
    let file = WeightFile::open(folder.join("model.safetensors")).unwrap();
    for key in [
        "model.diffusion_model.input_blocks.0.0.weight",
        "model_ema.diffusion_modelinput_blocks00weight",
        "model_ema.decay",
        "model_ema.num_updates",
        "first_stage_model.encoder.conv_in.weight",
        "cond_stage_model.transformer.token_emb.weight",
        "scale_factor",
        "logvar",
    ] {
        assert!(file.contains(key), "{key}");
    }
    let (shape, scale) = file.read_f32("scale_factor").unwrap();
    assert!(shape.is_empty() && (f64::from(scale[0]) - training.scale_factor().unwrap()).abs() < 1e-5);
    // The average is not the model.
    let values = |key: &str| file.read_f32(key).unwrap().1;
    let [raw, average] =
        ["model.diffusion_model.out.2.weight", "model_ema.diffusion_modelout2weight"].map(values);
    assert_ne!(raw, average);
    // The YAML describes the same model, and holds nothing that the reference's constructors don't know.
    let text = std::fs::read_to_string(folder.join("model.yaml")).unwrap();
    for ours in ["vocab_file", "noise_offset", "conditioning_dropout_prob", "rescale_betas_zero_snr"] {
        assert!(!text.contains(ours), "{ours}: {text}");
    }
    // What would otherwise be the reference's default, of another model.
    for said in ["conditioning_key: crossattn", "channels: 2", "image_size: 8"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // The vocabulary, which its format has no place for, lies beside.
    let vocabulary = std::fs::read_to_string("../../assets/emoji_vocab.txt").unwrap();
    assert_eq!(std::fs::read_to_string(folder.join("vocab.txt")).unwrap().trim(), vocabulary.trim());
    let ModelConfig::Diffusion(read) = yaml(&text).unwrap().model else { panic!() };
    let sized =
        ldm_unet::UNetConfig { sample_size: Some([8, 8]), ..training.denoiser().model.config().clone() };
    assert_eq!(read.unet, sized);
    let first_stage = load_first_stage(&read.first_stage, file.path(), &Device::default());
    assert!(first_stage.is_ok());

    let folder = root.path().join("diffusers");
    training.save_diffusers(&folder, DType::F32).unwrap();
    let json = |path: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join(path)).unwrap()).unwrap()
    };
    assert_eq!(json("model_index.json")["_class_name"], "LDMTextToImagePipeline");
    assert_eq!(json("vqvae/config.json")["scaling_factor"], json!(training.scale_factor().unwrap()));
    assert_eq!(json("scheduler/scheduler_config.json")["prediction_type"], "epsilon");
    assert!(folder.join("tokenizer/vocab.txt").is_file() && folder.join("bert/model.safetensors").is_file());
    let unet = ldm_unet::UNetConfig::from_diffusers(&json("unet/config.json")).unwrap();
    let file = WeightFile::open(folder.join("unet/diffusion_pytorch_model.safetensors")).unwrap();
    let keys = unet.diffusers_keys().unwrap();
    let (unet, report) = Loader::new(&keys).load(unet.init(&Device::default()).unwrap(), &file).unwrap();
    assert!(report.unknown.is_empty() && report.kept.is_empty());
    let average = training.average().unwrap();
    assert_eq!(unet.conv_out.weight.val().into_data(), average.conv_out.weight.val().into_data());
}

/// What a format has no words for is known before the run, and nothing is written of it.
#[test]
fn what_a_format_can_not_express_is_said_at_once() {
    let root = tempfile::tempdir().unwrap();
    let v = ("/model/params/parameterization", json!("v"));
    let training = trained(root.path(), std::slice::from_ref(&v), 0).unwrap();
    training.check_compvis().unwrap();
    training.save_compvis(&root.path().join("v"), DType::F32).unwrap();
    let text = std::fs::read_to_string(root.path().join("v/model.yaml")).unwrap();
    assert!(text.contains("parameterization: v"), "{text}");

    let zero_snr = ("/model/params/rescale_betas_zero_snr", json!(true));
    let training = trained(root.path(), &[v, zero_snr], 0).unwrap();
    let error = training.check_compvis().unwrap_err();
    let named = |error: &RunError| matches!(error, RunError::Inexpressible { what, .. } if what.contains("rescale_betas_zero_snr"));
    assert!(named(&error), "{error}");
    let folder = root.path().join("zero_snr");
    assert!(named(&training.save_compvis(&folder, DType::F32).unwrap_err()));
    assert!(!folder.exists());
    training.check_diffusers().unwrap();
    training.save_diffusers(&folder, DType::F32).unwrap();
    let scheduler = std::fs::read_to_string(folder.join("scheduler/scheduler_config.json")).unwrap();
    let scheduler: Value = serde_json::from_str(&scheduler).unwrap();
    assert_eq!(scheduler["rescale_betas_zero_snr"], true);
}

/// Blocks computed anew for their gradients give the same training.
#[test]
fn recomputation_changes_no_gradient() {
    let root = tempfile::tempdir().unwrap();
    let anew = ("/model/params/unet_config/params/use_checkpoint", json!(true));
    // A block that runs twice would have to drop the same features twice.
    assert!(matches!(
        trained(root.path(), std::slice::from_ref(&anew), 0),
        Err(RunError::NotTrainable { .. })
    ));
    let kept = trained(root.path(), &[no_dropout()], 3).unwrap();
    let anew = trained(root.path(), &[no_dropout(), anew], 3).unwrap();
    // Adam's steps hang on the gradients' signs: what differs shows.
    let weights = |training: &DiffusionTraining| {
        let model = &training.denoiser().model;
        let Some(CondStage::BertEmbedder(tau)) = &training.denoiser().cond_stage_model else { panic!() };
        let logvar = training.denoiser().logvar.as_ref().unwrap();
        [
            model.conv_in.weight.val().reshape([-1]),
            model.time_embedding.linear_1.weight.val().reshape([-1]),
            model.up_blocks[1].resnets[0].conv1.weight.val().reshape([-1]),
            model.conv_out.weight.val().reshape([-1]),
            tau.pos_emb.weight.val().reshape([-1]),
            logvar.logvar.val(),
        ]
    };
    let fresh = weights(&trained(root.path(), &[no_dropout()], 0).unwrap());
    for (i, ((kept, anew), fresh)) in weights(&kept).iter().zip(weights(&anew)).zip(fresh).enumerate() {
        let moved = ldm_test_support::relative_difference(kept, &fresh);
        assert!(moved > 1e-4, "{i}: {moved}");
        assert_close(&format!("{i}: moved by {moved:.1e}"), &anew, kept, 1e-5);
    }
}

/// bf16 where the device has it: close to f32, with f32 master weights; elsewhere an error that says so.
#[test]
fn mixed_precision_keeps_f32_weights() {
    let root = tempfile::tempdir().unwrap();
    let bf16 = [("/train/precision", json!("bf16"))];
    if !Device::default().supports_dtype(DType::BF16) {
        let error = trained(root.path(), &bf16, 0).unwrap_err();
        assert!(matches!(error, RunError::Precision { dtype: DType::BF16, .. }), "{error}");
        return;
    }
    let exact = trained(root.path(), &[no_dropout()], 3).unwrap();
    let mixed = trained(root.path(), &[no_dropout(), bf16[0].clone()], 3).unwrap();
    let weight = |training: &DiffusionTraining| training.denoiser().model.conv_in.weight.val();
    assert_eq!(weight(&mixed).dtype(), DType::F32);
    assert_ne!(weight(&mixed).into_data(), weight(&exact).into_data());
    assert_close("after 3 steps", &weight(&mixed), &weight(&exact), 2e-2);
    // Which weights a step holds in which type is decided in one place.
    let working = trainable(mixed.denoiser(), Precision::Bf16);
    assert_eq!(working.model.conv_in.weight.val().dtype(), DType::BF16);
    let tau = working.cond_stage_model.as_ref().unwrap();
    let context = tau.encode(&ldm_conditioning::Condition::Text(vec!["a".into()])).unwrap().context.unwrap();
    assert_eq!(context.dtype(), DType::F32);
    assert_eq!(working.num_params(), mixed.denoiser().num_params());
}

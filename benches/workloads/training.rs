//! One training step.

use std::convert::Infallible;
use std::path::Path;

use burn::tensor::{DType, Tensor, TensorData};
use ldm_train::config::{DiffusionConfig, ModelConfig, RunConfig};
use ldm_train::optim::{AdamW, AdamWConfig, Precision, gradients, trainable};
use ldm_train::parallel::{Reduction, average, on_devices};
use ldm_train::run::Denoiser;
use ldm_unet::{Conditioning, PerLevel, UNetConfig};

use super::networks::unet_of;
use super::{Pass, Place, Size, finish, values};

/// configs/emoji_diffusion.yaml, the emoji's.
pub fn emoji_config() -> DiffusionConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/emoji_diffusion.yaml");
    match RunConfig::read(path).expect("a config of the repository").model {
        ModelConfig::Diffusion(model) => *model,
        ModelConfig::FirstStage(_) => panic!("it is a diffusion model's config"),
    }
}

/// The shipped model's U-Net: 16x16 latents, 24 tokens of context.
pub fn emoji_unet() -> UNetConfig {
    emoji_config().unet
}

/// 66 million parameters: 16x16 latents, 77 tokens of context.
pub fn unet_of_66m() -> UNetConfig {
    UNetConfig {
        attention_resolutions: vec![1, 2, 4],
        channel_mult: vec![1.0, 2.0, 3.0],
        num_heads: Some(PerLevel::All(8)),
        use_spatial_transformer: true,
        context_dim: Some(256),
        ..UNetConfig::new(4, 128, 4)
    }
}

/// A whole step on noise of a U-Net: a copy of the weights in the step's type, forward, loss in f32, gradients, AdamW. bf16
/// is mixed precision, as the trainer's.
pub fn train(config: &UNetConfig, tokens: usize, Size { side, batch, .. }: Size, place: &Place) -> Pass {
    let exact = Place::f32(place.device.clone());
    let precision = if place.dtype == DType::BF16 { Precision::Bf16 } else { Precision::F32 };
    let denoiser = Denoiser { model: unet_of(config, &exact), cond_stage_model: None, logvar: None };
    let mut optimizer = AdamW::new(AdamWConfig::default(), &denoiser, &exact.device);
    let mut denoiser = Some(denoiser);

    let width = config.context_dim.expect("a U-Net with a context");
    let z = values([batch, 4, side, side], 1.0, &exact);
    let noise = values([batch, 4, side, side], 1.5, &exact);
    let conditioning = Conditioning::context(values([batch, tokens, width], 1.0, &exact));
    let t: Vec<f32> = (0..batch).map(|i| (i * 999 / batch) as f32).collect();
    let t = Tensor::<1>::from_data(TensorData::new(t, [batch]), (&exact.device, DType::F32));
    Box::new(move || {
        let model = denoiser.take().expect("the last step left one");
        let working = trainable(&model, precision);
        let output = working.model.forward(z.clone(), t.clone(), &conditioning).expect("fitting inputs");
        let loss = (output.cast(DType::F32) - noise.clone()).square().mean();
        let gradients = gradients(&working, &mut loss.backward());
        let model = optimizer.step(model, gradients, 1e-5);
        let first = finish(model.model.conv_in.weight.val());
        exact.sync();
        denoiser = Some(model);
        first
    })
}

/// Loss and gradients of a small text-conditional U-Net: 16x16 latents, batch 32, 16 tokens of context, attention at 8x8
/// and 4x4. A processor shares the batch among replicas, a thread each, as the trainer does with `devices`.
pub fn train_small(place: &Place) -> Pass {
    const BATCH: usize = 32;
    let place = Place { device: place.device.clone().autodiff(), dtype: place.dtype };
    let config = UNetConfig {
        num_res_blocks: PerLevel::All(1),
        attention_resolutions: vec![2, 4],
        channel_mult: vec![1.0, 2.0, 3.0],
        num_heads: Some(PerLevel::All(4)),
        use_spatial_transformer: true,
        context_dim: Some(128),
        legacy: false,
        ..UNetConfig::new(4, 96, 4)
    };
    let unet = unet_of(&config, &place);
    let threads = if place.is_cpu() { rayon::current_num_threads() } else { 1 };
    let replicas = (1..=threads).rev().find(|n| BATCH.is_multiple_of(*n)).unwrap_or(1);
    let share = BATCH / replicas;
    let devices = vec![place.device.clone(); replicas];
    let conditioning = Conditioning::context(values([share, 16, 128], 1.0, &place));
    let z = values([share, 4, 16, 16], 1.0, &place);
    Box::new(move || {
        let sets = on_devices(&devices, |_, device| {
            let working = trainable(&unet, Precision::F32);
            let t = Tensor::full([share], 500.0, device);
            let output = working.forward(z.clone(), t, &conditioning).expect("fitting inputs");
            let loss = (output - z.clone()).square().mean();
            Ok::<_, Infallible>(gradients(&working, &mut loss.backward()))
        });
        let Ok(sets) = sets;
        let mean = average(sets, Reduction::Gather);
        let (_, first) = mean.iter().next().expect("a gradient");
        first.clone().into_data().iter::<f32>().next().expect("a value")
    })
}

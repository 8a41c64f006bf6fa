//! candle's side of `../compare.sh`: Stable Diffusion 1.5's U-Net or decoder, f32 on the CPU, under the protocol of
//! `../turns.rs`.
//!
//! `candle-turns unet|vae_decode SIDE`: SIDE is the latent's; a line on standard input runs the network once.

use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use candle_transformers::models::stable_diffusion::unet_2d::{
    BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig,
};
use candle_transformers::models::stable_diffusion::vae::{AutoEncoderKL, AutoEncoderKLConfig};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, side) = match &arguments[..] {
        [name, side] => (name.as_str(), side.parse::<usize>().map_err(Error::wrap)?),
        _ => return Err(Error::Msg("usage: candle-turns unet|vae_decode SIDE".into())),
    };
    let device = Device::Cpu;
    let weights = VarBuilder::from_backend(Box::new(Random), DType::F32, device.clone());
    let x = Tensor::randn(0f32, 1f32, (1, 4, side, side), &device)?;
    let run: Box<dyn Fn() -> Result<Tensor>> = match name {
        "unet" => {
            let unet = UNet2DConditionModel::new(weights, 4, 4, false, sd1())?;
            let context = Tensor::randn(0f32, 1f32, (1, 77, 768), &device)?;
            Box::new(move || unet.forward(&x, 500.0, &context))
        }
        "vae_decode" => {
            let config = AutoEncoderKLConfig {
                block_out_channels: vec![128, 256, 512, 512],
                layers_per_block: 2,
                ..AutoEncoderKLConfig::default()
            };
            let vae = AutoEncoderKL::new(weights, 3, 3, config)?;
            Box::new(move || vae.decode(&x))
        }
        _ => return Err(Error::Msg(format!("no workload {name}"))),
    };
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        let first = run()?.flatten_all()?.get(0)?.to_scalar::<f32>()?;
        let seconds = start.elapsed().as_secs_f64();
        if !first.is_finite() {
            return Err(Error::Msg("the output is not finite".into()));
        }
        println!("{seconds}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The config.json of Stable Diffusion 1.5's U-Net.
fn sd1() -> UNet2DConditionModelConfig {
    let block =
        |out_channels, use_cross_attn| BlockConfig { out_channels, use_cross_attn, attention_head_dim: 8 };
    UNet2DConditionModelConfig {
        blocks: vec![block(320, Some(1)), block(640, Some(1)), block(1280, Some(1)), block(1280, None)],
        cross_attention_dim: 768,
        ..UNet2DConditionModelConfig::default()
    }
}

/// Weights of any name and shape, small enough that activations stay in range.
struct Random;

impl SimpleBackend for Random {
    fn get(
        &self,
        shape: Shape,
        _: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let fan_in: usize = shape.dims().iter().skip(1).product();
        let scale = if shape.rank() == 1 { 0.5 } else { (3.0 / fan_in as f64).sqrt() };
        Tensor::rand(-scale as f32, scale as f32, shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        Err(Error::Msg(format!("{name}: no shape is known")))
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

//! What the benches run: Stable Diffusion 1.5's networks at 256 pixels, with weights that cost nothing to make.

#![allow(clippy::expect_used, reason = "a bench ends where its model cannot be made")]

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ldm_unet::presets::Preset;
use ldm_unet::{Conditioning, PerLevel, UNet, UNetConfig};
use ldm_vae::{AutoencoderKl, KlPreset, VqModel, VqPreset};

/// One network with its inputs; runs as often as asked.
pub enum Workload {
    /// A 32x32 latent, batch 1, 77 tokens of context.
    UNet(Box<UNet>, Tensor<4>, Box<Conditioning>),
    /// A 32x32 latent, batch 1.
    VaeDecode(Box<AutoencoderKl>, Tensor<4>),
    /// vq-f8's decoder, quantiser included: a 32x32 latent, batch 1.
    VqDecode(Box<VqModel>, Tensor<4>),
    /// Loss and gradients of a small text-conditional U-Net: 16x16 latents, batch 32, 16 tokens of context.
    Train(Box<UNet>, Tensor<4>, Box<Conditioning>),
}

/// The U-Net of the training workload: attention at 8x8 and 4x4.
pub fn small_unet() -> UNetConfig {
    UNetConfig {
        num_res_blocks: PerLevel::All(1),
        attention_resolutions: vec![2, 4],
        channel_mult: vec![1.0, 2.0, 3.0],
        num_heads: Some(PerLevel::All(4)),
        use_spatial_transformer: true,
        context_dim: Some(128),
        legacy: false,
        ..UNetConfig::new(4, 96, 4)
    }
}

impl Workload {
    /// `unet`, `vae_decode`, `vq_decode` or `train`.
    pub fn new(name: &str, device: &Device) -> Self {
        match name {
            "unet" => {
                let unet = Preset::Sd1.config().init(device).expect("a published config");
                let context = values([1, 77, 768], 1.0, device);
                let unet = Box::new(unet.map(&mut Cheap));
                let conditioning = Box::new(Conditioning::context(context));
                Self::UNet(unet, values([1, 4, 32, 32], 1.0, device), conditioning)
            }
            "vae_decode" => {
                let preset = KlPreset::find("stable-diffusion-v1").expect("a published preset");
                let vae = preset.config().init(device).expect("a published config");
                Self::VaeDecode(Box::new(vae.map(&mut Cheap)), values([1, 4, 32, 32], 1.0, device))
            }
            "train" => {
                let device = device.clone().autodiff();
                let unet = small_unet().init(&device).expect("a valid config").map(&mut Cheap);
                let context = values([32, 16, 128], 1.0, &device);
                let z = values([32, 4, 16, 16], 1.0, &device);
                Self::Train(Box::new(unet), z, Box::new(Conditioning::context(context)))
            }
            "vq_decode" => {
                let preset = VqPreset::find("vq-f8").expect("a published preset");
                let vq = preset.config().init(device).expect("a published config");
                Self::VqDecode(Box::new(vq.map(&mut Cheap)), values([1, 4, 32, 32], 1.0, device))
            }
            _ => panic!("no workload {name}"),
        }
    }

    /// One pass, forward or with gradients, to the end of the device's work.
    pub fn run(&self) -> f32 {
        match self {
            Self::UNet(unet, x, conditioning) => {
                let t = Tensor::from_floats([500.0], &x.device());
                finish(unet.forward(x.clone(), t, conditioning).expect("fitting inputs"))
            }
            Self::Train(unet, z, conditioning) => {
                let t = Tensor::full([32], 500.0, &z.device());
                let output = unet.forward(z.clone(), t, conditioning).expect("fitting inputs");
                let loss = (output - z.clone()).square().mean();
                let gradients = loss.backward();
                let first = unet.conv_in.weight.val();
                finish(first.grad(&gradients).expect("a gradient"))
            }
            Self::VaeDecode(vae, z) => finish(vae.decode(z.clone()).expect("a fitting latent")),
            Self::VqDecode(vq, z) => finish(vq.decode(z.clone()).expect("a fitting latent")),
        }
    }
}

/// Every device that this build has and this machine offers.
pub fn devices() -> impl Iterator<Item = (&'static str, Device)> {
    ldm::DEVICES.iter().filter_map(|name| Some((*name, ldm::device(name).ok()?)))
}

/// Waits for the tensor and gives its first value.
pub fn finish(x: Tensor<4>) -> f32 {
    x.slice([0..1, 0..1, 0..1, 0..1]).into_scalar()
}

/// Gives every parameter small values that keep activations in range: a table, read again and again.
struct Cheap;

impl ModuleMapper for Cheap {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        let fan_in: usize = shape[1..].iter().product();
        let scale = if D == 1 { 0.5 } else { (3.0 / fan_in as f32).sqrt() };
        let device = param.lazy_device();
        let values = values(shape.dims::<D>(), scale, &device);
        Param::initialized(param.id, if device.is_autodiff() { values.require_grad() } else { values })
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        param
    }
}

/// Uniform in `[-scale, scale)`.
pub fn values<const D: usize>(shape: [usize; D], scale: f32, device: &Device) -> Tensor<D> {
    // A prime length, so that rows of a matrix differ.
    let table: Vec<f32> = (1..=65_521u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0) * scale)
        .collect();
    let n = shape.iter().product();
    let mut values = Vec::with_capacity(n);
    while values.len() < n {
        let len = table.len().min(n - values.len());
        values.extend_from_slice(&table[..len]);
    }
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

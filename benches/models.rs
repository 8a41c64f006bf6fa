//! What the benches run: Stable Diffusion 1.5's networks at 256 pixels, with weights that cost nothing to make.

#![allow(clippy::expect_used, reason = "a bench ends where its model cannot be made")]

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ldm_unet::presets::Preset;
use ldm_unet::{Conditioning, UNet};
use ldm_vae::{AutoencoderKl, KlPreset};

/// One network with its inputs; runs as often as asked.
pub enum Workload {
    /// A 32x32 latent, batch 1, 77 tokens of context.
    UNet(Box<UNet>, Tensor<4>, Box<Conditioning>),
    /// A 32x32 latent, batch 1.
    VaeDecode(Box<AutoencoderKl>, Tensor<4>),
}

impl Workload {
    /// `unet` or `vae_decode`.
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
            _ => panic!("no workload {name}"),
        }
    }

    /// One forward pass, to the end of the device's work.
    pub fn run(&self) -> f32 {
        match self {
            Self::UNet(unet, x, conditioning) => {
                let t = Tensor::from_floats([500.0], &x.device());
                finish(unet.forward(x.clone(), t, conditioning).expect("fitting inputs"))
            }
            Self::VaeDecode(vae, z) => finish(vae.decode(z.clone()).expect("a fitting latent")),
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
        Param::initialized(param.id, values(shape.dims::<D>(), scale, &device))
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

//! One pass of one network.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ldm_nn::weights::attentions_together;
use ldm_unet::presets::Preset;
use ldm_unet::{Conditioning, UNet, UNetConfig};
use ldm_vae::{AutoencoderKl, KlPreset, VqPreset};

use super::{Cheap, Pass, Place, Size, finish, values};

/// Stable Diffusion 1.5's U-Net.
pub fn sd1() -> UNetConfig {
    Preset::Sd1.config()
}

/// A U-Net with weights.
pub fn unet_of(config: &UNetConfig, place: &Place) -> UNet {
    attentions_together(config.init(&place.device).expect("a valid config").map(&mut Cheap(place.dtype)))
}

/// The first stage of a published model, with weights.
pub fn vae_of(preset: &str, place: &Place) -> AutoencoderKl {
    let config = KlPreset::find(preset).expect("a published preset").config();
    config.init(&place.device).expect("a published config").map(&mut Cheap(place.dtype))
}

/// The first stage of Stable Diffusion 1.5.
pub fn sd1_vae(place: &Place) -> AutoencoderKl {
    vae_of("stable-diffusion-v1", place)
}

/// A timestep for all items.
pub fn timestep(t: f32, device: &Device) -> Tensor<1> {
    Tensor::from_floats([t], device)
}

/// Stable Diffusion 1.5's U-Net, 77 tokens of context.
pub fn unet(Size { side, batch, .. }: Size, place: &Place) -> Pass {
    let unet = unet_of(&sd1(), place);
    let x = values([batch, 4, side, side], 1.0, place);
    let conditioning = Conditioning::context(values([batch, 77, 768], 1.0, place));
    Box::new(move || {
        let t = timestep(500.0, &x.device());
        finish(unet.forward(x.clone(), t, &conditioning).expect("fitting inputs"))
    })
}

/// Stable Diffusion's decoder.
pub fn vae_decode(Size { side, batch, .. }: Size, place: &Place) -> Pass {
    let (vae, z) = (sd1_vae(place), values([batch, 4, side, side], 1.0, place));
    Box::new(move || finish(vae.decode(z.clone()).expect("a fitting latent")))
}

/// Stable Diffusion's encoder.
pub fn vae_encode(Size { side, batch, .. }: Size, place: &Place) -> Pass {
    let (vae, x) = (sd1_vae(place), values([batch, 3, 8 * side, 8 * side], 1.0, place));
    Box::new(move || finish(vae.encode(x.clone()).expect("a fitting picture").mode()))
}

/// vq-f8's decoder with its 16,384 codes, quantiser included.
pub fn vq_decode(Size { side, batch, .. }: Size, place: &Place) -> Pass {
    let config = VqPreset::find("vq-f8").expect("a published preset").config();
    let vq = config.init(&place.device).expect("a published config").map(&mut Cheap(place.dtype));
    let z = values([batch, 4, side, side], 1.0, place);
    Box::new(move || finish(vq.decode(z.clone()).expect("a fitting latent")))
}

/// Stable Diffusion 1.5's U-Net, then its decoder: both models are held.
pub fn unet_and_vae(size: Size, place: &Place) -> Pass {
    let (mut unet, mut decode) = (unet(size, place), vae_decode(size, place));
    Box::new(move || unet() + decode())
}

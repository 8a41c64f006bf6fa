//! One forward pass of a small U-Net, from a crate that knows nothing but burn and `ldm-unet`.

use burn::tensor::{Device, Tensor};
use ldm_unet::{Conditioning, PerLevel, UNetConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let mut config = UNetConfig::new(4, 32, 4);
    config.channel_mult = vec![1.0, 2.0];
    config.attention_resolutions = vec![2];
    config.num_heads = Some(PerLevel::All(4));
    config.use_spatial_transformer = true;
    config.context_dim = Some(16);
    let unet = config.init(&device)?;

    let latent = Tensor::<4>::ones([1, 4, 8, 8], &device);
    let timesteps = Tensor::<1>::full([1], 500.0, &device);
    let context = Tensor::<3>::ones([1, 5, 16], &device);
    let prediction = unet.forward(latent, timesteps, &Conditioning::context(context))?;

    assert_eq!(prediction.dims(), [1, 4, 8, 8]);
    println!("{} parameters; prediction {:?}", unet.parameter_count(), prediction.dims());
    Ok(())
}

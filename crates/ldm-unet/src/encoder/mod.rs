//! Half a U-Net: a classifier (or regressor) on noisy latents, for classifier guidance.

mod config;
mod head;
mod keys;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ldm_nn::{Conv2d, Conv2dConfig, silu};

use crate::blocks::Builder;
use crate::plan::Plan;
use crate::{ConfigError, DownBlock, MidBlock, TimestepEmbedding, UNetError, sinusoidal_embedding};

pub use config::{EncoderUNetConfig, Pool};
pub use head::{AdaptiveHead, AttentionHead, EncoderHead, SpatialHead};
pub use keys::EncoderKeys;

/// The way down and the middle of a U-Net, pooled to a vector: `EncoderUNetModel` of the reference's
/// `openaimodel.py`.
///
/// With the classes' logits as its output, `grad_x log softmax(output)[y]` guides a sampler (paper, appendix C;
/// Dhariwal and Nichol 2021): run it on an autodiff device.
#[derive(Module, Debug)]
pub struct EncoderUNet {
    /// `[in_channels -> model_channels]`, 3x3.
    pub conv_in: Conv2d,
    /// From the timestep's sinusoids.
    pub time_embedding: TimestepEmbedding,
    /// Finest level first.
    pub down_blocks: Vec<DownBlock>,
    /// At the coarsest level.
    pub mid_block: Option<MidBlock>,
    /// From the maps to the output.
    pub head: EncoderHead,
    #[module(skip)]
    config: EncoderUNetConfig,
}

impl EncoderUNetConfig {
    /// Creates the model; its parameters are made lazily.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names what doesn't fit, and keys that an encoder has no place for.
    pub fn init(&self, device: &Device) -> Result<EncoderUNet, ConfigError> {
        self.check()?;
        let unet = &self.unet;
        let plan = Plan::new(unet)?;
        let builder = Builder { config: unet, plan: &plan, device };
        let (c, width) = (unet.model_channels, unet.time_width());
        let channels = plan.levels.last().map_or(c, |level| level.channels);
        let head = head::Sizes {
            channels,
            features: plan.skips(c).iter().sum::<usize>() + channels,
            side: self.image_size >> (plan.levels.len() - 1),
            heads: plan.middle.as_ref().map_or(1, |attention| attention.heads),
            out: unet.out_channels,
            groups: unet.norm_num_groups,
            eps: unet.norm_eps,
        };
        Ok(EncoderUNet {
            conv_in: Conv2dConfig::new([unet.in_channels, c], 3).init(device),
            time_embedding: TimestepEmbedding::new(c, width, None, device),
            down_blocks: builder.down(),
            mid_block: builder.middle(),
            head: EncoderHead::new(self.pool, &head, device),
            config: self.clone(),
        })
    }
}

impl EncoderUNet {
    /// `x` `[b, in_channels, h, w]`, `timesteps` `[b]` (or `[1]` for all) -> `[b, out_channels]`, in the type of
    /// the weights.
    ///
    /// # Errors
    ///
    /// [`UNetError`] names the axis that has another size than the model takes.
    pub fn forward(&self, x: Tensor<4>, timesteps: Tensor<1>) -> Result<Tensor<2>, UNetError> {
        self.check(&x, &timesteps)?;
        let dtype = self.conv_in.weight.val().dtype();
        let unet = &self.config.unet;
        let t = sinusoidal_embedding(timesteps, unet.model_channels, unet.flip_sin_to_cos, unet.freq_shift);
        let [n, width] = t.dims();
        let b = x.dims()[0];
        let t = if n == b { t } else { t.expand([b, width]) };
        let time = silu(self.time_embedding.forward(t.cast(dtype), None));

        let mut x = self.conv_in.forward(x.cast(dtype));
        let mut maps = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &time, None, &mut maps);
        }
        if let Some(block) = &self.mid_block {
            x = block.forward(x, &time, None);
        }
        Ok(self.head.forward(maps, x))
    }

    /// The config that the model was made from.
    pub fn config(&self) -> &EncoderUNetConfig {
        &self.config
    }

    fn check(&self, x: &Tensor<4>, timesteps: &Tensor<1>) -> Result<(), UNetError> {
        let [b, channels, h, w] = x.dims();
        let size = |input, axis, expected, got| match expected == got {
            true => Ok(()),
            false => Err(UNetError::Shape { input, axis, expected, got }),
        };
        if b == 0 {
            return Err(UNetError::EmptyBatch);
        }
        size("x", "the number of channels", self.config.unet.in_channels, channels)?;
        if timesteps.dims()[0] != 1 {
            size("timesteps", "the batch", b, timesteps.dims()[0])?;
        }
        for (axis, side) in [("the height", h), ("the width", w)] {
            if self.config.pool == Pool::Attention {
                size("x", axis, self.config.image_size, side)?;
            }
            let downsamples = self.down_blocks.iter().filter_map(|block| block.downsample.as_ref());
            if downsamples.fold(side, |side, downsample| downsample.size(side)) == 0 {
                return Err(UNetError::TooSmall { axis, side, levels: self.down_blocks.len() });
            }
        }
        Ok(())
    }
}

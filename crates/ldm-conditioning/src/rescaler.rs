use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ldm_nn::{Conv2d, Conv2dConfig, InterpolateMethod, Interpolation};
use serde::{Deserialize, Serialize};

/// The params of `SpatialRescaler` in a CompVis YAML file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpatialRescalerConfig {
    /// How often the map is made smaller.
    #[serde(default = "one")]
    pub n_stages: usize,
    /// How pixels are joined.
    #[serde(default = "bilinear")]
    pub method: InterpolateMethod,
    /// What a stage multiplies both sides by.
    #[serde(default = "half")]
    pub multiplier: f64,
    /// Channels of the map.
    #[serde(default = "three")]
    pub in_channels: usize,
    /// Channels after a 1x1 convolution; without it the map keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_channels: Option<usize>,
    /// Whether the convolution has a bias.
    #[serde(default)]
    pub bias: bool,
}

/// Why a map can't be rescaled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpatialRescalerError {
    /// A config with a size that is no size.
    #[error("spatial rescaler's config: `{key}` = {value}: {reason}")]
    Config {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        reason: &'static str,
    },
    /// A map with another number of channels.
    #[error("the map has {got} channels, the rescaler takes {expected}")]
    Channels {
        /// `in_channels`.
        expected: usize,
        /// The map's.
        got: usize,
    },
    /// A map of which nothing is left.
    #[error("a map of {height}x{width} is too small for {n_stages} stages of {multiplier}")]
    TooSmall {
        /// The map's height.
        height: usize,
        /// The map's width.
        width: usize,
        /// The number of stages.
        n_stages: usize,
        /// What each multiplies the sides by.
        multiplier: f64,
    },
}

/// A map in pixels, made as small as the latent and mapped to a few channels.
///
/// Source: paper, section 4.3.2; `SpatialRescaler` in the reference's `encoders/modules.py`.
#[derive(Module, Debug)]
pub struct SpatialRescaler {
    /// `[in_channels -> out_channels]`, 1x1.
    pub channel_mapper: Option<Conv2d>,
    #[module(skip)]
    config: SpatialRescalerConfig,
}

impl SpatialRescalerConfig {
    /// `n_stages` halvings of a map of `in_channels`, bilinear, without a convolution.
    pub fn new(n_stages: usize, in_channels: usize) -> Self {
        let (method, multiplier) = (bilinear(), half());
        Self { n_stages, method, multiplier, in_channels, out_channels: None, bias: false }
    }

    /// Creates the rescaler.
    ///
    /// # Errors
    /// [`SpatialRescalerError::Config`] names the key.
    pub fn init(&self, device: &Device) -> Result<SpatialRescaler, SpatialRescalerError> {
        let wrong = |key, value: String, reason| Err(SpatialRescalerError::Config { key, value, reason });
        if !(self.multiplier > 0.0 && self.multiplier.is_finite()) {
            return wrong("multiplier", self.multiplier.to_string(), "above 0");
        }
        for (key, channels) in [("in_channels", Some(self.in_channels)), ("out_channels", self.out_channels)]
        {
            if channels == Some(0) {
                return wrong(key, "0".into(), "at least 1");
            }
        }
        let mapper =
            |c_out| Conv2dConfig::new([self.in_channels, c_out], 1).with_bias(self.bias).init(device);
        Ok(SpatialRescaler { channel_mapper: self.out_channels.map(mapper), config: self.clone() })
    }
}

impl SpatialRescaler {
    /// `[b, in_channels, h, w] -> [b, out_channels, h', w']`, each side times the multiplier, rounded down, in
    /// every stage.
    ///
    /// # Errors
    /// [`SpatialRescalerError::Channels`] and [`SpatialRescalerError::TooSmall`].
    pub fn forward(&self, map: Tensor<4>) -> Result<Tensor<4>, SpatialRescalerError> {
        let SpatialRescalerConfig { n_stages, method, multiplier, in_channels, .. } = self.config;
        let [_, channels, height, width] = map.dims();
        if channels != in_channels {
            return Err(SpatialRescalerError::Channels { expected: in_channels, got: channels });
        }
        let mut x = map;
        for _ in 0..n_stages {
            let [_, _, h, w] = x.dims();
            if (h.min(w) as f64 * multiplier) < 1.0 {
                return Err(SpatialRescalerError::TooSmall { height, width, n_stages, multiplier });
            }
            x = Interpolation::new(method).by_factor(x, multiplier);
        }
        Ok(match &self.channel_mapper {
            Some(conv) => {
                let dtype = conv.weight.val().dtype();
                conv.forward(x.cast(dtype))
            }
            None => x,
        })
    }

    /// What the rescaler was made from.
    pub fn config(&self) -> &SpatialRescalerConfig {
        &self.config
    }
}

fn one() -> usize {
    1
}

fn bilinear() -> InterpolateMethod {
    InterpolateMethod::Bilinear
}

fn half() -> f64 {
    0.5
}

fn three() -> usize {
    3
}

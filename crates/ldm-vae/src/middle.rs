use burn::module::Module;
use burn::tensor::{Device, Tensor};
use ldm_nn::{ResnetBlock, ResnetBlockConfig};

use crate::encoder::EPS;
use crate::{AttentionBlock, DdConfig};

/// Two residual blocks around attention, at the smallest size of encoder and decoder.
#[derive(Module, Debug)]
pub struct Middle {
    /// Before attention.
    pub resnet_1: ResnetBlock,
    /// Where the config has it.
    pub attention: Option<AttentionBlock>,
    /// After attention.
    pub resnet_2: ResnetBlock,
}

impl Middle {
    pub(crate) fn new(config: &DdConfig, device: &Device) -> Self {
        let (c, groups) = (config.channels(config.levels() - 1), config.norm_num_groups);
        let resnet = || ResnetBlockConfig::new([c, c], groups, EPS).with_dropout(config.dropout).init(device);
        Self {
            resnet_1: resnet(),
            attention: config.attention_in_middle().then(|| AttentionBlock::new(c, groups, device)),
            resnet_2: resnet(),
        }
    }

    /// `[b, c, h, w] -> [b, c, h, w]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.resnet_1.forward(x, None);
        let x = match &self.attention {
            Some(attention) => attention.forward(x),
            None => x,
        };
        self.resnet_2.forward(x, None)
    }
}

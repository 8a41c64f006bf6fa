//! Configs told by a single file's keys and shapes: it carries none, and every part's sizes show in its
//! tensors. What does not show (heads, latent size) is the family's.

use ldm_nn::weights::WeightFile;
use ldm_unet::{AddedEmbedding, PerLevel, UNetConfig};
use ldm_vae::{AutoencoderKlConfig, KlPreset};

/// How a family splits channels into heads; that does not show in a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heads {
    /// This many at every level.
    Count(usize),
    /// As many as there are channels of this width.
    Width(usize),
}

/// What a walk over one level finds.
#[derive(Default)]
struct Level {
    channels: usize,
    blocks: usize,
    /// Transformer blocks of its spatial transformers; 0 without.
    depth: usize,
}

/// The tensors under a prefix.
pub(super) struct Shapes<'a> {
    file: &'a WeightFile,
    prefix: &'static str,
}

impl<'a> Shapes<'a> {
    pub fn new(file: &'a WeightFile, prefix: &'static str) -> Self {
        Self { file, prefix }
    }

    fn of(&self, key: &str) -> Option<&'a [usize]> {
        self.file.info(&format!("{}{key}", self.prefix)).map(|info| info.shape.as_slice())
    }

    /// One axis of a tensor's shape.
    fn axis(&self, key: &str, axis: usize) -> Option<usize> {
        self.of(key)?.get(axis).copied()
    }

    /// How many of `key(0)`, `key(1)`, ... there are.
    fn count(&self, key: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|i| self.of(&key(*i)).is_some()).count()
    }

    /// A U-Net with CompVis' names and spatial transformers.
    pub fn unet(&self, heads: Heads) -> Option<UNetConfig> {
        let [model_channels, in_channels] = [0, 1].map(|axis| self.axis("input_blocks.0.0.weight", axis));
        let (model_channels, in_channels) = (model_channels?.max(1), in_channels?);
        let mut config = UNetConfig::new(in_channels, model_channels, self.axis("out.2.weight", 0)?);

        let levels = self.unet_levels();
        let multiple = |level: &Level| level.channels as f64 / model_channels as f64;
        let with_attention = levels.iter().enumerate().filter(|(_, level)| level.depth > 0);
        config.attention_resolutions = with_attention.map(|(i, _)| 1 << i.min(31)).collect();
        config.channel_mult = levels.iter().map(multiple).collect();
        config.num_res_blocks = PerLevel::Each(levels.iter().map(|level| level.blocks).collect());
        config.transformer_depth = PerLevel::Each(levels.iter().map(|level| level.depth.max(1)).collect());
        config.transformer_depth_middle = Some(self.depth("middle_block.1"));
        config.use_spatial_transformer = true;

        let middle = "middle_block.1";
        config.context_dim = self.axis(&format!("{middle}.transformer_blocks.0.attn2.to_k.weight"), 1);
        config.use_linear_in_transformer = self.of(&format!("{middle}.proj_in.weight"))?.len() == 2;
        match heads {
            Heads::Count(n) => config.num_heads = Some(PerLevel::All(n)),
            Heads::Width(n) => {
                config.num_head_channels = Some(PerLevel::All(n));
                config.legacy = false;
            }
        }
        if let Some(width) = self.axis("label_emb.0.0.weight", 1) {
            config.addition_embed_type = Some(AddedEmbedding::TextTime);
            config.addition_time_embed_dim = Some(256);
            config.adm_in_channels = Some(width);
        }
        Some(config)
    }

    /// Residual blocks and downsamplings are numbered in one row; a downsampling ends a level.
    fn unet_levels(&self) -> Vec<Level> {
        let (mut levels, mut level) = (Vec::new(), Level::default());
        for n in 1.. {
            if let Some(channels) = self.axis(&format!("input_blocks.{n}.0.in_layers.2.weight"), 0) {
                level.channels = channels;
                level.blocks += 1;
                level.depth = self.depth(&format!("input_blocks.{n}.1"));
            } else if self.of(&format!("input_blocks.{n}.0.op.weight")).is_some() {
                levels.push(std::mem::take(&mut level));
            } else {
                break;
            }
        }
        levels.push(level);
        levels
    }

    fn depth(&self, transformer: &str) -> usize {
        self.count(|i| format!("{transformer}.transformer_blocks.{i}.norm1.weight"))
    }

    /// A KL first stage with CompVis' names, whose scaling is that of `preset`.
    pub fn vae(&self, preset: &KlPreset) -> Option<AutoencoderKlConfig> {
        let mut config = preset.config();
        let dd = &mut config.ddconfig;
        dd.ch = self.axis("encoder.conv_in.weight", 0)?.max(1);
        dd.in_channels = self.axis("encoder.conv_in.weight", 1)?;
        dd.out_ch = self.axis("decoder.conv_out.weight", 0)?;
        dd.z_channels = self.axis("decoder.conv_in.weight", 1)?;
        dd.num_res_blocks = self.count(|j| format!("encoder.down.0.block.{j}.conv1.weight"));
        let levels = self.count(|i| format!("encoder.down.{i}.block.0.conv1.weight"));
        let width = |i: usize| self.axis(&format!("encoder.down.{i}.block.0.conv1.weight"), 0);
        let base = dd.ch as f64;
        dd.ch_mult = (0..levels).map(|i| Some(width(i)? as f64 / base)).collect::<Option<_>>()?;
        config.embed_dim = self.axis("post_quant_conv.weight", 1).unwrap_or(dd.z_channels);
        Some(config)
    }
}

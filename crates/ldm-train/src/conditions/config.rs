use ldm_conditioning::{CondStageConfig, LayoutTokenizer};
use serde::{Deserialize, Serialize};

use crate::RunError;
use crate::config::{DiffusionConfig, EncoderSection};

/// What conditions are made of: the section `data.condition`, told apart by its `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ConditionConfig {
    /// Nothing: an unconditional model.
    None,
    /// The samples' captions; none: the empty text.
    Captions,
    /// The samples' classes (`data.source.class_key`, folders of classes, `.cls`).
    Classes {
        /// The class that stands for none, such as 1000 of 1,001.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        null_class: Option<i64>,
    },
    /// The picture itself.
    Picture,
    /// The second picture of each sample (`data.source.map_suffix`): a picture, or labels as one channel a class
    /// (`data.loader.map.kind: labels`).
    Map {
        /// The number of classes of a map of labels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        classes: Option<usize>,
    },
    /// The picture made smaller (bicubic, antialiased): super-resolution.
    LowResolution {
        /// By how much each side is divided.
        factor: usize,
    },
    /// The picture made smaller as a degradation of the reference's data does it, such as `bsrgan_light`. This crate has
    /// none: `ldm::degradation::Worn` makes them, as the training's own conditions.
    Degraded {
        /// The degradation's name.
        degradation: String,
        /// By how much each side is divided.
        factor: usize,
    },
    /// The first stage's latent of the picture with a hole, and the hole: inpainting. Holes are drawn anew each time.
    Masked,
    /// The objects of each sample (`data.source.objects_key`) as tokens, in a new order each time, with the crop.
    Layouts {
        /// The number of classes.
        no_object_classes: usize,
        /// Objects a layout; fewer are padded.
        #[serde(default = "thirty")]
        no_max_objects: usize,
        /// The size of the vocabulary; its last token pads.
        #[serde(default = "vocabulary")]
        no_tokens: usize,
        /// Ends with two tokens for the crop; otherwise boxes are taken relative to it.
        #[serde(default = "yes")]
        encode_crop: bool,
        /// Whether `is_group_of` counts.
        #[serde(default = "yes")]
        use_group_parameter: bool,
        /// Whether `is_occluded`, `is_depiction` and `is_inside` count.
        #[serde(default = "yes")]
        use_additional_parameters: bool,
    },
    /// The first stage's latent of another condition, which is a picture (`__is_first_stage__`).
    FirstStage {
        /// The picture.
        of: Box<ConditionConfig>,
    },
    /// Two conditions, for two encoders.
    Both {
        /// For the first one.
        first: Box<ConditionConfig>,
        /// For the second one.
        second: Box<ConditionConfig>,
    },
}

fn thirty() -> usize {
    30
}

fn vocabulary() -> usize {
    8192
}

fn yes() -> bool {
    true
}

impl ConditionConfig {
    /// Layouts of `no_object_classes` classes, as the paper's models have them.
    pub fn layouts(no_object_classes: usize) -> Self {
        Self::Layouts {
            no_object_classes,
            no_max_objects: thirty(),
            no_tokens: vocabulary(),
            encode_crop: true,
            use_group_parameter: true,
            use_additional_parameters: true,
        }
    }

    /// What the conditions of a model are made of: `given` (`data.condition`), else what its `cond_stage_key` means, else
    /// what its encoder takes.
    ///
    /// # Errors
    ///
    /// [`RunError::NoConditions`] where nothing says it, [`RunError::Degradation`] for what this crate does not make.
    pub fn of_model(model: &DiffusionConfig, given: Option<&Self>) -> Result<Self, RunError> {
        let Some(section) = &model.cond_stage else { return Ok(given.cloned().unwrap_or(Self::None)) };
        let unknown = |what: &str| RunError::NoConditions { what: what.into() };
        let config = match (given, section) {
            (Some(given), _) => given.clone(),
            (None, EncoderSection::Both(_)) => return Err(unknown("two encoders need two conditions")),
            (None, _) => match &model.cond_stage_key {
                Some(key) => Self::of_key(key, model, section)?,
                None => Self::of_encoder(section).ok_or_else(|| {
                    unknown("`cond_stage_key` is not given, and the encoder takes anything")
                })?,
            },
        };
        if let Some(degradation) = config.degradation() {
            return Err(RunError::Degradation { degradation: degradation.into() });
        }
        Ok(match (section, config) {
            // The hole is encoded with what it is cut from, and not itself.
            (EncoderSection::FirstStage, config @ (Self::Masked | Self::FirstStage { .. })) => config,
            (EncoderSection::FirstStage, config) => Self::FirstStage { of: Box::new(config) },
            (_, config) => config,
        })
    }

    /// The degradation that it needs, at any depth.
    fn degradation(&self) -> Option<&str> {
        match self {
            Self::Degraded { degradation, .. } => Some(degradation),
            Self::FirstStage { of } => of.degradation(),
            Self::Both { first, second } => first.degradation().or_else(|| second.degradation()),
            _ => None,
        }
    }

    /// The keys of the reference's data sets.
    fn of_key(key: &str, model: &DiffusionConfig, section: &EncoderSection) -> Result<Self, RunError> {
        let encoder = match section {
            EncoderSection::Encoder(config) => Some(&config.stage),
            _ => None,
        };
        Ok(match key {
            "caption" | "txt" | "text" => Self::Captions,
            "class_label" | "class" | "cls" => Self::Classes { null_class: None },
            "segmentation" => Self::Map {
                classes: match encoder {
                    Some(CondStageConfig::SpatialRescaler(config)) => Some(config.in_channels),
                    _ => None,
                },
            },
            "LR_image" => Self::LowResolution { factor: model.first_stage.factor() },
            "masked_image" => Self::Masked,
            "coordinates_bbox" | "objects_bbox" => {
                let what = format!("`cond_stage_key` is {key}, and the number of classes is not known");
                return Err(RunError::NoConditions { what });
            }
            key if key == model.first_stage_key => Self::Picture,
            _ => {
                let what = format!("`cond_stage_key` is {key}, which means nothing here");
                return Err(RunError::NoConditions { what });
            }
        })
    }

    /// What an encoder takes that takes one thing only.
    fn of_encoder(section: &EncoderSection) -> Option<Self> {
        let EncoderSection::Encoder(config) = section else { return Some(Self::Picture) };
        match &config.stage {
            CondStageConfig::ClassEmbedder(_) => Some(Self::Classes { null_class: None }),
            CondStageConfig::BertEmbedder(config) if config.use_tokenizer => Some(Self::Captions),
            CondStageConfig::ClipTextEmbedder(_) => Some(Self::Captions),
            CondStageConfig::ClipImageEmbedder(_) => Some(Self::Picture),
            _ => None,
        }
    }

    /// The tokenizer of layouts.
    pub(super) fn tokenizer(&self) -> Option<LayoutTokenizer> {
        let &Self::Layouts {
            no_object_classes,
            no_max_objects,
            no_tokens,
            encode_crop,
            use_group_parameter,
            use_additional_parameters,
        } = self
        else {
            return None;
        };
        Some(LayoutTokenizer {
            no_object_classes,
            no_max_objects,
            no_tokens,
            encode_crop,
            use_group_parameter,
            use_additional_parameters,
        })
    }
}

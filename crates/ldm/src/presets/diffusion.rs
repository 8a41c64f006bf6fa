//! The published diffusion models as a table.

use serde_json::{Value, json};

use super::{Figures, first_stage};
use crate::{CondStageTarget, ConditioningKey, LatentDiffusionConfig, Target};

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Pictures of one kind, from noise alone.
    Unconditional,
    /// Pictures of a class.
    ClassConditional,
    /// Pictures of a text.
    TextToImage,
    /// Pictures with objects in given boxes.
    LayoutToImage,
    /// Pictures of a map of classes.
    SemanticSynthesis,
    /// Four times larger pictures.
    SuperResolution,
    /// Pictures with a part painted anew.
    Inpainting,
    /// Pictures like those that CLIP embeddings stand for.
    RetrievalAugmented,
}

/// A diffusion model that was published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LdmPreset {
    /// Its name: the folder of the reference repository, the paper's spelling for CelebA-HQ.
    pub name: &'static str,
    /// Its config in the reference repository.
    pub file: &'static str,
    /// What it is for.
    pub task: Task,
    /// What it was trained on.
    pub dataset: &'static str,
    /// The first stage whose latents it draws, one of [`FIRST_STAGES`](super::FIRST_STAGES).
    pub first_stage: &'static str,
    /// What the model zoo and the paper report, the zoo's where they differ: the paper has 500 steps for CelebA-HQ and
    /// 200 for LSUN-Churches (table 1), and FIDs of 15.51 and 7.76 for `cin256` (table 10). `inpainting_big` has
    /// the FID after fine-tuning at 512 pixels, over all samples (table 7).
    pub figures: &'static [Figures],
    row: Row,
}

/// What differs between the models' configs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    /// Side of the latent.
    size: usize,
    channels: usize,
    /// Channels of the condition beside the latent's.
    concat: usize,
    linear: [f64; 2],
    l1: bool,
    use_ema: bool,
    scale_factor: f64,
    scale_by_std: bool,
    keys: [&'static str; 2],
    trainable: bool,
    width: usize,
    attention: &'static [usize],
    mult: &'static [usize],
    heads: Heads,
    /// Width of the context and blocks of a transformer; with it the U-Net has cross-attention.
    context: Option<(usize, usize)>,
    scale_shift: bool,
    updown: bool,
    legacy: bool,
    cond: Cond,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Heads {
    Count(usize),
    Width(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Cond {
    Unconditional,
    FirstStage,
    Identity,
    /// `n_classes` where the file says it.
    Classes(Option<usize>),
    Text {
        n_embed: usize,
        n_layer: usize,
    },
    Boxes,
    Map,
}

/// The most frequent values; each model overrides what is its own.
const BASE: Row = Row {
    size: 64,
    channels: 3,
    concat: 0,
    linear: [0.0015, 0.0195],
    l1: false,
    use_ema: true,
    scale_factor: 1.0,
    scale_by_std: false,
    keys: ["image", "class_label"],
    trainable: false,
    width: 224,
    attention: &[8, 4, 2],
    mult: &[1, 2, 3, 4],
    heads: Heads::Width(32),
    context: None,
    scale_shift: false,
    updown: false,
    legacy: true,
    cond: Cond::Unconditional,
};

const SEMANTIC: Row = Row {
    concat: 3,
    linear: [0.0015, 0.0205],
    l1: true,
    keys: ["image", "segmentation"],
    trainable: true,
    width: 128,
    attention: &[32, 16, 8],
    mult: &[1, 4, 8],
    heads: Heads::Count(8),
    cond: Cond::Map,
    ..BASE
};

const fn figures(fid: f64, inception_score: f64, steps: usize, eta: Option<f64>) -> Figures {
    Figures {
        fid: Some(fid),
        inception_score: Some(inception_score),
        steps: Some(steps),
        eta,
        ..Figures::NONE
    }
}

const fn all_figures([fid, is, precision, recall]: [f64; 4], steps: usize, eta: Option<f64>) -> Figures {
    Figures { precision: Some(precision), recall: Some(recall), ..figures(fid, is, steps, eta) }
}

/// All fourteen, as in `models/ldm` and `configs` of CompVis/latent-diffusion, its model zoo and the paper's tables.
pub const LDMS: &[LdmPreset] = &[
    LdmPreset {
        name: "celebahq256",
        file: "models/ldm/celeba256/config.yaml",
        task: Task::Unconditional,
        dataset: "CelebA-HQ",
        first_stage: "vq-f4",
        figures: &[all_figures([5.11, 3.29, 0.72, 0.49], 200, Some(0.0))],
        row: BASE,
    },
    LdmPreset {
        name: "ffhq256",
        file: "models/ldm/ffhq256/config.yaml",
        task: Task::Unconditional,
        dataset: "FFHQ",
        first_stage: "vq-f4",
        figures: &[all_figures([4.98, 4.50, 0.73, 0.50], 200, Some(1.0))],
        row: BASE,
    },
    LdmPreset {
        name: "lsun_churches256",
        file: "models/ldm/lsun_churches256/config.yaml",
        task: Task::Unconditional,
        dataset: "LSUN-Churches",
        first_stage: "kl-f8",
        figures: &[all_figures([4.02, 2.72, 0.64, 0.52], 400, Some(0.0))],
        row: Row {
            size: 32,
            channels: 4,
            linear: [0.0015, 0.0155],
            l1: true,
            scale_by_std: true,
            keys: ["image", "image"],
            width: 192,
            attention: &[1, 2, 4, 8],
            mult: &[1, 2, 2, 4, 4],
            heads: Heads::Count(8),
            scale_shift: true,
            updown: true,
            ..BASE
        },
    },
    LdmPreset {
        name: "lsun_beds256",
        file: "models/ldm/lsun_beds256/config.yaml",
        task: Task::Unconditional,
        dataset: "LSUN-Bedrooms",
        first_stage: "vq-f4",
        figures: &[all_figures([2.95, 2.22, 0.66, 0.48], 200, Some(1.0))],
        row: BASE,
    },
    LdmPreset {
        name: "cin256",
        file: "models/ldm/cin256/config.yaml",
        task: Task::ClassConditional,
        dataset: "ImageNet",
        first_stage: "vq-f8",
        figures: &[
            all_figures([15.82, 78.82, 0.65, 0.63], 200, Some(1.0)),
            Figures {
                guidance: Some("classifier, scale 10"),
                ..all_figures([7.77, 201.56, 0.84, 0.35], 200, Some(1.0))
            },
        ],
        row: Row {
            size: 32,
            channels: 4,
            trainable: true,
            width: 256,
            attention: &[4, 2, 1],
            mult: &[1, 2, 4],
            context: Some((512, 1)),
            cond: Cond::Classes(None),
            ..BASE
        },
    },
    LdmPreset {
        name: "cin256-v2",
        file: "configs/latent-diffusion/cin256-v2.yaml",
        task: Task::ClassConditional,
        dataset: "ImageNet",
        first_stage: "vq-f4",
        figures: &[
            all_figures([10.56, 103.49, 0.71, 0.62], 250, None),
            Figures {
                guidance: Some("classifier-free, scale 1.5"),
                ..all_figures([3.60, 247.67, 0.87, 0.48], 250, None)
            },
        ],
        row: Row {
            use_ema: false,
            trainable: true,
            width: 192,
            mult: &[1, 2, 3, 5],
            heads: Heads::Count(1),
            context: Some((512, 1)),
            cond: Cond::Classes(Some(1001)),
            ..BASE
        },
    },
    LdmPreset {
        name: "text2img256",
        file: "models/ldm/text2img256/config.yaml",
        task: Task::TextToImage,
        dataset: "Conceptual Captions, after LAION",
        first_stage: "vq-f4",
        figures: &[figures(16.79, 13.89, 100, Some(0.0))],
        row: Row {
            keys: ["image", "caption"],
            trainable: true,
            width: 192,
            mult: &[1, 2, 3, 5],
            context: Some((640, 1)),
            cond: Cond::Text { n_embed: 640, n_layer: 32 },
            ..BASE
        },
    },
    LdmPreset {
        name: "txt2img-1p4B",
        file: "configs/latent-diffusion/txt2img-1p4B-eval.yaml",
        task: Task::TextToImage,
        dataset: "LAION-400M",
        first_stage: "kl-f8",
        figures: &[
            figures(23.31, 20.03, 250, None),
            Figures { guidance: Some("classifier-free, scale 1.5"), ..figures(12.63, 30.29, 250, None) },
        ],
        row: Row {
            size: 32,
            channels: 4,
            linear: [0.00085, 0.012],
            use_ema: false,
            scale_factor: 0.18215,
            keys: ["image", "caption"],
            trainable: true,
            width: 320,
            attention: &[4, 2, 1],
            mult: &[1, 2, 4, 4],
            heads: Heads::Count(8),
            context: Some((1280, 1)),
            legacy: false,
            cond: Cond::Text { n_embed: 1280, n_layer: 32 },
            ..BASE
        },
    },
    LdmPreset {
        name: "layout2img-openimages256",
        file: "models/ldm/layout2img-openimages256/config.yaml",
        task: Task::LayoutToImage,
        dataset: "OpenImages",
        first_stage: "vq-f4",
        figures: &[figures(32.02, 15.92, 200, Some(0.0))],
        row: Row {
            linear: [0.0015, 0.0205],
            l1: true,
            keys: ["image", "coordinates_bbox"],
            trainable: true,
            width: 128,
            context: Some((512, 3)),
            cond: Cond::Boxes,
            ..BASE
        },
    },
    LdmPreset {
        name: "semantic_synthesis256",
        file: "models/ldm/semantic_synthesis256/config.yaml",
        task: Task::SemanticSynthesis,
        dataset: "Landscapes",
        first_stage: "vq-f4",
        figures: &[],
        row: SEMANTIC,
    },
    LdmPreset {
        name: "semantic_synthesis512",
        file: "models/ldm/semantic_synthesis512/config.yaml",
        task: Task::SemanticSynthesis,
        dataset: "Landscapes, finetuned at 512x512",
        first_stage: "vq-f4",
        figures: &[],
        row: Row { size: 128, ..SEMANTIC },
    },
    LdmPreset {
        name: "bsr_sr",
        file: "models/ldm/bsr_sr/config.yaml",
        task: Task::SuperResolution,
        dataset: "OpenImages, degraded by bsrgan_light",
        first_stage: "vq-f4",
        figures: &[],
        row: Row {
            concat: 3,
            linear: [0.0015, 0.0155],
            keys: ["image", "LR_image"],
            width: 160,
            attention: &[16, 8],
            mult: &[1, 2, 2, 4],
            cond: Cond::Identity,
            ..BASE
        },
    },
    LdmPreset {
        name: "inpainting_big",
        file: "models/ldm/inpainting_big/config.yaml",
        task: Task::Inpainting,
        dataset: "Places",
        first_stage: "vq-f4-noattn",
        figures: &[Figures { fid: Some(1.50), ..Figures::NONE }],
        row: Row {
            concat: 4,
            linear: [0.0015, 0.0205],
            l1: true,
            keys: ["image", "masked_image"],
            width: 256,
            heads: Heads::Count(8),
            updown: true,
            cond: Cond::FirstStage,
            ..BASE
        },
    },
    LdmPreset {
        name: "rdm768x768",
        file: "configs/retrieval-augmented-diffusion/768x768.yaml",
        task: Task::RetrievalAugmented,
        dataset: "LAION, neighbours from OpenImages",
        first_stage: "kl-f16",
        figures: &[],
        row: Row {
            size: 48,
            channels: 16,
            linear: [0.0015, 0.015],
            scale_factor: 0.22765929,
            keys: ["jpg", "nix"],
            width: 448,
            attention: &[4, 2, 1],
            context: Some((768, 1)),
            cond: Cond::Identity,
            ..BASE
        },
    },
];

impl LdmPreset {
    /// The model's config, as its YAML file has it.
    pub fn config(&self) -> LatentDiffusionConfig {
        let row = &self.row;
        let unet = Target::new("ldm.modules.diffusionmodules.openaimodel.UNetModel", row.unet());
        let first = first_stage(self.first_stage).map(|preset| preset.interface());
        let mut config = LatentDiffusionConfig::new(unet, first, row.cond.target());
        [config.linear_start, config.linear_end] = row.linear;
        config.loss_type = if row.l1 { "l1" } else { "l2" }.into();
        config.use_ema = row.use_ema;
        config.scale_factor = row.scale_factor;
        config.scale_by_std = row.scale_by_std;
        [config.first_stage_key, config.cond_stage_key] = row.keys.map(Into::into);
        config.cond_stage_trainable = row.trainable;
        config.concat_mode = row.cond != Cond::Unconditional;
        config.conditioning_key = row.context.map(|_| ConditioningKey::CrossAttn);
        config.image_size = Some(row.size);
        config.channels = row.channels;
        config
    }
}

impl Row {
    fn unet(&self) -> Value {
        let mut params = json!({
            "image_size": self.size,
            "in_channels": self.channels + self.concat,
            "out_channels": self.channels,
            "model_channels": self.width,
            "attention_resolutions": self.attention,
            "num_res_blocks": 2,
            "channel_mult": self.mult,
        });
        let mut set = |key: &str, value: Value| params[key] = value;
        match self.heads {
            Heads::Count(n) => set("num_heads", n.into()),
            Heads::Width(n) => set("num_head_channels", n.into()),
        }
        if let Some((width, depth)) = self.context {
            set("use_spatial_transformer", true.into());
            set("transformer_depth", depth.into());
            set("context_dim", width.into());
        }
        if self.scale_shift {
            set("use_scale_shift_norm", true.into());
        }
        if self.updown {
            set("resblock_updown", true.into());
        }
        if !self.legacy {
            set("legacy", false.into());
        }
        params
    }
}

impl Cond {
    fn target(self) -> CondStageTarget {
        let encoder = |class: &str, params: Value| {
            CondStageTarget::Encoder(Target::new(format!("ldm.modules.encoders.modules.{class}"), params))
        };
        match self {
            Self::Unconditional => CondStageTarget::Name(super::UNCONDITIONAL.into()),
            Self::FirstStage => CondStageTarget::Name(super::FIRST_STAGE.into()),
            Self::Identity => CondStageTarget::Encoder(Target::new("torch.nn.Identity", Value::Null)),
            Self::Classes(None) => {
                encoder("ClassEmbedder", json!({ "embed_dim": 512, "key": "class_label" }))
            }
            Self::Classes(Some(n)) => {
                encoder("ClassEmbedder", json!({ "n_classes": n, "embed_dim": 512, "key": "class_label" }))
            }
            Self::Text { n_embed, n_layer } => {
                encoder("BERTEmbedder", json!({ "n_embed": n_embed, "n_layer": n_layer }))
            }
            Self::Boxes => encoder(
                "BERTEmbedder",
                json!({ "n_embed": 512, "n_layer": 16, "vocab_size": 8192, "max_seq_len": 92, "use_tokenizer": false }),
            ),
            Self::Map => {
                encoder("SpatialRescaler", json!({ "n_stages": 2, "in_channels": 182, "out_channels": 3 }))
            }
        }
    }
}

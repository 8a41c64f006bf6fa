use ldm_nn::weights::{Entry, KeyMap};

use super::CondStage;
use crate::bert::BertKeys;
use crate::clip::{ClipKeys, ClipVisionKeys};

/// How a CompVis checkpoint names a [`CondStage`]'s parameters, below `cond_stage_model.`.
///
/// CLIP's encoders lie there as OpenAI's code names them (`model.transformer...`, `model.visual...`); for the
/// names of transformers load the encoder by itself with [`ClipKeys`].
#[derive(Debug, Clone)]
pub struct CondStageKeys(Naming);

#[derive(Debug, Clone)]
enum Naming {
    /// Our names are the file's.
    Same,
    Bert,
    Clip,
    ClipVision,
    /// Stages by number, as a module list has them.
    List(Vec<CondStageKeys>),
}

impl CondStage {
    /// The names that a CompVis checkpoint has for this encoder, below `cond_stage_model.`.
    pub fn compvis_keys(&self) -> CondStageKeys {
        CondStageKeys(match self {
            Self::Identity(_) | Self::ClassEmbedder(_) | Self::SpatialRescaler(_) => Naming::Same,
            Self::BertEmbedder(_) => Naming::Bert,
            Self::ClipText(_) | Self::ClipTextEmbedder(_) => Naming::Clip,
            Self::ClipImageEmbedder(_) => Naming::ClipVision,
            Self::Hybrid(hybrid) => Naming::List(hybrid.stages.iter().map(Self::compvis_keys).collect()),
        })
    }
}

impl KeyMap for CondStageKeys {
    fn entry(&self, path: &str) -> Option<Entry> {
        let below = |head: &str, entry: Option<Entry>| {
            entry.map(|mut entry| {
                entry.key.insert_str(0, head);
                entry
            })
        };
        match &self.0 {
            Naming::Same => Some(Entry::same(path)),
            Naming::Bert => BertKeys::CompVis.entry(path),
            Naming::Clip => below("model.", ClipKeys::OpenClip.entry(path.strip_prefix("encoder.")?)),
            Naming::ClipVision => {
                below("model.", ClipVisionKeys::OpenClip.entry(path.strip_prefix("encoder.")?))
            }
            Naming::List(stages) => {
                let (index, rest) = path.strip_prefix("stages.")?.split_once('.')?;
                let stage = stages.get(index.parse::<usize>().ok()?)?;
                below(&format!("{index}."), stage.entry(rest))
            }
        }
    }
}

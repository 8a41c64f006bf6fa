//! What files call the weights of LPIPS.

use ldm_nn::weights::{Entry, KeyMap, WeightFile};

use super::SLICES;

/// Where torchvision's `vgg16().features` has its convolutions.
const FEATURES: [usize; 13] = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];

/// A first stage's checkpoint keeps its loss.
const IN_CHECKPOINT: &str = "loss.perceptual_loss.";

/// Whose names the trunk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trunk {
    /// `features.0.weight`.
    Torchvision,
    /// `net.slice1.0.weight`.
    Lpips,
    /// The same after [`IN_CHECKPOINT`].
    Checkpoint,
}

/// Where the linear layers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linear {
    /// `lin0.model.1.weight`: the first layer is dropout.
    Plain,
    /// The same after [`IN_CHECKPOINT`].
    Checkpoint,
}

impl Trunk {
    /// torchvision's names, where the file has none of the others.
    pub fn of(file: &WeightFile) -> Option<Self> {
        let has = |prefix: &str| file.contains(&format!("{prefix}net.slice1.0.weight"));
        Some(match (has(""), has(IN_CHECKPOINT)) {
            (true, _) => Self::Lpips,
            (false, true) => Self::Checkpoint,
            (false, false) => Self::Torchvision,
        })
    }
}

impl Linear {
    pub fn of(file: &WeightFile) -> Self {
        let checkpoint = file.contains(&format!("{IN_CHECKPOINT}lin0.model.1.weight"));
        if checkpoint { Self::Checkpoint } else { Self::Plain }
    }
}

/// The names of one file; what it does not hold is `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub trunk: Option<Trunk>,
    pub linear: Option<Linear>,
}

impl KeyMap for Names {
    fn entry(&self, path: &str) -> Option<Entry> {
        let (place, rest) = path.split_once('.')?;
        let key = match place {
            "convs" => {
                let (i, parameter) = rest.split_once('.')?;
                let i: usize = i.parse().ok()?;
                let (feature, slice) = (FEATURES.get(i)?, slice_of(i)?);
                match self.trunk? {
                    Trunk::Torchvision => format!("features.{feature}.{parameter}"),
                    Trunk::Lpips => format!("net.slice{slice}.{feature}.{parameter}"),
                    Trunk::Checkpoint => format!("{IN_CHECKPOINT}net.slice{slice}.{feature}.{parameter}"),
                }
            }
            "lins" => match self.linear? {
                Linear::Plain => format!("lin{rest}.model.1.weight"),
                Linear::Checkpoint => format!("{IN_CHECKPOINT}lin{rest}.model.1.weight"),
            },
            _ => return None,
        };
        Some(Entry::same(key))
    }
}

/// The number of the slice that has the trunk's convolution `i`, counted from 1.
fn slice_of(i: usize) -> Option<usize> {
    let mut end = 0;
    let slice = SLICES.iter().position(|slice| {
        end += slice.len();
        i < end
    })?;
    Some(1 + slice)
}

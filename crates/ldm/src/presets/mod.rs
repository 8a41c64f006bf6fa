//! The published models of the paper: nine first stages and fourteen diffusion models, with their figures.
//!
//! ```
//! let preset = ldm::presets::ldm("cin256").expect("it was published");
//! assert_eq!(preset.config().image_size, Some(32));
//! assert_eq!(ldm::presets::first_stage(preset.first_stage).map(|f| f.figures.r_fid), Some(1.14));
//! ```

mod diffusion;
mod first_stages;

pub use diffusion::{LDMS, LdmPreset, Task};
pub use first_stages::{FIRST_STAGES, FirstStagePreset, Reconstruction};

use crate::model::{FIRST_STAGE, UNCONDITIONAL};

/// What was measured on a diffusion model's samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Fréchet inception distance.
    pub fid: Option<f64>,
    /// Inception score.
    pub inception_score: Option<f64>,
    /// Part of the samples that lie among the data.
    pub precision: Option<f64>,
    /// Part of the data that lie among the samples.
    pub recall: Option<f64>,
    /// DDIM steps.
    pub steps: Option<usize>,
    /// DDIM's eta, where it is reported.
    pub eta: Option<f64>,
    /// The guidance that it was sampled with.
    pub guidance: Option<&'static str>,
}

impl Figures {
    const NONE: Self = Self {
        fid: None,
        inception_score: None,
        precision: None,
        recall: None,
        steps: None,
        eta: None,
        guidance: None,
    };
}

/// The published diffusion model of this name (`cin256`), one of [`LDMS`]; the name of its folder in the reference
/// repository will do too (`celeba256`).
pub fn ldm(name: &str) -> Option<&'static LdmPreset> {
    let folder = |preset: &LdmPreset| preset.file.strip_suffix("/config.yaml")?.rsplit('/').next();
    LDMS.iter().find(|preset| preset.name == name || folder(preset) == Some(name))
}

/// The published first stage of this name (`vq-f4`).
pub fn first_stage(name: &str) -> Option<&'static FirstStagePreset> {
    FIRST_STAGES.iter().find(|preset| preset.name == name)
}

use serde::{Deserialize, Serialize};

use crate::conditions::ConditionConfig;
use crate::data::{self, DataError, Loader, LoaderConfig};

/// The section `data`: the pictures of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSection {
    /// Where they are, and which of them are taken.
    pub source: data::DataConfig,
    /// How they become batches. `seed` is the run's own, whatever stands here.
    pub loader: LoaderConfig,
    /// What a diffusion model's conditions are made of (default: what `model.params.cond_stage_key` says).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<ConditionConfig>,
}

impl DataSection {
    /// Opens the data.
    ///
    /// # Errors
    ///
    /// Data that isn't there or can't be read, a key that is out of range.
    pub fn open(&self) -> Result<Loader, DataError> {
        Loader::new(self.source.open()?, self.loader.clone())
    }
}

//! diffusers' config.json.

/// A class of diffusers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffusersClass {
    /// With a context.
    UNet2DConditionModel,
    /// Without.
    UNet2DModel,
}

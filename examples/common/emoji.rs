//! The small model in assets/ (docs/training.md has how it was trained), which the examples take where no other is given.

use std::path::{Path, PathBuf};

use ldm::scheduler::SamplerKind;

/// What is drawn where no prompt is given.
pub const PROMPT: &str = "man astronaut, dark skin tone";
/// Denoising steps.
pub const STEPS: usize = 25;
/// Guidance scale.
pub const GUIDANCE: f64 = 3.0;
/// The sampler.
pub const SAMPLER: SamplerKind = SamplerKind::Ddim;

/// Where it lies.
pub fn model() -> PathBuf {
    asset("emoji")
}

/// A file of assets/, seen from the folder where the program was started, or else where it was built.
pub fn asset(name: &str) -> PathBuf {
    let here = Path::new("assets").join(name);
    if here.exists() {
        return here;
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets").join(name)
}

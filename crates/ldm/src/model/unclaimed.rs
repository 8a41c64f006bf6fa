//! What a single file holds beside the parts that are read from it.

use ldm_nn::weights::{WeightFile, is_known_extra};

/// Tensors that are read by their whole name.
const BY_NAME: [&str; 1] = ["scale_factor"];

/// The tensors that lie under none of the parts' `prefixes`, and that no checkpoint is known to hold besides. (What is
/// unknown under a prefix, the part's loader reports.)
pub(super) fn unclaimed<'a>(file: &'a WeightFile, prefixes: &[&str]) -> Vec<&'a str> {
    let claimed = |name: &str| {
        BY_NAME.contains(&name)
            || is_known_extra(name)
            || prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    file.tensors().map(|tensor| tensor.name.as_str()).filter(|name| !claimed(name)).collect()
}

/// Warns of them, by name.
pub(crate) fn warn_of_unclaimed(file: &WeightFile, prefixes: &[&str]) {
    let unknown = unclaimed(file, prefixes);
    if !unknown.is_empty() {
        tracing::warn!(?unknown, "tensors outside every part of the model");
    }
}

#[cfg(test)]
mod tests {
    use ldm_test_support::{Fixture, write_weights};

    use super::*;
    use crate::model::single_file::{UNET, VAE};

    #[test]
    fn junk_is_listed_and_what_checkpoints_hold_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let extras = ["scale_factor", "denoiser.sigmas", "lvlb_weights"];
        let junk = ["embedding_manager.string_to_param.*", "model.diffusion_modelx.weight"];
        for (name, text) in [
            ("checkpoint_sd1", ["cond_stage_model.transformer."; 2]),
            ("checkpoint_sd2", ["cond_stage_model.model."; 2]),
            ("checkpoint_sdxl", ["conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."]),
        ] {
            let prefixes = [UNET, VAE, text[0], text[1]];
            let mut shapes = Fixture::open(name).shapes("checkpoint");
            shapes.extend(extras.map(|name| (name.to_string(), vec![1])));
            write_weights(&path, &shapes);
            assert_eq!(unclaimed(&WeightFile::open(&path).unwrap(), &prefixes), [""; 0], "{name}");
            shapes.extend(junk.map(|name| (name.to_string(), vec![2, 3])));
            write_weights(&path, &shapes);
            assert_eq!(unclaimed(&WeightFile::open(&path).unwrap(), &prefixes), junk, "{name}");
        }
    }
}

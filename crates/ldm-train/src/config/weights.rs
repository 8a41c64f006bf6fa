//! Weights of tau_theta from files: a whole model's, or the encoder's own.

use std::path::Path;

use ldm_conditioning::CondStage;
use ldm_conditioning::bert::BertKeys;
use ldm_conditioning::clip::{ClipKeys, ClipVisionKeys};
use ldm_nn::weights::{Entry, KeyMap, Loader, WeightFile};

use crate::RunError;

/// What stands before tau_theta's names in a whole model's file.
pub(super) const TAU: &str = "cond_stage_model.";

/// The weights of an encoder from a whole model's file, where its names begin with `prefix`.
pub(super) fn encoder_of_model(
    stage: CondStage,
    file: &WeightFile,
    prefix: &str,
) -> Result<CondStage, RunError> {
    let keys = stage.compvis_keys();
    Ok(Loader::new(&keys).prefix(prefix).load(stage, file)?.0)
}

/// The weights of an encoder from a file of its own, or a whole model's.
pub(super) fn encoder(stage: CondStage, path: &Path) -> Result<CondStage, RunError> {
    let file = WeightFile::open(path)?;
    if file.tensors().any(|tensor| tensor.name.starts_with(TAU)) {
        return encoder_of_model(stage, &file, TAU);
    }
    // An embedder holds CLIP's encoder, whose file is the encoder's alone.
    let inside =
        |keys: &dyn KeyMap, path: &str| -> Option<Entry> { keys.entry(path.strip_prefix("encoder.")?) };
    let has = |name: &str| file.contains(name);
    let names: Box<dyn KeyMap> = match &stage {
        CondStage::ClipText(_) | CondStage::ClipTextEmbedder(_)
            if has("text_model.embeddings.token_embedding.weight") =>
        {
            Box::new(move |path: &str| inside(&ClipKeys::Transformers, path))
        }
        CondStage::ClipText(_) | CondStage::ClipTextEmbedder(_) if has("token_embedding.weight") => {
            Box::new(move |path: &str| inside(&ClipKeys::OpenClip, path))
        }
        CondStage::ClipImageEmbedder(_) if has("vision_model.embeddings.class_embedding") => {
            Box::new(move |path: &str| inside(&ClipVisionKeys::Transformers, path))
        }
        CondStage::ClipImageEmbedder(_) if has("visual.class_embedding") => {
            Box::new(move |path: &str| inside(&ClipVisionKeys::OpenClip, path))
        }
        CondStage::BertEmbedder(_) if has("model.embed_tokens.weight") => Box::new(BertKeys::Diffusers),
        other => Box::new(other.compvis_keys()),
    };
    Ok(Loader::new(&*names).load(stage, &file)?.0)
}

#[cfg(test)]
#[path = "../../tests/tiny/clip.rs"]
mod tiny;

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::Device;
    use ldm_conditioning::clip::{ClipImageEmbedder, ClipText, ClipTokenizer, HiddenState};
    use ldm_nn::weights::Saver;

    use super::*;

    fn vision(device: &Device) -> CondStage {
        CondStage::ClipImageEmbedder(ClipImageEmbedder::new(tiny::vision().init(device).unwrap()))
    }

    fn text(device: &Device) -> CondStage {
        let (tokenizer, encoder) = (ClipTokenizer::open_ai().unwrap(), tiny::text().init(device).unwrap());
        CondStage::ClipText(ClipText::new(tokenizer, encoder, HiddenState::LAST))
    }

    /// What a checkpoint would hold, byte for byte.
    fn bytes(stage: &CondStage, keys: &dyn KeyMap, path: &Path) -> Vec<u8> {
        Saver::new().add(stage, keys, "").write(path).unwrap();
        std::fs::read(path).unwrap()
    }

    /// transformers' files, OpenAI's, and a whole model's.
    #[test]
    fn clip_is_read_by_all_its_names() {
        let (device, folder) = (Device::default(), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name);
        let inside = |keys: &dyn KeyMap, path: &str| keys.entry(path.strip_prefix("encoder.")?);
        let text_names: [&dyn KeyMap; 3] = [
            &|path: &str| inside(&ClipKeys::Transformers, path),
            &|path: &str| inside(&ClipKeys::OpenClip, path),
            &|path: &str| {
                let mut entry = text(&Device::default()).compvis_keys().entry(path)?;
                entry.key.insert_str(0, TAU);
                Some(entry)
            },
        ];
        let vision_names: [&dyn KeyMap; 2] =
            [&|path: &str| inside(&ClipVisionKeys::Transformers, path), &|path: &str| {
                inside(&ClipVisionKeys::OpenClip, path)
            }];
        type Make = fn(&Device) -> CondStage;
        let kinds: [(Make, &[&dyn KeyMap]); 2] = [(text, &text_names), (vision, &vision_names)];
        for (make, names) in kinds {
            let stage = make(&device);
            let own = stage.compvis_keys();
            let expected = bytes(&stage, &own, &at("expected.safetensors"));
            for (i, names) in names.iter().enumerate() {
                let path = at("clip.safetensors");
                bytes(&stage, *names, &path);
                let fresh = make(&device);
                assert!(fresh.num_params() > 0);
                let read = encoder(fresh, &path).unwrap_or_else(|e| panic!("{}, {i}: {e}", stage.name()));
                assert!(bytes(&read, &own, &at("read.safetensors")) == expected, "{}, {i}", stage.name());
            }
        }
    }
}

//! Models by name from the Hugging Face hub, through `hf-hub` and its cache.

use std::path::{Path, PathBuf};

use hf_hub::HFClientSync;

use crate::Error;

/// What sampling needs of a repository; not its safety checker, previews or other formats' weights.
const WANTED: &[&str] = &["model_index.json", "scheduler/*", "tokenizer/*", "tokenizer_2/*"];
/// The folders of weights.
const PARTS: &[&str] = &["unet", "vae", "text_encoder", "text_encoder_2", "vqvae", "bert"];

/// `owner/name`, as models on the hub are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repository<'a> {
    owner: &'a str,
    name: &'a str,
}

impl<'a> Repository<'a> {
    /// What `source` calls, if it can be the name of a repository.
    pub(super) fn named(source: &'a Path) -> Option<Self> {
        let (owner, name) = source.to_str()?.split_once('/')?;
        let plain = |s: &str| {
            let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !s.is_empty() && !s.starts_with('.') && s.chars().all(letters)
        };
        (plain(owner) && plain(name)).then_some(Self { owner, name })
    }

    /// The folder in which the repository's files lie, after fetching those that are not in the cache.
    ///
    /// With `variant` (`fp16`) its weights are fetched instead of the plain ones. A part without
    /// `.safetensors` comes as `.bin`. Without a network, what the cache holds is used.
    ///
    /// # Errors
    /// [`Error::Hub`] says which files to download by hand.
    pub(super) fn download(&self, variant: Option<&str>) -> Result<PathBuf, Error> {
        let Self { owner, name } = self;
        let name = format!("{owner}/{name}");
        let error = |reason: String| Error::Hub { name: name.clone(), reason };
        let client = HFClientSync::new().map_err(|e| error(e.to_string()))?;
        let repository = client.model(*owner, self.name);
        let fetch = |patterns: Vec<String>| {
            let snapshot = repository.snapshot_download().allow_patterns(patterns);
            snapshot.ignore_patterns(other_variants(variant)).send()
        };
        let fetched = fetch(patterns(variant)).and_then(|folder| {
            let pickled = without_weights(&folder);
            let weights = pickled.iter().map(|part| weights(part, variant, "bin")).collect::<Vec<_>>();
            if weights.is_empty() { Ok(folder) } else { fetch(weights) }
        });
        let failure = match fetched {
            Ok(folder) => return Ok(folder),
            Err(failure) => failure,
        };
        let cached = repository.snapshot_download().local_files_only(true).send();
        match cached {
            Ok(folder) if folder.join("model_index.json").is_file() => {
                tracing::warn!("{name}: the hub did not answer ({failure}); using the cache");
                Ok(folder)
            }
            _ => Err(error(format!(
                "there is no such folder, and the hub's can't be fetched ({failure}). By hand: download {} from \
                 https://huggingface.co/{name}/tree/main into one folder, keeping the sub-folders, and give that \
                 folder instead of the name",
                patterns(variant).join(", ")
            ))),
        }
    }
}

/// The files that sampling needs, as the hub's globs.
fn patterns(variant: Option<&str>) -> Vec<String> {
    let wanted = WANTED.iter().map(|pattern| (*pattern).to_string());
    let of_part = |part: &&str| [format!("{part}/*.json"), weights(part, variant, "safetensors")];
    wanted.chain(PARTS.iter().flat_map(of_part)).collect()
}

fn weights(part: &str, variant: Option<&str>, format: &str) -> String {
    match variant {
        Some(variant) => format!("{part}/*.{variant}*.{format}"),
        None => format!("{part}/*.{format}"),
    }
}

/// What lies beside the plain weights and isn't wanted with them.
fn other_variants(variant: Option<&str>) -> Vec<String> {
    match variant {
        Some(_) => Vec::new(),
        None => ["fp16.", "bf16.", "non_ema"].map(|variant| format!("*/*.{variant}*")).into(),
    }
}

/// The parts of which a folder has the config alone.
fn without_weights(folder: &Path) -> Vec<&'static str> {
    let is_weights = |file: std::io::Result<std::fs::DirEntry>| {
        file.is_ok_and(|file| file.path().extension().is_some_and(|e| e == "safetensors"))
    };
    let lacks = |part: &&&str| {
        let part = folder.join(part);
        part.join("config.json").exists()
            && !std::fs::read_dir(part).is_ok_and(|mut files| files.any(is_weights))
    };
    PARTS.iter().filter(lacks).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_owner_and_name_make_a_repository() {
        let named = Repository::named(Path::new("stable-diffusion-v1-5/stable-diffusion-v1.5"));
        assert_eq!(named, Some(Repository { owner: "stable-diffusion-v1-5", name: "stable-diffusion-v1.5" }));
        for name in ["model", "/name", "owner/", "../x", "a/b/c", "a b/c", "runs/x?"] {
            assert_eq!(Repository::named(Path::new(name)), None, "{name}");
        }
    }
}

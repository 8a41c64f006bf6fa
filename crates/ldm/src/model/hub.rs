//! Models by name from the Hugging Face hub, through `hf-hub` and its cache.

use std::path::PathBuf;

use hf_hub::HFClientSync;

use crate::Error;

/// What sampling needs of a repository; not its safety checker, previews or other formats' weights.
const WANTED: &[&str] = &[
    "model_index.json",
    "scheduler/*",
    "tokenizer/*",
    "tokenizer_2/*",
    "unet/*.json",
    "vae/*.json",
    "text_encoder/*.json",
    "text_encoder_2/*.json",
    "vqvae/*.json",
    "bert/*.json",
];
const PARTS: &[&str] = &["unet", "vae", "text_encoder", "text_encoder_2", "vqvae", "bert"];

/// The folder in which the files of `owner/name` lie, after fetching those that are not in the cache.
///
/// With `variant` (`fp16`) its weights are fetched instead of the plain ones. Without a network, what the
/// cache holds is used.
///
/// # Errors
/// [`Error::Hub`] says which files to download by hand.
pub(crate) fn download(name: &str, variant: Option<&str>) -> Result<PathBuf, Error> {
    let error = |reason: String| Error::Hub { name: name.into(), reason };
    let parts = name.split_once('/').filter(|(owner, name)| {
        let plain = |s: &str| !s.is_empty() && !s.contains('/') && !s.starts_with('.');
        plain(owner) && plain(name)
    });
    let (owner, repository) =
        parts.ok_or_else(|| error("a model on the hub is called `owner/name`".into()))?;
    let client = HFClientSync::new().map_err(|e| error(e.to_string()))?;
    let repository = client.model(owner, repository);
    let patterns = patterns(variant);
    let ignored: Vec<String> = match variant {
        Some(_) => Vec::new(),
        None => ["*.fp16.*", "*.bf16.*", "*non_ema*"].map(|p| format!("*/{p}")).into(),
    };
    let fetched =
        repository.snapshot_download().allow_patterns(patterns.clone()).ignore_patterns(ignored).send();
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
            "can't be fetched ({failure}). By hand: download {} from https://huggingface.co/{name}/tree/main into one \
             folder, keeping the sub-folders, and give that folder instead of the name",
            patterns.join(", ")
        ))),
    }
}

fn patterns(variant: Option<&str>) -> Vec<String> {
    let weights = PARTS.iter().map(|part| match variant {
        Some(variant) => format!("{part}/*.{variant}*.safetensors"),
        None => format!("{part}/*.safetensors"),
    });
    WANTED.iter().map(|p| (*p).to_string()).chain(weights).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_repository_is_refused_without_asking_anyone() {
        for name in ["model", "/name", "owner/", "../x", "a/b/c"] {
            let error = download(name, None).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("owner/name"), "{error}");
        }
    }
}

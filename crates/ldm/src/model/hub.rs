//! Models by name from the Hugging Face hub, through `hf-hub` and its cache.

use std::path::{Path, PathBuf};

use hf_hub::HFClientSync;

use crate::Error;

/// What sampling needs of a repository besides the parts' weights; not its safety checker and previews.
const WANTED: &[&str] = &["model_index.json", "scheduler/*", "tokenizer/*", "tokenizer_2/*"];
/// The folders of weights.
const PARTS: &[&str] = &["unet", "vae", "text_encoder", "text_encoder_2", "vqvae", "bert"];
/// Formats in the order in which they are preferred.
const FORMATS: [&str; 2] = ["safetensors", "bin"];
/// What published files are called besides the plain one.
const VARIANTS: &[&str] = &["fp16", "bf16", "non_ema"];

/// `owner/name`, as models on the hub are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repository<'a> {
    owner: &'a str,
    name: &'a str,
}

impl<'a> Repository<'a> {
    /// What `source` calls, if it can be the name of a repository: a weight file that isn't there can't.
    pub(super) fn named(source: &'a Path) -> Option<Self> {
        let (owner, name) = source.to_str()?.split_once('/')?;
        let plain = |s: &str| {
            let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !s.is_empty() && !s.starts_with('.') && s.chars().all(letters)
        };
        let file = [".safetensors", ".ckpt", ".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end));
        (plain(owner) && plain(name) && !file).then_some(Self { owner, name })
    }

    /// The folder in which the repository's files lie, after fetching those that are not in the cache.
    ///
    /// Each part's weights come as `.safetensors`, or else as `.bin`; with `variant` (`fp16`) its weights are
    /// preferred, and without one the plain ones. Without a network, what the cache holds is used.
    ///
    /// # Errors
    /// [`Error::Hub`] says which files to download by hand.
    pub(super) fn download(&self, variant: Option<&str>) -> Result<PathBuf, Error> {
        let Self { owner, name } = self;
        let name = format!("{owner}/{name}");
        let error = |reason: String| Error::Hub { name: name.clone(), reason };
        let client = HFClientSync::new().map_err(|e| error(e.to_string()))?;
        let repository = client.model(*owner, self.name);
        let fetch = |patterns: Vec<String>, ignored: Vec<String>| {
            repository.snapshot_download().allow_patterns(patterns).ignore_patterns(ignored).send()
        };
        let failure = match fetch_all(fetch, variant) {
            Ok(folder) => return Ok(folder),
            Err(failure) => failure,
        };
        match repository.snapshot_download().local_files_only(true).send() {
            Ok(folder) if is_whole(&folder) => {
                tracing::warn!("{name}: the hub did not answer ({failure}); using the cache");
                Ok(folder)
            }
            _ => {
                let [format, _] = FORMATS;
                let weights = PARTS.iter().map(|part| pattern(part, variant, format));
                let files: Vec<_> = texts().into_iter().chain(weights).collect();
                Err(error(format!(
                    "there is no such folder, and the hub's can't be fetched ({failure}). By hand: download {} from \
                     https://huggingface.co/{name}/tree/main into one folder, keeping the sub-folders, and give that \
                     folder instead of the name",
                    files.join(", ")
                )))
            }
        }
    }
}

/// Configs first, which say what parts there are; then the weights of those, in the order of preference.
///
/// `fetch`: the folder with everything so far, of patterns and of what they shall leave out.
fn fetch_all<E>(
    fetch: impl Fn(Vec<String>, Vec<String>) -> Result<PathBuf, E>,
    variant: Option<&str>,
) -> Result<PathBuf, E> {
    let mut folder = fetch(texts(), Vec::new())?;
    let mut lacking: Vec<&str> =
        PARTS.iter().copied().filter(|part| folder.join(part).join("config.json").exists()).collect();
    let parts = lacking.len();
    let plain = [None, Some("fp16")];
    let kinds = variant.map(Some).into_iter().chain(plain);
    for (variant_wanted, format) in kinds.flat_map(|kind| FORMATS.map(|format| (kind, format))) {
        // Where no part has the variant that was asked for, the loader says so: nothing else is worth fetching.
        let nowhere = variant.is_some() && variant_wanted != variant && lacking.len() == parts;
        if lacking.is_empty() || nowhere {
            break;
        }
        let patterns = lacking.iter().map(|part| pattern(part, variant_wanted, format)).collect();
        let others = match variant_wanted {
            None => VARIANTS.iter().map(|variant| format!("*/*.{variant}*")).collect(),
            Some(_) => Vec::new(),
        };
        folder = fetch(patterns, others)?;
        lacking.retain(|part| !holds(&folder.join(part), |name| is_weights(name, variant_wanted, format)));
    }
    Ok(folder)
}

/// The files that hold no weights, as the hub's globs.
fn texts() -> Vec<String> {
    let configs = PARTS.iter().map(|part| format!("{part}/*.json"));
    WANTED.iter().map(|pattern| (*pattern).to_string()).chain(configs).collect()
}

fn pattern(part: &str, variant: Option<&str>, format: &str) -> String {
    match variant {
        Some(variant) => format!("{part}/*.{variant}*.{format}"),
        None => format!("{part}/*.{format}"),
    }
}

/// Whether a file's name is that of weights (a shard's too) of this variant and format.
fn is_weights(name: &str, variant: Option<&str>, format: &str) -> bool {
    // model.fp16.safetensors, model.fp16-00001-of-00002.safetensors
    let marked =
        |variant: &str| name.contains(&format!(".{variant}.")) || name.contains(&format!(".{variant}-"));
    let right = match variant {
        Some(variant) => marked(variant),
        None => !VARIANTS.iter().any(|variant| marked(variant)),
    };
    right && name.strip_suffix(format).is_some_and(|stem| stem.ends_with('.'))
}

fn holds(folder: &Path, wanted: impl Fn(&str) -> bool) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_str().is_some_and(&wanted))
}

/// Whether every part that a folder has the config of has weights too.
fn is_whole(folder: &Path) -> bool {
    let any = |name: &str| FORMATS.iter().any(|format| name.ends_with(format));
    let whole = |part: &&str| {
        let part = folder.join(part);
        !part.join("config.json").exists() || holds(&part, any)
    };
    folder.join("model_index.json").is_file() && PARTS.iter().all(whole)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;

    use super::*;

    #[test]
    fn only_owner_and_name_make_a_repository() {
        let named = Repository::named(Path::new("stable-diffusion-v1-5/stable-diffusion-v1.5"));
        assert_eq!(named, Some(Repository { owner: "stable-diffusion-v1-5", name: "stable-diffusion-v1.5" }));
        for name in ["model", "/name", "owner/", "../x", "a/b/c", "a b/c", "runs/x?", "out/model.ckpt"] {
            assert_eq!(Repository::named(Path::new(name)), None, "{name}");
        }
    }

    /// What is fetched of a repository whose unet and vae have these weights, and in the cache those.
    fn fetched(unet: &[&str], vae: &[&str], cached: &[&str], variant: Option<&str>) -> Vec<String> {
        let cache = tempfile::tempdir().unwrap();
        let there = [("unet", unet), ("vae", vae)];
        let of_part = |(part, names): (&str, &[&str])| -> Vec<String> {
            names.iter().chain(&["config.json"]).map(|name| format!("{part}/{name}")).collect()
        };
        let all: Vec<String> = there.into_iter().flat_map(of_part).collect();
        let write = |file: &str| {
            let path = cache.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        cached.iter().for_each(|file| write(file));
        let taken = RefCell::new(Vec::new());
        let matches = |patterns: &[String], file: &str| {
            patterns.iter().any(|pattern| {
                let mut rest = Some(file);
                let mut parts = pattern.split('*');
                let first = parts.next().unwrap();
                rest = rest.and_then(|rest| rest.strip_prefix(first));
                for part in parts {
                    rest = rest.and_then(|rest| rest.find(part).map(|at| &rest[at + part.len()..]));
                }
                rest.is_some_and(|rest| rest.is_empty() || pattern.ends_with('*'))
            })
        };
        let fetch = |patterns: Vec<String>, ignored: Vec<String>| -> Result<PathBuf, ()> {
            for file in all.iter().filter(|file| matches(&patterns, file) && !matches(&ignored, file)) {
                write(file);
                taken.borrow_mut().push(file.clone());
            }
            Ok(cache.path().into())
        };
        fetch_all(fetch, variant).unwrap();
        let mut taken = taken.into_inner();
        taken.retain(|file| !file.ends_with("config.json"));
        taken
    }

    #[test]
    fn each_part_comes_in_the_form_that_it_has() {
        const PLAIN: &str = "model.safetensors";
        const HALF: &str = "model.fp16.safetensors";
        // The plain weights where nothing else is asked for, though a variant is in the cache.
        let both = fetched(&[PLAIN, HALF], &["model.bin", HALF], &["vae/model.fp16.safetensors"], None);
        assert_eq!(both, ["unet/model.safetensors", "vae/model.bin"]);
        // The variant where there is one, the plain weights of a part that lacks it.
        assert_eq!(
            fetched(&[PLAIN, HALF], &[PLAIN], &[], Some("fp16")),
            ["unet/model.fp16.safetensors", "vae/model.safetensors"]
        );
        // A part that has nothing but a variant.
        assert_eq!(
            fetched(&[PLAIN], &[HALF], &[], None),
            ["unet/model.safetensors", "vae/model.fp16.safetensors"]
        );
        // A variant that no part has: the loader refuses it, nothing is fetched for that.
        assert_eq!(fetched(&[PLAIN], &[PLAIN], &[], Some("fp8")), [""; 0]);
        // Shards are no plain weights where they are a variant's.
        let shards =
            ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors", PLAIN];
        assert_eq!(
            fetched(&shards, &[PLAIN], &[], None),
            ["unet/model.safetensors", "vae/model.safetensors"]
        );
    }
}

//! A diffusers directory as it is written, part by part: what all pipelines have in common.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::DType;
use ldm_conditioning::bert::{BertEmbedder, BertKeys};
use ldm_conditioning::clip::{ClipKeys, ClipText};
use ldm_nn::DIFFUSERS_VERSION;
use ldm_nn::weights::{KeyMap, Saver};
use ldm_scheduler::{SamplerKind, SchedulerConfig};
use ldm_unet::{UNet, UNetConfig};
use serde_json::{Map, Value, json};

use crate::Error;

/// Writes files that are whole or absent, and keeps the table of contents, which comes last.
pub(crate) struct DirectoryWriter<'a> {
    directory: &'a Path,
    dtype: DType,
    observer: &'a mut dyn FnMut(&Path, usize, usize),
    /// `model_index.json` so far: each part's library and class.
    index: Map<String, Value>,
}

impl<'a> DirectoryWriter<'a> {
    /// Weights will be of type `dtype`; `observer` is told the file that is being written, how many of its part's
    /// parameters are in it by now, and of how many.
    pub(crate) fn new(
        directory: &'a Path,
        dtype: DType,
        observer: &'a mut dyn FnMut(&Path, usize, usize),
    ) -> Self {
        Self { directory, dtype, observer, index: Map::new() }
    }

    /// The U-Net, described by `config`.
    pub(crate) fn unet(&mut self, unet: &UNet, config: &UNetConfig) -> Result<(), Error> {
        let named = |e| Error::config(self.directory.join("unet/config.json"), e);
        let json = config.to_diffusers().map_err(named)?;
        let keys = config.diffusers_keys().map_err(named)?;
        self.part("unet", ["diffusers", config.diffusers_class().name()], &json, unet, &keys)
    }

    /// A CLIP text encoder and its tokenizer, in the folders of these names.
    pub(crate) fn clip(
        &mut self,
        text: &ClipText,
        [encoder, tokenizer]: [&str; 2],
        class: &str,
    ) -> Result<(), Error> {
        let config = json!(text.encoder.config());
        self.part(encoder, ["transformers", class], &config, &text.encoder, &ClipKeys::Transformers)?;
        text.tokenizer.save(self.folder(tokenizer)?).map_err(|e| Error::Conditioning(e.into()))?;
        self.list(tokenizer, ["transformers", "CLIPTokenizer"]);
        Ok(())
    }

    /// The paper's text encoder, and its tokenizer where it has one.
    pub(crate) fn bert(&mut self, bert: &BertEmbedder) -> Result<(), Error> {
        let config = Value::Object(bert.config().to_diffusers());
        self.part("bert", ["latent_diffusion", "LDMBertModel"], &config, bert, &BertKeys::Diffusers)?;
        if let Some(tokenizer) = bert.tokenizer() {
            tokenizer.save(self.folder("tokenizer")?).map_err(|e| Error::Conditioning(e.into()))?;
        }
        self.list("tokenizer", ["transformers", "BertTokenizer"]);
        Ok(())
    }

    /// The scheduler, which is of this kind.
    pub(crate) fn scheduler(&mut self, kind: SamplerKind, config: &SchedulerConfig) -> Result<(), Error> {
        write(&self.folder("scheduler")?.join("scheduler_config.json"), &config.to_json())?;
        self.list("scheduler", ["diffusers", kind.class_name()]);
        Ok(())
    }

    /// Any part with weights: `[library, class]`, its `config.json`, its module under the names of `keys`.
    pub(crate) fn part<M: Module>(
        &mut self,
        part: &str,
        class: [&str; 2],
        config: &Value,
        module: &M,
        keys: &dyn KeyMap,
    ) -> Result<(), Error> {
        let folder = self.folder(part)?;
        write_json(&folder.join("config.json"), config)?;
        let stem = if class[0] == "diffusers" { "diffusion_pytorch_model" } else { "model" };
        let path = folder.join(format!("{stem}.safetensors"));
        let saver = Saver::new().dtype(self.dtype).add(module, keys, "");
        saver.write_observed(&path, &mut |done, of| (self.observer)(&path, done, of))?;
        self.list(part, class);
        Ok(())
    }

    /// The table of contents, with the pipeline's class and its settings. Last, since it is what makes the folder a model.
    pub(crate) fn finish(mut self, class: &str, settings: Vec<(&str, Value)>) -> Result<(), Error> {
        self.index.insert("_class_name".into(), class.into());
        self.index.insert("_diffusers_version".into(), DIFFUSERS_VERSION.into());
        self.index.extend(settings.into_iter().map(|(key, value)| (key.into(), value)));
        write_json(&self.directory.join("model_index.json"), &Value::Object(self.index))
    }

    fn folder(&self, part: &str) -> Result<PathBuf, Error> {
        let folder = self.directory.join(part);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        Ok(folder)
    }

    fn list(&mut self, part: &str, class: [&str; 2]) {
        self.index.insert(part.into(), json!(class));
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::config(path, e))?;
    write(path, &(text + "\n"))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let beside = path.with_extension("json.part");
    std::fs::write(&beside, text).map_err(Error::io(&beside))?;
    std::fs::rename(&beside, path).map_err(Error::io(path))
}

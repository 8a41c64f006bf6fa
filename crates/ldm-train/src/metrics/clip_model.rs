use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_conditioning::clip::{
    ClipImageEmbedder, ClipKeys, ClipTextConfig, ClipTextEmbedder, ClipTokenizer, ClipVisionConfig,
    ClipVisionKeys,
};
use ldm_nn::weights::{KeyMap, Loader, WeightFile};
use rayon::prelude::*;
use serde_json::Value;

use super::{MetricError, clip_scores};
use crate::data::{Transform, View};

/// Both encoders of CLIP and its tokenizer: what a CLIP score is taken with.
#[derive(Debug, Clone)]
pub struct ClipModel {
    text: ClipTextEmbedder,
    image: ClipImageEmbedder,
    device: Device,
}

/// The weight files that transformers writes.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

impl ClipModel {
    /// Reads a directory of transformers' `CLIPModel` (`openai/clip-vit-large-patch14`): config, weights, tokenizer.
    ///
    /// # Errors
    /// What is missing in the directory, or doesn't fit.
    pub fn from_directory(directory: impl AsRef<Path>, device: &Device) -> Result<Self, MetricError> {
        let directory = directory.as_ref();
        let path = directory.join("config.json");
        let config = std::fs::read_to_string(&path).map_err(MetricError::io(&path))?;
        let refuse = |what: String| MetricError::content(&path, what);
        let config: Value = serde_json::from_str(&config).map_err(|e| refuse(e.to_string()))?;
        // The projections' width stands above the two configs and counts for both.
        let part = |name: &str| -> Result<Value, MetricError> {
            let mut part =
                config.get(name).cloned().ok_or_else(|| refuse(format!("there is no `{name}`")))?;
            if let (Some(part), Some(width)) = (part.as_object_mut(), config.get("projection_dim")) {
                part.insert("projection_dim".into(), width.clone());
                part.insert("architectures".into(), vec!["CLIPTextModelWithProjection"].into());
            }
            Ok(part)
        };
        let text = ClipTextConfig::from_json(&part("text_config")?.to_string())
            .and_then(|config| config.init(device))
            .map_err(|e| refuse(e.to_string()))?;
        let image = ClipVisionConfig::from_json(&part("vision_config")?.to_string())
            .and_then(|config| config.init(device))
            .map_err(|e| refuse(e.to_string()))?;

        let file = WEIGHTS.iter().map(|name| directory.join(name)).find(|path| path.is_file());
        let file = file
            .ok_or_else(|| MetricError::content(directory, format!("no weights: {}", WEIGHTS.join(", "))))?;
        let file = WeightFile::open(file)?;
        let text = load(text, &ClipKeys::Transformers, &file)?;
        let image = load(image, &ClipVisionKeys::Transformers, &file)?;
        let tokenizer =
            ClipTokenizer::from_dir(directory).map_err(|e| MetricError::content(directory, e.to_string()))?;
        let text = ClipTextEmbedder::new(tokenizer, text).map_err(|e| refuse(e.to_string()))?;
        Ok(Self { text, image: ClipImageEmbedder::new(image), device: device.clone() })
    }

    /// [`clip_scores`] of picture files and their texts, `batch` at a time; `progress` is told how many are done.
    ///
    /// Pictures are prepared as transformers' `CLIPImageProcessor` does: the shorter side resized (bicubic, with
    /// antialiasing), the middle cut out.
    ///
    /// # Errors
    /// Another number of texts than of pictures; a picture that can't be read; a text that can't be encoded.
    pub fn scores(
        &self,
        pictures: &[PathBuf],
        texts: &[String],
        batch: usize,
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<f64>, MetricError> {
        if pictures.len() != texts.len() {
            let (left, right) = (vec![pictures.len()], vec![texts.len()]);
            return Err(MetricError::Shapes { what: "pictures and texts", left, right });
        }
        let batch = batch.max(1);
        let mut scores = Vec::with_capacity(pictures.len());
        for (pictures, texts) in pictures.chunks(batch).zip(texts.chunks(batch)) {
            let refuse = |e: String| MetricError::content(&pictures[0], format!("CLIP: {e}"));
            let images = self.image.embed(self.read(pictures)?).map_err(|e| refuse(e.to_string()))?;
            let texts = self.text.embed(texts).map_err(|e| refuse(e.to_string()))?;
            scores.extend(clip_scores(images, texts)?);
            progress(scores.len());
        }
        Ok(scores)
    }

    /// `[b, 3, side, side]` in [-1, 1].
    fn read(&self, files: &[PathBuf]) -> Result<Tensor<4>, MetricError> {
        let side = self.image.encoder.config().image_size;
        let transform = Transform::new(side);
        let middle = View { number: None, x: 0.5, y: 0.5, flip: false, part: 1.0 };
        let one = |path: &PathBuf| -> Result<Vec<f32>, MetricError> {
            let reader = image::ImageReader::open(path).and_then(|r| r.with_guessed_format());
            let picture = |source| MetricError::Picture { path: path.clone(), source };
            let decoded = reader.map_err(MetricError::io(path))?.decode().map_err(picture)?;
            transform.apply(&decoded, middle).map_err(|e| MetricError::content(path, e))
        };
        let values: Vec<Vec<f32>> = files.par_iter().map(one).collect::<Result<_, _>>()?;
        let data = TensorData::new(values.concat(), [files.len(), 3, side, side]);
        Ok(Tensor::from_data(data, (&self.device, DType::F32)))
    }
}

/// Each encoder takes its half of the file.
fn load<M: Module>(module: M, keys: &dyn KeyMap, file: &WeightFile) -> Result<M, MetricError> {
    Ok(Loader::new(keys).load(module, file)?.0)
}

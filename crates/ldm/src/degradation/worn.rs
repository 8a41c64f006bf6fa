//! Worn pictures as what a super-resolution model is conditioned on while it is trained.

use burn::tensor::{DType, Tensor, TensorData};
use image::{Rgb, RgbImage};
use ldm_conditioning::Condition;
use ldm_train::RunError;
use ldm_train::conditions::{Asked, ConditionConfig, Conditions};
use ldm_train::data::Batch;
use ldm_train::run::{Purpose, Random};
use rayon::prelude::*;

use super::resize::{Interpolation, resize};
use super::{Degradation, SeededDraws, to_f32, to_u8};
use crate::Error;

/// Each picture of a batch made smaller and worn, anew each time it is seen: `LR_image` of the reference's data.
///
/// What happens to a picture follows from the run's seed, the micro-batch's number and its place in that, so that a run
/// goes on as it would have gone. Pictures have 8 bits, as the reference's have.
///
/// Source: `ImageNetSR` in the reference's `ldm/data/imagenet.py`.
///
/// ```
/// # use ldm::degradation::{Degradation, Worn};
/// # use ldm::train::conditions::Conditions;
/// // For `DiffusionTraining::conditioned`.
/// let conditions: Box<dyn Conditions> = Box::new(Worn::new(Degradation::BsrganLight, 4)?);
/// # Ok::<_, ldm::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worn {
    how: How,
    factor: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Degraded(Degradation),
    Resized(Interpolation),
}

/// The names that the reference's data has for them.
const NAMES: [(&str, How); 5] = [
    ("bsrgan", How::Degraded(Degradation::Bsrgan)),
    ("bsrgan_light", How::Degraded(Degradation::BsrganLight)),
    ("cv_bilinear", How::Resized(Interpolation::Linear)),
    ("cv_bicubic", How::Resized(Interpolation::Cubic)),
    ("cv_area", How::Resized(Interpolation::Area)),
];

impl Worn {
    /// By one of the two pipelines, each side divided by `factor`.
    ///
    /// # Errors
    /// [`Error::Argument`] for a `factor` of 0.
    pub fn new(degradation: Degradation, factor: usize) -> Result<Self, Error> {
        Self::by(How::Degraded(degradation), factor)
    }

    fn by(how: How, factor: usize) -> Result<Self, Error> {
        match factor {
            0 => Err(Error::argument("factor", "must be at least 1")),
            _ => Ok(Self { how, factor }),
        }
    }

    /// By what the reference's data calls so: `bsrgan`, `bsrgan_light`, or OpenCV's resizing alone (`cv_bilinear`,
    /// `cv_bicubic`, `cv_area`; computed in f32 and then rounded).
    ///
    /// # Errors
    /// [`Error::Argument`] for another name, or a `factor` of 0.
    pub fn named(name: &str, factor: usize) -> Result<Self, Error> {
        let Some((_, how)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let known = NAMES.map(|(known, _)| known).join(", ");
            return Err(Error::argument("degradation", format!("`{name}` is none of {known}")));
        };
        Self::by(*how, factor)
    }

    /// What a training's config asks for (`data.condition`); `None` where it asks for something else.
    ///
    /// # Errors
    /// As [`named`](Self::named).
    pub fn of_config(condition: &ConditionConfig) -> Result<Option<Self>, Error> {
        match condition {
            ConditionConfig::Degraded { degradation, factor } => Self::named(degradation, *factor).map(Some),
            _ => Ok(None),
        }
    }

    /// The small picture, by the draws of `seed`.
    fn wear(&self, picture: &RgbImage, seed: u64) -> Result<RgbImage, Error> {
        match self.how {
            How::Degraded(kind) => kind.degrade(picture, self.factor, &mut SeededDraws::new(seed)),
            How::Resized(interpolation) => {
                let size = (picture.width() / self.factor as u32, picture.height() / self.factor as u32);
                Ok(to_u8(&resize(&to_f32(picture), size, interpolation)))
            }
        }
    }
}

impl Conditions for Worn {
    /// `[b, 3, size / factor, size / factor]` in [-1, 1].
    fn of(&self, batch: &Batch, asked: &Asked<'_>) -> Result<Condition, RunError> {
        let (b, size) = (batch.len(), batch.size);
        let wrong = |item: usize, what: String| RunError::Sample {
            key: batch.keys.get(item).cloned().unwrap_or_default(),
            source: what.into(),
        };
        if batch.pictures.len() != b * 3 * size * size {
            return Err(wrong(0, "the condition is made of the picture, which was not decoded".into()));
        }
        if size < self.factor || !size.is_multiple_of(self.factor) {
            let what = format!("a picture of {size} pixels can't be made {} times smaller", self.factor);
            return Err(wrong(0, what));
        }
        let seeds = Random::new(asked.seed());
        let worn = |(item, planes): (usize, &[f32])| {
            let seed = seeds.seed(item as u64, Purpose::Condition);
            let worn = self.wear(&picture(planes, size), seed).map_err(|e| wrong(item, e.to_string()))?;
            let plane = |c: usize| worn.pixels().map(move |pixel| f32::from(pixel.0[c]) / 127.5 - 1.0);
            Ok::<_, RunError>((0..3).flat_map(plane).collect::<Vec<f32>>())
        };
        let each = batch.pictures.par_chunks(3 * size * size).enumerate().map(worn);
        let values = each.collect::<Result<Vec<_>, RunError>>()?.concat();
        let side = size / self.factor;
        let values = TensorData::new(values, [b, 3, side, side]);
        Ok(Condition::Image(Tensor::from_data(values, (asked.device, DType::F32))))
    }
}

/// 8 bits of `[3, size, size]` in [-1, 1].
fn picture(planes: &[f32], size: usize) -> RgbImage {
    let byte = |v: f32| ((v + 1.0) * 127.5).round() as u8;
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        let at = y as usize * size + x as usize;
        Rgb([0, 1, 2].map(|c| byte(planes[c * size * size + at])))
    })
}

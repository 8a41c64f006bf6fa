//! The conditions that a config can name.

use burn::tensor::{DType, Int, Tensor, TensorData};
use ldm_conditioning::{Condition, Layout, LayoutTokenizer};
use ldm_nn::{InterpolateMethod, Interpolation, upsample_nearest};

use super::{Asked, ConditionConfig, Conditions, drop, mask};
use crate::RunError;
use crate::data::random::shuffle;
use crate::data::{Batch, MapKind};

impl Conditions for ConditionConfig {
    fn of(&self, batch: &Batch, asked: &Asked<'_>) -> Result<Condition, RunError> {
        Ok(match self {
            Self::None => Condition::None,
            Self::Captions => Condition::Text(batch.captions.clone()),
            Self::Classes { .. } => Condition::Classes(batch.classes.clone().ok_or_else(|| {
                first(batch, "this picture, or another of its batch, has no class (`data.source.class_key`)")
            })?),
            Self::Picture => Condition::Image(pictures(batch, asked)?),
            Self::Map { classes } => Condition::Image(map(batch, *classes, asked)?),
            Self::LowResolution { factor } => Condition::Image(smaller(batch, *factor, asked)?),
            Self::Degraded { degradation, .. } => {
                return Err(RunError::Degradation { degradation: degradation.clone() });
            }
            Self::Masked => Condition::Latent(masked(batch, asked)?),
            Self::Layouts { .. } => {
                let tokenizer = self.tokenizer().ok_or_else(|| first(batch, "no tokenizer of layouts"))?;
                Condition::Tokens(tokens(batch, &tokenizer, asked)?)
            }
            Self::FirstStage { of } => match of.of(batch, asked)? {
                Condition::Image(picture) => {
                    Condition::Latent(asked.first_stage.encode(picture)?.mode().cast(DType::F32))
                }
                other => {
                    let what = format!("the first stage encodes pictures, no {}", other.kind());
                    return Err(RunError::NoConditions { what });
                }
            },
            Self::Both { first, second } => {
                Condition::both(first.of(batch, asked)?, second.of(batch, asked)?)
            }
        })
    }

    fn null(&self, given: &Condition) -> Option<Condition> {
        match (self, given) {
            (Self::Classes { null_class }, Condition::Classes(classes)) => {
                Some(Condition::Classes(vec![(*null_class)?; classes.len()]))
            }
            (Self::Layouts { .. }, Condition::Tokens(tokens)) => {
                let ids = self.tokenizer()?.encode(&Layout::new([])).ok()?;
                let row = TensorData::new(ids.clone(), [1, ids.len()]);
                let row = Tensor::<2, Int>::from_data(row, &tokens.device());
                Some(Condition::Tokens(row.expand([tokens.dims()[0], ids.len()])))
            }
            (Self::Both { first, second }, Condition::Both(a, b)) => {
                Some(Condition::both(first.null(a)?, second.null(b)?))
            }
            _ => drop::null(given),
        }
    }

    fn reads_pictures(&self) -> bool {
        match self {
            Self::None | Self::Captions | Self::Classes { .. } => false,
            // The part of the picture that a crop shows is known when it is decoded.
            Self::Layouts { .. } => true,
            Self::Both { first, second } => first.reads_pictures() || second.reads_pictures(),
            _ => true,
        }
    }
}

fn sample(key: &str, what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RunError {
    RunError::Sample { key: key.into(), source: what.into() }
}

/// What is wrong with all of a batch, said of its first sample.
fn first(batch: &Batch, what: &str) -> RunError {
    sample(batch.keys.first().map_or("", String::as_str), what)
}

fn pictures(batch: &Batch, asked: &Asked<'_>) -> Result<Tensor<4>, RunError> {
    if batch.pictures.is_empty() {
        return Err(first(batch, "the condition is made of the picture, which was not decoded"));
    }
    Ok(batch.to_tensor(asked.device))
}

fn smaller(batch: &Batch, factor: usize, asked: &Asked<'_>) -> Result<Tensor<4>, RunError> {
    if factor == 0 || !batch.size.is_multiple_of(factor) {
        let what = format!("pictures of {} pixels can't be made {factor} times smaller", batch.size);
        return Err(first(batch, &what));
    }
    let side = batch.size / factor;
    let resize = Interpolation::new(InterpolateMethod::Bicubic).with_antialias(true);
    Ok(resize.to_size(pictures(batch, asked)?, [side, side]).clamp(-1.0, 1.0))
}

/// `E(picture with a hole)` and the hole, 1 or -1, as large: `z + 1` channels.
///
/// Source: `scripts/inpaint.py` of the reference, whose holes are black.
fn masked(batch: &Batch, asked: &Asked<'_>) -> Result<Tensor<4>, RunError> {
    let (b, side) = (batch.len(), batch.size);
    let mut rng = asked.rng();
    let holes: Vec<f32> = (0..b).flat_map(|_| mask::draw(side, &mut rng)).collect();
    let hole = TensorData::new(holes, [b, 1, side, side]);
    let hole = Tensor::<4>::from_data(hole, (asked.device, DType::F32));
    let picture = pictures(batch, asked)?;
    let picture = (picture + 1.0) * (hole.clone() * -1.0 + 1.0) - 1.0;
    let z = asked.first_stage.encode(picture)?.mode().cast(DType::F32);
    let [_, _, h, w] = z.dims();
    Ok(Tensor::cat(vec![z, upsample_nearest(hole * 2.0 - 1.0, [h, w])], 1))
}

fn map(batch: &Batch, classes: Option<usize>, asked: &Asked<'_>) -> Result<Tensor<4>, RunError> {
    let maps = batch.maps.as_ref();
    let maps = maps.ok_or_else(|| first(batch, "it has no second picture (`data.source.map_suffix`)"))?;
    let Some(classes) = classes else { return Ok(maps.to_tensor(asked.device)) };
    if maps.kind != MapKind::Labels {
        return Err(first(batch, "its map is no map of labels (`data.loader.map.kind`)"));
    }
    // One channel a class.
    let area = maps.size * maps.size;
    let mut values = vec![0.0; batch.len() * classes * area];
    for (item, (labels, key)) in maps.values.chunks(area).zip(&batch.keys).enumerate() {
        for (pixel, label) in labels.iter().enumerate() {
            let class = *label as usize;
            if class >= classes {
                return Err(sample(key, format!("its map has the label {class}, outside 0..{classes}")));
            }
            values[(item * classes + class) * area + pixel] = 1.0;
        }
    }
    let values = TensorData::new(values, [batch.len(), classes, maps.size, maps.size]);
    Ok(Tensor::from_data(values, (asked.device, DType::F32)))
}

/// The reference's data shuffles the objects each time, so that their order says nothing.
fn tokens(batch: &Batch, tokenizer: &LayoutTokenizer, asked: &Asked<'_>) -> Result<Tensor<2, Int>, RunError> {
    let layouts = batch.layouts.as_ref();
    let layouts = layouts.ok_or_else(|| first(batch, "it has no objects (`data.source.objects_key`)"))?;
    let mut rng = asked.rng();
    let mut ids = Vec::with_capacity(layouts.len() * tokenizer.length());
    for (layout, key) in layouts.iter().zip(&batch.keys) {
        let mut layout = layout.clone();
        shuffle(&mut rng, &mut layout.objects);
        ids.extend(tokenizer.encode(&layout).map_err(|e| sample(key, e))?);
    }
    let ids = TensorData::new(ids, [layouts.len(), tokenizer.length()]);
    Ok(Tensor::from_data(ids, asked.device))
}

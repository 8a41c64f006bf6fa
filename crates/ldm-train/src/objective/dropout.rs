use burn::tensor::{Bool, Tensor, TensorData};
use ldm_nn::Conditioning;

use super::ObjectiveError;

/// Which items of a batch lose their condition in one step, so that the model also learns to do without
/// (classifier-free guidance, Ho & Salimans 2022).
///
/// Made from uniform numbers that the caller draws, one an item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DropMask {
    /// Items whose text, class or other embedded condition goes.
    pub condition: Vec<bool>,
    /// Items whose concatenated picture goes.
    pub image: Vec<bool>,
}

impl DropMask {
    /// Drops the condition, embedded and concatenated, of each item whose number in [0, 1) is below `probability`.
    pub fn together(uniform: &[f32], probability: f64) -> Self {
        let condition: Vec<bool> = uniform.iter().map(|u| f64::from(*u) < probability).collect();
        Self { image: condition.clone(), condition }
    }

    /// Drops text and picture apart: the text alone with `probability`, the picture alone with `probability`, and
    /// both with `probability` (InstructPix2Pix; diffusers' train_instruct_pix2pix.py).
    pub fn apart(uniform: &[f32], probability: f64) -> Self {
        let below = |u: &f32, times: f64| f64::from(*u) < times * probability;
        Self {
            condition: uniform.iter().map(|u| below(u, 2.0)).collect(),
            image: uniform.iter().map(|u| !below(u, 1.0) && below(u, 3.0)).collect(),
        }
    }

    /// Whether nothing is dropped.
    pub fn is_empty(&self) -> bool {
        !self.condition.iter().chain(&self.image).any(|drop| *drop)
    }
}

/// `given` with the dropped items' parts taken from `null`, the condition that stands for none (the empty prompt,
/// the null class); its batch is that of `given`, or 1.
///
/// A concatenated picture is zero where `null` has none; sizes and guidance embeddings stay. With a tau_theta that
/// is trained too, `null` must have gone through it in this step.
///
/// # Errors
/// [`ObjectiveError::Dropout`] where `null` lacks a part that `given` has, or shapes don't fit; a mask of another
/// length than the batch.
pub fn drop_conditioning(
    given: &Conditioning,
    null: &Conditioning,
    mask: &DropMask,
) -> Result<Conditioning, ObjectiveError> {
    if mask.is_empty() {
        return Ok(given.clone());
    }
    let drop = &mask.condition;
    let zeros = given.concat.as_ref().map(Tensor::zeros_like);
    let picture = null.concat.as_ref().or(zeros.as_ref());
    Ok(Conditioning {
        concat: replaced("concat", &given.concat, picture, &mask.image)?,
        context: replaced("context", &given.context, null.context.as_ref(), drop)?,
        class_labels: labels(&given.class_labels, null.class_labels.as_ref(), drop)?,
        y: replaced("y", &given.y, null.y.as_ref(), drop)?,
        text_embeds: replaced("text_embeds", &given.text_embeds, null.text_embeds.as_ref(), drop)?,
        ..given.clone()
    })
}

fn problem(input: &'static str, problem: impl Into<String>) -> ObjectiveError {
    ObjectiveError::Dropout { input, problem: problem.into() }
}

fn replaced<const D: usize>(
    input: &'static str,
    given: &Option<Tensor<D>>,
    null: Option<&Tensor<D>>,
    drop: &[bool],
) -> Result<Option<Tensor<D>>, ObjectiveError> {
    let Some(given) = given else { return Ok(None) };
    let null = null.ok_or_else(|| problem(input, "the unconditional conditioning has none"))?;
    let (shape, mut fits) = (given.dims(), null.dims());
    if fits[0] == 1 {
        fits[0] = shape[0];
    }
    if shape != fits || shape[0] != drop.len() {
        let what = format!("shape {shape:?}, dropped is {:?}, mask of {}", null.dims(), drop.len());
        return Err(problem(input, what));
    }
    let mut each = [1; D];
    each[0] = drop.len();
    let mask = TensorData::new(drop.to_vec(), each);
    let mask = Tensor::<D, Bool>::from_data(mask, &given.device()).expand(shape);
    Ok(Some(given.clone().mask_where(mask, null.clone().cast(given.dtype()).expand(shape))))
}

fn labels(
    given: &Option<Vec<i64>>,
    null: Option<&Vec<i64>>,
    drop: &[bool],
) -> Result<Option<Vec<i64>>, ObjectiveError> {
    let input = "class_labels";
    let Some(given) = given else { return Ok(None) };
    let null = null.ok_or_else(|| problem(input, "the unconditional conditioning has none"))?;
    if (null.len() != 1 && null.len() != given.len()) || given.len() != drop.len() {
        let what = format!("{} labels, {} dropped, mask of {}", given.len(), null.len(), drop.len());
        return Err(problem(input, what));
    }
    let label = |(i, label): (usize, &i64)| if drop[i] { null[i % null.len()] } else { *label };
    Ok(Some(given.iter().enumerate().map(label).collect()))
}

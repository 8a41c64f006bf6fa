//! What a denoiser is told beside the noisy latent and the timestep.

mod key;

use burn::tensor::{Device, Int, Tensor, TensorData};

pub use key::ConditioningKey;

/// The conditions of one forward pass; each has the batch of the latent.
///
/// The encoder tau_theta makes it, the U-Net reads it, samplers and trainers carry it. A part that the model
/// conditions on has to be there, one that it has no place for must not: the U-Net checks that.
/// Source: paper, section 3.3; `DiffusionWrapper` in the reference's `ddpm.py`.
#[derive(Debug, Clone, Default)]
pub struct Conditioning {
    /// `tau_theta(y)`, `[b, m, d]`: K and V of the cross-attention (paper, section 3.3).
    pub context: Option<Tensor<3>>,
    /// `[b, c, h, w]`, as high and wide as the latent: joined to its channels (maps, low-resolution and
    /// masked pictures).
    pub concat: Option<Tensor<4>>,
    /// A class for each item, embedded by the U-Net.
    pub class_labels: Option<Vec<i64>>,
    /// A vector for each item, `[b, width]`; with SDXL it stands for `text_embeds` and the sinusoids of
    /// `time_ids`, already joined (`y` of the CompVis code).
    pub y: Option<Tensor<2>>,
    /// SDXL's pooled text embedding, `[b, p]`.
    pub text_embeds: Option<Tensor<2>>,
    /// SDXL's sizes, `[b, 6]`: original height and width, crop top and left, target height and width.
    pub time_ids: Option<Tensor<2>>,
    /// A guidance embedding for each item, `[b, time_cond_proj_dim]` (latent consistency models); it may be
    /// left out.
    pub timestep_cond: Option<Tensor<2>>,
}

/// Conditions that don't go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConditioningMismatch {
    /// Parts for different numbers of items.
    #[error("`{part}` has {got} items, `{other}` has {expected}")]
    Batch {
        /// The part that differs.
        part: &'static str,
        /// Its number of items.
        got: usize,
        /// The part it was compared with.
        other: &'static str,
        /// That one's number of items.
        expected: usize,
    },
    /// A part that some of the conditionings have and others lack.
    #[error("`{part}` is there in only some of the conditionings to be joined")]
    Partial {
        /// The part.
        part: &'static str,
    },
    /// A part whose items have different shapes.
    #[error("`{part}`: items of shape {got:?} and {expected:?} can't be joined")]
    Shape {
        /// The part.
        part: &'static str,
        /// The shape of an item of the first conditioning.
        expected: Vec<usize>,
        /// The shape that differs.
        got: Vec<usize>,
    },
    /// A part that two conditionings both have, where each should bring its own.
    #[error("both conditionings have `{part}`")]
    Twice {
        /// The part.
        part: &'static str,
    },
    /// An item that isn't there.
    #[error("item {item} of a conditioning of {items}")]
    Item {
        /// The item asked for.
        item: usize,
        /// How many there are.
        items: usize,
    },
}

impl Conditioning {
    /// No conditions.
    pub fn none() -> Self {
        Self::default()
    }

    /// A context `[b, m, d]` for the cross-attention.
    pub fn context(context: Tensor<3>) -> Self {
        Self { context: Some(context), ..Self::default() }
    }

    /// Channels `[b, c, h, w]` beside the latent's.
    pub fn concat(concat: Tensor<4>) -> Self {
        Self { concat: Some(concat), ..Self::default() }
    }

    /// A class for each item.
    pub fn class_labels(labels: impl Into<Vec<i64>>) -> Self {
        Self { class_labels: Some(labels.into()), ..Self::default() }
    }

    /// Adds a context `[b, m, d]`.
    pub fn with_context(mut self, context: Tensor<3>) -> Self {
        self.context = Some(context);
        self
    }

    /// Adds channels `[b, c, h, w]`.
    pub fn with_concat(mut self, concat: Tensor<4>) -> Self {
        self.concat = Some(concat);
        self
    }

    /// Adds a class for each item.
    pub fn with_class_labels(mut self, labels: impl Into<Vec<i64>>) -> Self {
        self.class_labels = Some(labels.into());
        self
    }

    /// Adds a vector `[b, width]`.
    pub fn with_y(mut self, y: Tensor<2>) -> Self {
        self.y = Some(y);
        self
    }

    /// Adds SDXL's pooled text embedding `[b, p]` and its sizes `[b, 6]`.
    pub fn with_text_time(mut self, text_embeds: Tensor<2>, time_ids: Tensor<2>) -> Self {
        self.text_embeds = Some(text_embeds);
        self.time_ids = Some(time_ids);
        self
    }

    /// Adds a guidance embedding `[b, time_cond_proj_dim]`.
    pub fn with_timestep_cond(mut self, cond: Tensor<2>) -> Self {
        self.timestep_cond = Some(cond);
        self
    }

    /// Whether there is no part at all.
    pub fn is_none(&self) -> bool {
        self.batches().next().is_none()
    }

    /// The number of items that all parts have; `None` without parts.
    ///
    /// # Errors
    /// [`ConditioningMismatch::Batch`] where parts differ.
    pub fn batch(&self) -> Result<Option<usize>, ConditioningMismatch> {
        let mut batches = self.batches();
        let Some((other, expected)) = batches.next() else { return Ok(None) };
        match batches.find(|(_, got)| *got != expected) {
            Some((part, got)) => Err(ConditioningMismatch::Batch { part, got, other, expected }),
            None => Ok(Some(expected)),
        }
    }

    /// The unconditional input of models that were trained with zeros: context, channels and vectors are zero,
    /// labels, sizes and guidance embedding stay (SDXL's `force_zeros_for_empty_prompt`, the reference's
    /// retrieval-augmented models).
    pub fn zeros_like(&self) -> Self {
        Self {
            context: self.context.as_ref().map(Tensor::zeros_like),
            concat: self.concat.as_ref().map(Tensor::zeros_like),
            y: self.y.as_ref().map(Tensor::zeros_like),
            text_embeds: self.text_embeds.as_ref().map(Tensor::zeros_like),
            ..self.clone()
        }
    }

    /// Both conditionings' parts in one (the reference's `hybrid`: channels from one, context from the other).
    ///
    /// # Errors
    /// [`ConditioningMismatch::Twice`] where both have a part, [`ConditioningMismatch::Batch`] where their
    /// items are not as many.
    pub fn merge(self, other: Self) -> Result<Self, ConditioningMismatch> {
        let merged = Self {
            context: either(CONTEXT, self.context, other.context)?,
            concat: either(CONCAT, self.concat, other.concat)?,
            class_labels: either(LABELS, self.class_labels, other.class_labels)?,
            y: either(Y, self.y, other.y)?,
            text_embeds: either(TEXT_EMBEDS, self.text_embeds, other.text_embeds)?,
            time_ids: either(TIME_IDS, self.time_ids, other.time_ids)?,
            timestep_cond: either(TIMESTEP_COND, self.timestep_cond, other.timestep_cond)?,
        };
        merged.batch()?;
        Ok(merged)
    }

    /// The items of all conditionings after one another, as one call of a guided U-Net takes them.
    ///
    /// # Errors
    /// [`ConditioningMismatch::Partial`] where only some have a part, [`ConditioningMismatch::Shape`] where
    /// items differ in shape.
    pub fn cat(all: &[Self]) -> Result<Self, ConditioningMismatch> {
        let labels: Vec<_> = all.iter().filter_map(|c| c.class_labels.as_ref()).collect();
        if !labels.is_empty() && labels.len() != all.len() {
            return Err(ConditioningMismatch::Partial { part: LABELS });
        }
        Ok(Self {
            context: cat(CONTEXT, all, |c| &c.context)?,
            concat: cat(CONCAT, all, |c| &c.concat)?,
            class_labels: (!labels.is_empty()).then(|| labels.into_iter().flatten().copied().collect()),
            y: cat(Y, all, |c| &c.y)?,
            text_embeds: cat(TEXT_EMBEDS, all, |c| &c.text_embeds)?,
            time_ids: cat(TIME_IDS, all, |c| &c.time_ids)?,
            timestep_cond: cat(TIMESTEP_COND, all, |c| &c.timestep_cond)?,
        })
    }

    /// The items with these numbers, in this order; a number may come several times.
    ///
    /// # Errors
    /// [`ConditioningMismatch::Item`] for a number beyond the batch, [`ConditioningMismatch::Batch`] where
    /// parts differ in theirs.
    pub fn select(&self, items: &[usize]) -> Result<Self, ConditioningMismatch> {
        let Some(batch) = self.batch()? else { return Ok(self.clone()) };
        if let Some(item) = items.iter().find(|item| **item >= batch) {
            return Err(ConditioningMismatch::Item { item: *item, items: batch });
        }
        Ok(Self {
            context: take(&self.context, items),
            concat: take(&self.concat, items),
            class_labels: self.class_labels.as_ref().map(|c| items.iter().map(|item| c[*item]).collect()),
            y: take(&self.y, items),
            text_embeds: take(&self.text_embeds, items),
            time_ids: take(&self.time_ids, items),
            timestep_cond: take(&self.timestep_cond, items),
        })
    }

    /// Every item `count` times, its copies side by side.
    ///
    /// # Errors
    /// [`ConditioningMismatch::Batch`] where parts differ in theirs.
    pub fn repeat_items(self, count: usize) -> Result<Self, ConditioningMismatch> {
        match self.batch()? {
            Some(batch) if count != 1 => {
                let items: Vec<_> = (0..batch).flat_map(|item| std::iter::repeat_n(item, count)).collect();
                self.select(&items)
            }
            _ => Ok(self),
        }
    }

    /// The same on another device.
    pub fn to_device(self, device: &Device) -> Self {
        Self {
            context: self.context.map(|x| x.to_device(device)),
            concat: self.concat.map(|x| x.to_device(device)),
            class_labels: self.class_labels,
            y: self.y.map(|x| x.to_device(device)),
            text_embeds: self.text_embeds.map(|x| x.to_device(device)),
            time_ids: self.time_ids.map(|x| x.to_device(device)),
            timestep_cond: self.timestep_cond.map(|x| x.to_device(device)),
        }
    }

    /// Name and number of items of each part that is there.
    fn batches(&self) -> impl Iterator<Item = (&'static str, usize)> {
        [
            (CONTEXT, self.context.as_ref().map(|x| x.dims()[0])),
            (CONCAT, self.concat.as_ref().map(|x| x.dims()[0])),
            (LABELS, self.class_labels.as_ref().map(Vec::len)),
            (Y, self.y.as_ref().map(|x| x.dims()[0])),
            (TEXT_EMBEDS, self.text_embeds.as_ref().map(|x| x.dims()[0])),
            (TIME_IDS, self.time_ids.as_ref().map(|x| x.dims()[0])),
            (TIMESTEP_COND, self.timestep_cond.as_ref().map(|x| x.dims()[0])),
        ]
        .into_iter()
        .filter_map(|(part, batch)| Some((part, batch?)))
    }
}

const CONTEXT: &str = "context";
const CONCAT: &str = "concat";
const LABELS: &str = "class_labels";
const Y: &str = "y";
const TEXT_EMBEDS: &str = "text_embeds";
const TIME_IDS: &str = "time_ids";
const TIMESTEP_COND: &str = "timestep_cond";

fn either<T>(part: &'static str, a: Option<T>, b: Option<T>) -> Result<Option<T>, ConditioningMismatch> {
    match (a, b) {
        (Some(_), Some(_)) => Err(ConditioningMismatch::Twice { part }),
        (a, b) => Ok(a.or(b)),
    }
}

fn cat<const D: usize>(
    part: &'static str,
    all: &[Conditioning],
    get: impl Fn(&Conditioning) -> &Option<Tensor<D>>,
) -> Result<Option<Tensor<D>>, ConditioningMismatch> {
    let parts: Vec<Tensor<D>> = all.iter().filter_map(|c| get(c).clone()).collect();
    let Some(first) = parts.first() else { return Ok(None) };
    if parts.len() != all.len() {
        return Err(ConditioningMismatch::Partial { part });
    }
    let expected = first.dims()[1..].to_vec();
    if let Some(other) = parts.iter().find(|x| x.dims()[1..] != expected) {
        return Err(ConditioningMismatch::Shape { part, expected, got: other.dims()[1..].to_vec() });
    }
    Ok(Some(Tensor::cat(parts, 0)))
}

fn take<const D: usize>(x: &Option<Tensor<D>>, items: &[usize]) -> Option<Tensor<D>> {
    let x = x.as_ref()?;
    let items: Vec<i64> = items.iter().map(|item| *item as i64).collect();
    let n = items.len();
    Some(x.clone().select(0, Tensor::<1, Int>::from_data(TensorData::new(items, [n]), &x.device())))
}

#[cfg(test)]
mod tests;

//! The paper's tasks, as runs that are ready to start.

use burn::tensor::{Int, Tensor, TensorData};
use ldm_conditioning::{BoundingBox, Condition, ConditioningError, Layout, LayoutTokenizer};
use ldm_nn::Conditioning;

use super::{LatentDiffusion, Sampling};
use crate::Error;

impl LatentDiffusion {
    /// Draws `batch` pictures from an unconditional model (paper, section 4.2).
    ///
    /// # Errors
    /// [`Error::Argument`] where the model is conditional.
    pub fn unconditional(&self, batch: usize) -> Result<Sampling<'_>, Error> {
        if let Some(key) = self.conditioning_key {
            return Err(Error::argument("model", format!("it needs a condition (`{key}`)")));
        }
        Ok(Sampling::new(self, Conditioning::none(), batch))
    }

    /// Draws a picture for each item of a conditioning, whatever made it.
    ///
    /// # Errors
    /// [`Error::Conditioning`] where its parts are for different numbers of items, [`Error::Argument`] where it has
    /// none.
    pub fn conditioned(&self, conditioning: Conditioning) -> Result<Sampling<'_>, Error> {
        let batch = conditioning.batch().map_err(ConditioningError::from)?;
        let batch = batch.ok_or_else(|| Error::argument("condition", "it is empty"))?;
        Ok(Sampling::new(self, conditioning, batch))
    }

    /// Draws a picture of each class (section 4.3.1; cin256, cin256-v2). Guidance needs the class that stands for
    /// none: 1000 for cin256-v2.
    ///
    /// # Errors
    /// [`Error::Conditioning`] for a class out of range.
    pub fn classes(&self, classes: &[i64], null: Option<i64>) -> Result<Sampling<'_>, Error> {
        let condition = |classes| self.condition(&Condition::Classes(classes));
        let sampling = self.conditioned(condition(classes.to_vec())?)?;
        match null {
            None => Ok(sampling),
            Some(null) => Ok(sampling.unconditional(condition(vec![null; classes.len()])?)),
        }
    }

    /// Draws a picture of each text (section 4.3.1); guidance leads away from the empty text.
    ///
    /// # Errors
    /// [`Error::Conditioning`] where tau_theta reads no text.
    pub fn texts(&self, texts: &[String]) -> Result<Sampling<'_>, Error> {
        let condition = |texts| self.condition(&Condition::Text(texts));
        let unconditional = condition(vec![String::new(); texts.len()])?;
        Ok(self.conditioned(condition(texts.to_vec())?)?.unconditional(unconditional))
    }

    /// Draws a picture of each layout (section 4.3.1). In patches every patch is told the whole layout; see
    /// [`layouts_in_patches`](Self::layouts_in_patches).
    ///
    /// # Errors
    /// [`Error::Conditioning`] names the object whose class or box is wrong.
    pub fn layouts(&self, layouts: &[Layout], tokenizer: &LayoutTokenizer) -> Result<Sampling<'_>, Error> {
        let tokens = |layouts: &[Layout]| -> Result<Condition, Error> {
            let ids: Result<Vec<_>, _> = layouts.iter().map(|layout| tokenizer.encode(layout)).collect();
            let ids = ids.map_err(ConditioningError::from)?.concat();
            let shape = [layouts.len(), tokenizer.length()];
            Ok(Condition::Tokens(Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &self.device)))
        };
        self.conditioned(self.condition(&tokens(layouts)?)?)
    }

    /// As [`layouts`](Self::layouts), for a latent of this height and width in patches: the crop that a patch shows
    /// takes the place of the layout's. Another size, set afterwards, is an error of the run.
    ///
    /// Source: `apply_model` in the reference's `ddpm.py`.
    ///
    /// # Errors
    /// As [`layouts`](Self::layouts); [`Error::Argument`] where the model has no [`patches`](Self::patches).
    pub fn layouts_in_patches(
        &self,
        layouts: &[Layout],
        tokenizer: &LayoutTokenizer,
        size: [usize; 2],
    ) -> Result<Sampling<'_>, Error> {
        let patches =
            self.checked_patches()?.ok_or_else(|| Error::argument("patches", "the model has none"))?;
        let grid = patches.grid(size)?;
        let [h, w] = size.map(|side| side as f64);
        let [kh, kw] = grid.ks.map(|side| side as f64);
        let of_patch = |[top, left]: [usize; 2]| -> Result<Conditioning, Error> {
            let crop = BoundingBox::new(left as f64 / w, top as f64 / h, kw / w, kh / h);
            let tokens = |layout: &Layout| -> Result<Vec<i64>, ConditioningError> {
                let mut tokens = tokenizer.encode(layout)?;
                let shown = tokenizer.encode(&Layout { objects: vec![], crop, horizontal_flip: false })?;
                tokens.truncate(3 * tokenizer.no_max_objects);
                tokens.extend(&shown[3 * tokenizer.no_max_objects..]);
                Ok(tokens)
            };
            let ids: Result<Vec<_>, _> = layouts.iter().map(tokens).collect();
            let data = TensorData::new(ids?.concat(), [layouts.len(), tokenizer.length()]);
            self.condition(&Condition::Tokens(Tensor::<2, Int>::from_data(data, &self.device)))
        };
        let conditions = grid.places().map(of_patch).collect::<Result<Vec<_>, _>>()?;
        Ok(self.layouts(layouts, tokenizer)?.patch_conditions(size, conditions))
    }

    /// Draws a picture of each map `[b, classes, h, w]`, one channel a class (section 4.3.2); larger maps than the
    /// model was trained with give larger pictures.
    ///
    /// # Errors
    /// [`Error::Conditioning`] for a map of the wrong number of channels or too small.
    pub fn semantic(&self, map: Tensor<4>) -> Result<Sampling<'_>, Error> {
        self.conditioned(self.condition(&Condition::Image(map.to_device(&self.device)))?)
    }

    /// Draws pictures f times as large as these, `[b, 3, h, w]` in [-1, 1] (section 4.4; bsr_sr).
    ///
    /// # Errors
    /// [`Error::Argument`] where the model's condition is not joined to its latent.
    pub fn upscale(&self, pictures: Tensor<4>) -> Result<Sampling<'_>, Error> {
        let given = pictures.dims()[1];
        let taken = self.unet.in_channels().saturating_sub(self.channels());
        if given != taken {
            let reason = format!("a picture of {given} channels, beside its latent the model takes {taken}");
            return Err(Error::argument("pictures", reason));
        }
        self.conditioned(self.condition(&Condition::Image(pictures.to_device(&self.device)))?)
    }

    /// Draws pictures like those that embeddings `[b, m, d]` stand for: a text's, and its neighbours' (Blattmann et
    /// al. 2022; `scripts/knn2img.py`). Each should have length 1; guidance leads away from zeros.
    ///
    /// # Errors
    /// [`Error::Conditioning`] where the model takes no embeddings.
    pub fn embeddings(&self, context: Tensor<3>) -> Result<Sampling<'_>, Error> {
        let conditioning = self.condition(&Condition::Context(context.to_device(&self.device)))?;
        let zeros = conditioning.zeros_like();
        Ok(self.conditioned(conditioning)?.unconditional(zeros))
    }
}

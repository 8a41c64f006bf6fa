use burn::tensor::{DType, Device, Tensor};

use super::{EvaluateError, ModelError};
use crate::data::Loader;

/// Every picture of a data set by its caption, as the first stage's latent.
#[derive(Debug, Clone)]
pub struct Catalogue {
    keys: Vec<String>,
    captions: Vec<String>,
    /// `size` numbers a picture.
    latents: Vec<f32>,
    size: usize,
}

impl Catalogue {
    /// Encodes the loader's pictures in the data's order; broken ones are left out.
    ///
    /// `encode`: `[b, 3, h, w]` in [-1, 1] to `[b, c, h/f, w/f]`, best the posterior's mean.
    ///
    /// # Errors
    ///
    /// What the data or the model says; [`EvaluateError::Shape`] where latents are of several sizes.
    pub fn encode(
        loader: &Loader,
        device: &Device,
        mut encode: impl FnMut(Tensor<4>) -> Result<Tensor<4>, ModelError>,
    ) -> Result<Self, EvaluateError> {
        let mut catalogue = Self { keys: Vec::new(), captions: Vec::new(), latents: Vec::new(), size: 0 };
        for batch in loader.once()? {
            let batch = batch?;
            let latents = encode(batch.to_tensor(device)).map_err(EvaluateError::Model)?;
            let found = latents.dims();
            let size = found[1..].iter().product();
            if found[0] != batch.len() || (catalogue.size != 0 && size != catalogue.size) {
                let expected = vec![batch.len(), catalogue.size];
                return Err(EvaluateError::Shape { what: "latents", found: found.to_vec(), expected });
            }
            catalogue.size = size;
            catalogue.latents.extend(values(latents)?);
            catalogue.keys.extend(batch.keys);
            catalogue.captions.extend(batch.captions);
        }
        Ok(catalogue)
    }

    /// How many pictures.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Every picture's name, in order.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Every picture's caption, in order.
    pub fn captions(&self) -> &[String] {
        &self.captions
    }

    /// Numbers in a latent.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The squared distance of a latent to a picture's.
    pub(super) fn distance(&self, latent: &[f32], picture: usize) -> f64 {
        let of_picture = &self.latents[picture * self.size..(picture + 1) * self.size];
        latent.iter().zip(of_picture).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }
}

pub(super) fn values(tensor: Tensor<4>) -> Result<Vec<f32>, EvaluateError> {
    let error = |e: String| EvaluateError::Device(e);
    let data = tensor.cast(DType::F32).try_into_data().map_err(|e| error(format!("{e:?}")))?;
    data.try_into_vec::<f32>().map_err(|e| error(format!("{e:?}")))
}

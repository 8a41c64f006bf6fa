use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use ldm_vae::{AutoencoderKl, Encoded, FirstStage};

use super::RunError;
use crate::data::{Batch, CacheKey, LatentCache, Loader};

/// How a diffusion model's run comes by latents.
#[derive(Debug, Clone)]
pub enum Latents {
    /// The first stage has encoded every view of every picture before the run began.
    Cached(Arc<LatentCache>),
    /// It encodes each batch: where crops are taken anywhere or of any size, and where there is no posterior to keep.
    Encoded,
}

impl Latents {
    /// The cache at `path`, which is built first if it isn't there, as long as the loader's views can be counted.
    ///
    /// # Errors
    ///
    /// A cache of another first stage or other data; what the data or the first stage says.
    pub fn open(
        path: &Path,
        loader: &Loader,
        first_stage: &FirstStage,
        device: &Device,
    ) -> Result<Self, RunError> {
        let Some(first_stage) = Self::kept(loader, first_stage) else { return Ok(Self::Encoded) };
        let key = CacheKey::new(first_stage, loader)?;
        let encode = |pictures| first_stage.encode(pictures);
        Ok(Self::Cached(Arc::new(LatentCache::open_or_build(path, loader, key, device, encode)?)))
    }

    /// Whether [`open`](Self::open) has every view to encode first, which takes a while.
    pub fn are_missing(path: &Path, loader: &Loader, first_stage: &FirstStage) -> bool {
        Self::kept(loader, first_stage).is_some() && !path.exists()
    }

    /// The first stage, where what it says of every view can be kept.
    fn kept<'a>(loader: &Loader, first_stage: &'a FirstStage) -> Option<&'a AutoencoderKl> {
        match first_stage {
            FirstStage::Kl(first_stage) if loader.views().is_some() => Some(first_stage),
            _ => None,
        }
    }

    /// The cache, for the loader to leave the pictures out.
    pub fn cache(&self) -> Option<Arc<LatentCache>> {
        match self {
            Self::Cached(cache) => Some(cache.clone()),
            Self::Encoded => None,
        }
    }

    /// The posteriors of a batch's pictures.
    pub(super) fn of(
        &self,
        first_stage: &FirstStage,
        batch: &Batch,
        device: &Device,
    ) -> Result<Encoded, RunError> {
        match (self, &batch.views) {
            (Self::Cached(cache), Some(views)) => Ok(Encoded::Posterior(cache.posterior(views, device)?)),
            _ => Ok(first_stage.encode(batch.to_tensor(device))?),
        }
    }
}

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_vae::{DiagonalGaussian, VaeError};

use super::{DataError, Loader, latent_file};

/// What the first stage makes of every view of a data set: mean and log-variance, to be sampled anew each step.
///
/// A view is a picture with its crop and flip ([`crate::data::Batch::views`]). Values are f32 on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentCache {
    pub(super) key: CacheKey,
    /// Channels, height, width of a latent.
    pub(super) shape: [usize; 3],
    /// View -> place in the values.
    pub(super) places: HashMap<u64, usize>,
    pub(super) means: Vec<f32>,
    pub(super) logvars: Vec<f32>,
}

/// What a cache was made from. One made from anything else is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKey {
    /// Fingerprint of the first stage's weights.
    pub first_stage: String,
    /// The transform, as JSON.
    pub transform: String,
    /// Fingerprint of the items' numbers and names.
    pub data: String,
}

impl CacheKey {
    /// The key of this first stage's latents of this loader's data.
    ///
    /// # Errors
    ///
    /// Where the weights can't be read from their device, or the data can't be walked.
    pub fn new<M: Module>(first_stage: &M, loader: &Loader) -> Result<Self, DataError> {
        let transform = serde_json::to_string(&loader.config().transform)
            .map_err(|e| DataError::config("transform", &loader.config().transform, e.to_string()))?;
        let (first_stage, data) = (weights_fingerprint(first_stage)?, loader.source().fingerprint()?);
        Ok(Self { first_stage, transform, data })
    }
}

impl LatentCache {
    /// The cache at `path` if it is there, else one that is built and written there.
    ///
    /// # Errors
    ///
    /// [`DataError::Stale`] for a file of another first stage, transform or data set; otherwise as [`LatentCache::build`]
    /// and [`LatentCache::save`].
    pub fn open_or_build(
        path: &Path,
        loader: &Loader,
        key: CacheKey,
        device: &Device,
        encode: impl FnMut(Tensor<4>) -> Result<DiagonalGaussian, VaeError>,
    ) -> Result<Self, DataError> {
        if path.exists() {
            return Self::load(path, &key);
        }
        let cache = Self::build(loader, key, device, encode)?;
        cache.save(path)?;
        Ok(cache)
    }

    /// Encodes every view of every picture, in the loader's batches; broken pictures are left out.
    ///
    /// `encode` takes `[b, 3, size, size]` in [-1, 1].
    ///
    /// # Errors
    ///
    /// [`DataError::Config`] where views can't be counted, naming the key; what the data or the first stage says.
    pub fn build(
        loader: &Loader,
        key: CacheKey,
        device: &Device,
        mut encode: impl FnMut(Tensor<4>) -> Result<DiagonalGaussian, VaeError>,
    ) -> Result<Self, DataError> {
        loader.config().transform.numbered("latents of crops anywhere or of any size can't be kept")?;
        let mut cache =
            Self { key, shape: [0; 3], places: HashMap::new(), means: Vec::new(), logvars: Vec::new() };
        for batch in loader.once()? {
            let batch = batch?;
            let posterior = encode(batch.to_tensor(device)).map_err(|e| DataError::Encode(e.to_string()))?;
            let [_, shape @ ..] = posterior.mean().dims();
            cache.shape = shape;
            cache.means.extend(values(posterior.mean())?);
            cache.logvars.extend(values(posterior.logvar())?);
            for view in batch.views.unwrap_or_default() {
                let place = cache.places.len();
                cache.places.insert(view, place);
            }
        }
        Ok(cache)
    }

    /// Reads a cache that was made from what `key` says.
    ///
    /// # Errors
    ///
    /// [`DataError::Stale`] if it was made from something else, naming it; [`DataError::Cache`] for a file that is damaged.
    pub fn load(path: &Path, key: &CacheKey) -> Result<Self, DataError> {
        latent_file::load(path, key)
    }

    /// Writes the cache as safetensors, whole or not at all.
    ///
    /// # Errors
    ///
    /// Where the file can't be written.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        latent_file::save(self, path)
    }

    /// How many views it holds.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether it holds this view.
    pub fn contains(&self, view: u64) -> bool {
        self.places.contains_key(&view)
    }

    /// The posterior of these views, in this order: a Gaussian over `[b, c, h, w]`.
    ///
    /// # Errors
    ///
    /// [`DataError::NotCached`].
    pub fn posterior(&self, views: &[u64], device: &Device) -> Result<DiagonalGaussian, DataError> {
        let [c, h, w] = self.shape;
        let (size, mut means, mut logvars) = (c * h * w, Vec::new(), Vec::new());
        for view in views {
            let place = *self.places.get(view).ok_or(DataError::NotCached { view: *view })?;
            means.extend_from_slice(&self.means[place * size..(place + 1) * size]);
            logvars.extend_from_slice(&self.logvars[place * size..(place + 1) * size]);
        }
        let tensor = |values| {
            Tensor::<4>::from_data(TensorData::new(values, [views.len(), c, h, w]), (device, DType::F32))
        };
        DiagonalGaussian::new(tensor(means), tensor(logvars)).map_err(|e| DataError::Encode(e.to_string()))
    }
}

fn values(tensor: Tensor<4>) -> Result<Vec<f32>, DataError> {
    let data = tensor.cast(DType::F32).try_into_data().map_err(|e| DataError::Encode(format!("{e:?}")))?;
    data.try_into_vec::<f32>().map_err(|e| DataError::Encode(format!("{e:?}")))
}

/// The fingerprint of a module's float parameters.
pub(crate) fn weights_fingerprint<M: Module>(module: &M) -> Result<String, DataError> {
    let mut weights = Weights { hash: Fnv::default(), error: None };
    module.visit(&mut weights);
    match weights.error {
        Some(error) => Err(DataError::Encode(error)),
        None => Ok(weights.hash.hex()),
    }
}

/// FNV-1a over 64 bits: told apart are files of one's own, not forgeries.
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// An item of a data set.
    pub(super) fn add_item(&mut self, index: u64, key: &str) {
        self.add(&index.to_le_bytes());
        self.add(key.as_bytes());
    }

    pub(super) fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}

/// The fingerprint of a module's float parameters, in the module's order.
struct Weights {
    hash: Fnv,
    error: Option<String>,
}

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        match param.val().try_into_data() {
            Ok(data) => {
                for side in data.shape().iter() {
                    self.hash.add(&side.to_le_bytes());
                }
                self.hash.add(data.as_bytes());
            }
            Err(e) => self.error = Some(format!("{e:?}")),
        }
    }
}

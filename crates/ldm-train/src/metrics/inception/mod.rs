//! The feature extractor of FID, sFID, Inception Score, precision and recall.

mod blocks;
mod layer;
mod resize;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::module::{adaptive_avg_pool2d, max_pool2d};
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm_nn::weights::{Entry, Loader, WeightFile};
use ldm_nn::{Linear, LinearConfig};
use rayon::prelude::*;

use super::folder::decode;
use super::{Features, MetricError};
use blocks::{InceptionA, InceptionB, InceptionC, InceptionD, InceptionE, Pool};
use layer::BasicConv2d;
use resize::resize_bilinear;

/// Side of the pictures that the network sees.
const SIDE: usize = 299;
/// Channels of the spatial features that sFID takes.
const SPATIAL_CHANNELS: usize = 7;
/// Side of the maps that the spatial features are of.
const SPATIAL_SIDE: usize = 17;

/// Inception v3 as TensorFlow published it in December 2015, which all published FIDs are of.
///
/// Not torchvision's: average pooling leaves the padding out, the last block pools by maximum, and it has 1008
/// classes. Source: `fid_inception_v3` of pytorch-fid's inception.py.
#[derive(Module, Debug)]
pub struct Inception {
    conv2d_1a_3x3: BasicConv2d,
    conv2d_2a_3x3: BasicConv2d,
    conv2d_2b_3x3: BasicConv2d,
    conv2d_3b_1x1: BasicConv2d,
    conv2d_4a_3x3: BasicConv2d,
    mixed_5b: InceptionA,
    mixed_5c: InceptionA,
    mixed_5d: InceptionA,
    mixed_6a: InceptionB,
    mixed_6b: InceptionC,
    mixed_6c: InceptionC,
    mixed_6d: InceptionC,
    mixed_6e: InceptionC,
    mixed_7a: InceptionD,
    mixed_7b: InceptionE,
    mixed_7c: InceptionE,
    fc: Linear,
}

/// What the network says of a batch of `b` pictures.
#[derive(Debug, Clone)]
pub struct Activations {
    /// `[b, 2048]`: the last pool's, for FID, precision and recall.
    pub pool: Tensor<2>,
    /// `[b, 17 * 17 * 7]`: rows, columns, then the first seven channels of the 1x1 branch of `Mixed_6d`
    /// (TensorFlow's `mixed_6/conv`), for sFID, in the order of guided-diffusion's files.
    pub spatial: Tensor<2>,
    /// `[b, 1008]`: class scores without bias, for the Inception Score.
    pub logits: Tensor<2>,
}

/// [`Activations`] of a whole set.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureSet {
    /// Width 2048.
    pub pool: Features,
    /// Width 2023.
    pub spatial: Features,
    /// Width 1008.
    pub logits: Features,
}

impl Inception {
    /// The network with weights from a file of pytorch-fid's names (`pt_inception-2015-12-05-6726825d.pth`, or the
    /// same as safetensors).
    ///
    /// # Errors
    /// [`MetricError::Weights`] names the tensors that are missing or of another shape.
    pub fn from_file(path: impl AsRef<Path>, device: &Device) -> Result<Self, MetricError> {
        let file = WeightFile::open(path)?;
        // `mixed_5b` is `Mixed_5b` in the file; `fc` is `fc`.
        let keys = |path: &str| {
            let (head, rest) = path.split_at(1);
            Some(Entry::same(if path.starts_with("fc.") { path.into() } else { head.to_uppercase() + rest }))
        };
        let (network, report) = Loader::new(&keys).ignore(["AuxLogits.*"]).load(Self::init(device), &file)?;
        if !report.unknown.is_empty() {
            tracing::warn!(unknown = ?report.unknown, "tensors that Inception has no use for");
        }
        Ok(network)
    }

    fn init(device: &Device) -> Self {
        let conv = |c, kernel: usize, stride| BasicConv2d::new(c, [kernel; 2], stride, [0; 2], device);
        let c = |width| InceptionC::new(width, device);
        Self {
            conv2d_1a_3x3: conv([3, 32], 3, 2),
            conv2d_2a_3x3: conv([32, 32], 3, 1),
            conv2d_2b_3x3: BasicConv2d::new([32, 64], [3; 2], 1, [1; 2], device),
            conv2d_3b_1x1: conv([64, 80], 1, 1),
            conv2d_4a_3x3: conv([80, 192], 3, 1),
            mixed_5b: InceptionA::new(192, 32, device),
            mixed_5c: InceptionA::new(256, 64, device),
            mixed_5d: InceptionA::new(288, 64, device),
            mixed_6a: InceptionB::new(device),
            mixed_6b: c(128),
            mixed_6c: c(160),
            mixed_6d: c(160),
            mixed_6e: c(192),
            mixed_7a: InceptionD::new(device),
            mixed_7b: InceptionE::new(1280, Pool::Average, device),
            mixed_7c: InceptionE::new(2048, Pool::Max, device),
            fc: LinearConfig::new(2048, 1008).init(device),
        }
    }

    /// Pictures `[b, 3, h, w]` in [-1, 1] (pytorch-fid's `2 x - 1`), of any size: they are resized to 299 as
    /// pytorch-fid does it, bilinearly, without antialiasing.
    pub fn forward(&self, pictures: Tensor<4>) -> Activations {
        let halve = |x| max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([2, 2]));
        let mut x = resize_bilinear(pictures, [SIDE; 2]);
        for layer in [&self.conv2d_1a_3x3, &self.conv2d_2a_3x3, &self.conv2d_2b_3x3] {
            x = layer.forward(x);
        }
        x = halve(x);
        for layer in [&self.conv2d_3b_1x1, &self.conv2d_4a_3x3] {
            x = layer.forward(x);
        }
        x = halve(x);
        for block in [&self.mixed_5b, &self.mixed_5c, &self.mixed_5d] {
            x = block.forward(x);
        }
        x = self.mixed_6a.forward(x);
        for block in [&self.mixed_6b, &self.mixed_6c] {
            x = Tensor::cat(block.branches(x), 1);
        }
        let branches = self.mixed_6d.branches(x);
        let spatial = branches[0].clone().slice([0..branches[0].dims()[0], 0..SPATIAL_CHANNELS]);
        x = Tensor::cat(self.mixed_6e.branches(Tensor::cat(branches, 1)), 1);
        x = self.mixed_7a.forward(x);
        for block in [&self.mixed_7b, &self.mixed_7c] {
            x = block.forward(x);
        }
        let pool = adaptive_avg_pool2d(x, [1, 1]).flatten::<2>(1, 3);
        let logits = pool.clone().matmul(self.fc.weight.val().transpose());
        Activations { pool, spatial: spatial.permute([0, 2, 3, 1]).flatten(1, 3), logits }
    }

    /// The features of picture files, `batch` at a time; `progress` is told how many are done.
    ///
    /// # Errors
    /// A file that can't be read or decoded; features that are not finite.
    pub fn extract(
        &self,
        files: &[PathBuf],
        batch: usize,
        mut progress: impl FnMut(usize),
    ) -> Result<FeatureSet, MetricError> {
        let device = self.fc.weight.lazy_device();
        let mut set = FeatureSet::default();
        for files in files.chunks(batch.max(1)) {
            let pictures: Vec<_> = files.par_iter().map(|path| decode(path)).collect::<Result<_, _>>()?;
            let resized = pictures.into_iter().map(|(shape, values)| {
                let picture = Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32));
                resize_bilinear(picture, [SIDE; 2])
            });
            set.push(self.forward(Tensor::cat(resized.collect(), 0)))?;
            progress(set.pool.rows());
        }
        Ok(set)
    }
}

impl FeatureSet {
    /// Adds a batch.
    ///
    /// # Errors
    /// Values that are not finite.
    pub fn push(&mut self, batch: Activations) -> Result<(), MetricError> {
        self.pool.push(batch.pool)?;
        self.spatial.push(batch.spatial)?;
        self.logits.push(batch.logits)
    }
}

impl Default for FeatureSet {
    fn default() -> Self {
        Self {
            pool: Features::new(2048),
            spatial: Features::new(SPATIAL_SIDE * SPATIAL_SIDE * SPATIAL_CHANNELS),
            logits: Features::new(1008),
        }
    }
}

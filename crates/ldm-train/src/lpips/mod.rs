//! Learned perceptual image patch similarity.

mod names;

use std::path::Path;

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{DType, Device, Tensor, TensorData, activation};
use ldm_nn::weights::{Loader, WeightError, WeightFile};
use ldm_nn::{Conv2d, Conv2dConfig};
use names::{Linear, Names, Trunk};

/// The distance of two pictures in the features of VGG16, weighted by learned numbers (Zhang et al. 2018).
///
/// Source: `LPIPS` in taming's losses/lpips.py, which is that of the `lpips` package with `net="vgg"`, version 0.1. It
/// has no dropout here: the reference's Lightning loop switches the linear layers' dropout of 0.5 on again, although
/// they were put into evaluation mode.
#[derive(Module, Debug)]
pub struct Lpips {
    /// 13 convolutions, 3x3, in five slices that end in a feature.
    pub convs: Vec<Conv2d>,
    /// `[1, c, 1, 1]` for each feature.
    pub lins: Vec<Param<Tensor<4>>>,
}

/// Channels of each slice's convolutions.
const SLICES: [&[usize]; 5] = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];

/// `ScalingLayer`: ImageNet's mean and deviation for pictures in [-1, 1].
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// `normalize_tensor`'s.
const EPS: f64 = 1e-10;

impl Lpips {
    /// The least side of a picture: four halvings.
    pub const LEAST_SIDE: usize = 16;

    /// Without weights: fresh convolutions and zero linear layers, to be loaded.
    fn new(device: &Device) -> Self {
        let mut c_in = 3;
        let convs = SLICES.into_iter().flatten().map(|c| {
            let c_in = std::mem::replace(&mut c_in, *c);
            Conv2dConfig::new([c_in, *c], 3).init(device)
        });
        let convs = convs.collect();
        let channels = SLICES.map(|slice| slice[slice.len() - 1]);
        let lins = channels.map(|c| Initializer::Zeros.init([1, c, 1, 1], device));
        Self { convs, lins: lins.into() }
    }

    /// Reads the published weights: the trunk's from torchvision's `vgg16-397923af.pth`, the linear layers' from the
    /// `lpips` package's `weights/v0.1/vgg.pth` (taming's `vgg_lpips` is the same), or both from one file: a saved
    /// `LPIPS`, or a first stage's checkpoint, which keeps one under `loss.perceptual_loss.`. Each file is a
    /// safetensors file or a `.pth` of tensors; the model is put on `device`, in f32.
    ///
    /// # Errors
    /// A file that can't be read, that names its tensors otherwise, or lacks some.
    pub fn load(
        trunk: impl AsRef<Path>,
        linear: Option<&Path>,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let file = WeightFile::open(trunk)?;
        let names = Names { trunk: Trunk::of(&file), linear: None };
        let model = Self::new(&device.clone().inner());
        let (model, _) = match linear {
            Some(linear) => {
                let (model, _) = Loader::new(&names).load(model, &file)?;
                let file = WeightFile::open(linear)?;
                let names = Names { trunk: None, linear: Some(Linear::of(&file)) };
                Loader::new(&names).load(model, &file)?
            }
            None => {
                let names = Names { linear: Some(Linear::of(&file)), ..names };
                Loader::new(&names).load(model, &file)?
            }
        };
        Ok(model.valid())
    }

    /// The distance of each item: `a`, `b` `[b, 3, h, w]` in [-1, 1], sides of at least
    /// [`LEAST_SIDE`](Self::LEAST_SIDE), give `[b, 1, 1, 1]`; in f32.
    ///
    /// Gradients reach what records them, here the pictures alone, and are finite wherever features vanish.
    pub fn forward(&self, a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
        let (a, b) = (self.features(a), self.features(b));
        let distances = a.into_iter().zip(b).zip(&self.lins).map(|((a, b), lin)| {
            let difference = (normalised(a) - normalised(b)).square();
            (difference * lin.val().cast(DType::F32)).sum_dim(1).mean_dim(2).mean_dim(3)
        });
        // Five features, so there is a first.
        distances.reduce(|sum, distance| sum + distance).unwrap_or_else(|| unreachable!("five features"))
    }

    /// What each slice of the trunk ends in, after its ReLU.
    fn features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let row = |values: [f32; 3]| {
            let device = x.device().inner();
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 3, 1, 1]), (&device, DType::F32))
        };
        let mut x = (x.clone().cast(DType::F32) - row(SHIFT)) / row(SCALE);
        let mut convs = self.convs.iter();
        let mut features = Vec::with_capacity(SLICES.len());
        for (i, slice) in SLICES.into_iter().enumerate() {
            if i > 0 {
                x = max_pool2d(x, MaxPoolOptions::new([2, 2]));
            }
            for conv in convs.by_ref().take(slice.len()) {
                x = activation::relu(conv.forward(x));
            }
            features.push(x.clone());
        }
        features
    }
}

/// Each pixel's features divided by their length (`normalize_tensor`).
///
/// The square root has no derivative at 0, where whole feature vectors lie on flat pictures; PyTorch gives NaN there.
/// Below f32's reach the length is held fixed, which changes no value.
fn normalised(x: Tensor<4>) -> Tensor<4> {
    let length = x.clone().square().sum_dim(1).clamp_min(EPS * EPS).sqrt();
    x / (length + EPS)
}

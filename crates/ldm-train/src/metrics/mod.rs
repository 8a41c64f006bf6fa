//! How good pictures are: PSNR and SSIM, FID, sFID, Inception Score, precision and recall, CLIP score.
//!
//! Statistics are f64 on the CPU, whatever the features were computed on. Feature extractors take their weights
//! from a file ([`Inception::from_file`]); every figure can also be had from features alone.
//!
//! burn-train has PSNR, SSIM and FID too, but its feature `vision` always switches the flex backend on and brings
//! its dashboard and data sets, its FID is an f32 Newton-Schulz iteration with a ridge, and its pictures are
//! normalised with ImageNet's statistics where the published figures use `2 x - 1`.
//!
//! ```no_run
//! # use ldm_train::metrics::*;
//! # fn main() -> Result<(), MetricError> {
//! # let device = burn::tensor::Device::default();
//! let inception = Inception::from_file("pt_inception-2015-12-05-6726825d.pth", &device)?;
//! let drawn = inception.extract(&pictures_in("samples")?, 16, |_| {})?;
//! let real = inception.extract(&pictures_in("photographs")?, 16, |_| {})?;
//! let fid = frechet_distance(&Statistics::of(&drawn.pool)?, &Statistics::of(&real.pool)?)?;
//! # let _ = fid; Ok(()) }
//! ```

mod clip_model;
mod clip_score;
mod error;
mod features;
mod folder;
mod frechet;
mod inception;
mod inception_score;
mod npz;
mod precision_recall;
mod psnr;
mod ssim;
mod statistics;

pub use clip_model::ClipModel;
pub use clip_score::{clip_score, clip_scores};
pub use error::MetricError;
pub use features::Features;
pub use folder::{pairs_in, pictures_in, read_picture};
pub use frechet::frechet_distance;
pub use inception::{Activations, FeatureSet, Inception};
pub use inception_score::{InceptionScore, Splits, inception_score};
pub use npz::StatisticsKind;
pub use precision_recall::{PrecisionRecall, precision_recall};
pub use psnr::psnr;
pub use ssim::ssim;
pub use statistics::{Moments, Statistics};

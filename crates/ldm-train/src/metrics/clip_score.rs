use burn::tensor::Tensor;

use super::{Features, MetricError};

/// `100 cos` between each picture's and its text's embedding in CLIP's common space.
///
/// `pictures` and `texts`: `[n, d]`, as the encoders' projections give them; their lengths don't matter.
///
/// # Errors
/// Shapes that differ; values that are not finite.
pub fn clip_scores(pictures: Tensor<2>, texts: Tensor<2>) -> Result<Vec<f64>, MetricError> {
    let (left, right) = (pictures.dims().to_vec(), texts.dims().to_vec());
    if left != right {
        return Err(MetricError::Shapes { what: "embeddings", left, right });
    }
    let (pictures, texts) = (Features::try_from(pictures)?, Features::try_from(texts)?);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let rows = |features: &Features| features.values().to_vec();
    let (a, b, d) = (rows(&pictures), rows(&texts), pictures.width());
    let score = |(a, b): (&[f32], &[f32])| 100.0 * dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    Ok(a.chunks(d).zip(b.chunks(d)).map(score).collect())
}

/// The CLIP score of a set: the mean of [`clip_scores`], and 0 where that is negative, as torchmetrics' `CLIPScore`.
/// (Hessel et al. 2021 write it with 2.5 for 100.)
///
/// # Errors
/// As [`clip_scores`]; no pair at all.
pub fn clip_score(pictures: Tensor<2>, texts: Tensor<2>) -> Result<f64, MetricError> {
    let scores = clip_scores(pictures, texts)?;
    if scores.is_empty() {
        return Err(MetricError::TooFew { what: "pairs of picture and text", got: 0, needed: 1 });
    }
    Ok((scores.iter().sum::<f64>() / scores.len() as f64).max(0.0))
}

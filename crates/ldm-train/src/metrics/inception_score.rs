use super::{Features, MetricError};

/// `exp(E KL(p(y|x) || p(y)))` over the splits of a set of pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InceptionScore {
    /// Mean over the splits.
    pub mean: f64,
    /// Standard deviation over the splits (of the population, as numpy's `std`).
    pub std: f64,
}

/// How the pictures are split, in the order in which they are given.
///
/// torch-fidelity shuffles them first by default; a folder's order is often by class, so shuffle yours too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splits {
    /// This many parts (torch-fidelity: 10).
    Count(usize),
    /// Parts of this many pictures, the last one with what is left (guided-diffusion: 5000).
    Size(usize),
}

/// Inception Score of logits `[n, classes]`, without the last layer's bias as both references take them.
///
/// Sources: Salimans et al. 2016; torch-fidelity's metric_isc.py, guided-diffusion's evaluator.py.
///
/// # Errors
/// No picture, or fewer pictures than parts.
pub fn inception_score(logits: &Features, splits: Splits) -> Result<InceptionScore, MetricError> {
    let n = logits.rows();
    let needed = match splits {
        Splits::Count(parts) => parts.max(1),
        Splits::Size(_) => 1,
    };
    if n < needed || matches!(splits, Splits::Count(0) | Splits::Size(0)) {
        return Err(MetricError::TooFew { what: "pictures for an Inception Score", got: n, needed });
    }
    let width = logits.width();
    let log_p: Vec<Vec<f64>> = logits.values().chunks(width).map(log_softmax).collect();
    let scores: Vec<f64> = match splits {
        Splits::Count(parts) => {
            (0..parts).map(|i| score(&log_p[i * n / parts..(i + 1) * n / parts])).collect()
        }
        Splits::Size(size) => log_p.chunks(size).map(score).collect(),
    };
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / scores.len() as f64;
    Ok(InceptionScore { mean, std: variance.sqrt() })
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |m, v| m.max(f64::from(*v)));
    let log_sum = logits.iter().map(|v| (f64::from(*v) - largest).exp()).sum::<f64>().ln() + largest;
    logits.iter().map(|v| f64::from(*v) - log_sum).collect()
}

fn score(log_p: &[Vec<f64>]) -> f64 {
    let n = log_p.len() as f64;
    let mut q = vec![0.0; log_p[0].len()];
    for row in log_p {
        q.iter_mut().zip(row).for_each(|(q, v)| *q += v.exp() / n);
    }
    let kl = |row: &Vec<f64>| -> f64 {
        // p ln p is 0 where p is.
        row.iter().zip(&q).map(|(v, q)| if v.exp() > 0.0 { v.exp() * (v - q.ln()) } else { 0.0 }).sum()
    };
    (log_p.iter().map(kl).sum::<f64>() / n).exp()
}

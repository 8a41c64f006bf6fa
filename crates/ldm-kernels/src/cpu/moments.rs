/// Elements that are summed in f32 before f64 takes over: they stay in the first-level cache between passes.
const BLOCK: usize = 2048;
/// Independent partial sums, so that additions needn't wait for each other.
const LANES: usize = 32;

multiversion! {
    /// Mean and (biased) variance; blocks in two passes, joined in f64 (Chan et al. 1979).
    pub fn moments(x: &[f32]) -> (f64, f64) {
        let (mut n, mut mean, mut m2) = (0.0, 0.0, 0.0);
        for block in x.chunks(BLOCK) {
            let count = block.len() as f64;
            let block_mean = sum(block, |v| v) / count;
            let center = block_mean as f32;
            let squares = sum(block, |v| (v - center) * (v - center));
            // `center` is the mean rounded to f32: the squares were taken about it, not about the mean.
            let off = block_mean - f64::from(center);
            let delta = block_mean - mean;
            let total = n + count;
            m2 += squares - off * off * count + delta * delta * n * count / total;
            mean += delta * count / total;
            n = total;
        }
        (mean, m2 / n)
    }
}

#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|v| f64::from(f(*v))).sum();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += f(*v);
        }
    }
    lanes.iter().map(|v| f64::from(*v)).sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::moments;

    #[test]
    fn equals_the_definition_in_f64() {
        for n in [1, 31, 32, 2048, 2049, 5000] {
            let x: Vec<f32> = (0..n).map(|i| 10.0 + ((i * 7919) % 1013) as f32 / 1013.0).collect();
            let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            let variance = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n as f64;
            let (m, v) = moments(&x);
            assert!((m - mean).abs() < 1e-6, "{n}: mean {m} {mean}");
            assert!((v - variance).abs() < 1e-6, "{n}: variance {v} {variance}");
        }
    }
}

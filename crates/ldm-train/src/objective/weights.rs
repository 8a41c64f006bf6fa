//! What each timestep's loss is multiplied with.

use ldm_scheduler::NoiseSchedule;

use super::{ObjectiveConfig, Parameterization};

/// Weights of the variational bound for t = 0 ... T - 1, T at least 2.
///
/// Source: `lvlb_weights` of ddpm.py's `register_schedule`, the x0 formula as it stands there; ones for v, as in
/// Stability's ddpm.py. The first would be infinite and takes the second's value.
pub(super) fn elbo(config: &ObjectiveConfig, schedule: &NoiseSchedule) -> Vec<f32> {
    let (mut bar, mut weights) = (1.0, Vec::with_capacity(schedule.len()));
    for beta in schedule.betas().iter().map(|beta| f64::from(*beta)) {
        let alpha = 1.0 - beta;
        let before = bar;
        bar *= alpha;
        let weight = match config.parameterization {
            Parameterization::Eps => {
                let v = config.v_posterior;
                let variance = (1.0 - v) * beta * (1.0 - before) / (1.0 - bar) + v * beta;
                beta * beta / (2.0 * variance * alpha * (1.0 - bar))
            }
            Parameterization::X0 => 0.5 * bar.sqrt() / (2.0 - bar),
            Parameterization::V => 1.0,
        };
        weights.push(weight as f32);
    }
    if let [first, second, ..] = weights.as_mut_slice() {
        *first = *second;
    }
    weights
}

/// min-SNR-gamma weights for t = 0 ... T - 1 (Hang et al. 2023): `min(SNR, gamma)` in units of x0, so divided by
/// SNR for the noise and by SNR + 1 for v, as diffusers' train_text_to_image.py does.
pub(super) fn min_snr(gamma: f64, parameterization: Parameterization, schedule: &NoiseSchedule) -> Vec<f32> {
    let weight = |bar: &f32| {
        let bar = f64::from(*bar);
        let snr = bar / (1.0 - bar);
        let weight = match parameterization {
            Parameterization::Eps => snr.min(gamma) / snr,
            Parameterization::X0 => snr.min(gamma),
            Parameterization::V => snr.min(gamma) / (snr + 1.0),
        };
        weight as f32
    };
    schedule.alphas_bar().iter().map(weight).collect()
}

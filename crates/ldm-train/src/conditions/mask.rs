use ldm_scheduler::NativeRng;

use crate::data::random::{below, uniform};

/// A hole to be painted anew, `[side, side]` of 0 and 1 (1: the hole): a few rectangles and thick strokes.
///
/// The paper's masks are LaMa's (section 4.5), whose generator is not published with the reference; these are of the
/// same two kinds.
pub(super) fn draw(side: usize, rng: &mut NativeRng) -> Vec<f32> {
    let mut mask = vec![0.0; side * side];
    let length = |rng: &mut NativeRng, least: usize, most: usize| {
        let least = (side / least).max(1);
        least + below(rng, (side / most).saturating_sub(least) + 1)
    };
    for _ in 0..below(rng, 3) {
        let (w, h) = (length(rng, 8, 2), length(rng, 8, 2));
        let (left, top) = (below(rng, side - w + 1), below(rng, side - h + 1));
        for y in top..top + h {
            mask[y * side + left..][..w].fill(1.0);
        }
    }
    for _ in 0..1 + below(rng, 3) {
        let radius = (length(rng, 32, 10) as f64 / 2.0).max(0.5);
        let mut at = [uniform(rng) * side as f64, uniform(rng) * side as f64];
        for _ in 0..1 + below(rng, 4) {
            let to = [uniform(rng) * side as f64, uniform(rng) * side as f64];
            stroke(&mut mask, side, [at, to], radius);
            at = to;
        }
    }
    mask
}

/// Every pixel whose middle lies within `radius` of the line.
fn stroke(mask: &mut [f32], side: usize, [from, to]: [[f64; 2]; 2], radius: f64) {
    let along = [to[0] - from[0], to[1] - from[1]];
    let length = (along[0] * along[0] + along[1] * along[1]).max(1e-9);
    for (i, pixel) in mask.iter_mut().enumerate() {
        let p = [(i % side) as f64 + 0.5 - from[0], (i / side) as f64 + 0.5 - from[1]];
        let t = ((p[0] * along[0] + p[1] * along[1]) / length).clamp(0.0, 1.0);
        let off = [p[0] - t * along[0], p[1] - t * along[1]];
        if off[0] * off[0] + off[1] * off[1] <= radius * radius {
            *pixel = 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_of_all_sizes() {
        for side in [8, 64] {
            let mut rng = NativeRng::new(3);
            let mut shares: Vec<f32> =
                (0..200).map(|_| draw(side, &mut rng).iter().sum::<f32>() / (side * side) as f32).collect();
            shares.sort_by(f32::total_cmp);
            assert!(shares[10] > 0.01 && shares[190] < 0.9, "{side}: {} to {}", shares[10], shares[190]);
            assert!(shares[190] > 3.0 * shares[10], "{side}: {} to {}", shares[10], shares[190]);
        }
        let draw = |seed| draw(32, &mut NativeRng::new(seed));
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }
}

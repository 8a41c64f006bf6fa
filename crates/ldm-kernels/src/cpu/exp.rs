//! The exponential and what follows from it, written so that the compiler vectorises loops over them.

/// `e^x` to 2 ulp for x in [-87, 88], clamped outside; NaN stays NaN.
///
/// `x = n ln 2 + r`, a polynomial in r (Cephes' `expf`), and n added to the exponent. Adding 1.5 * 2^23 rounds to an
/// integer and leaves it in the low bits of the sum, so no float-to-int conversion is needed.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.500_000_1;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    p * power
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_two_ulp() {
        for i in -86_999..88_000 {
            let x = i as f32 * 1e-3;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.4e-7, "exp({x}): relative error {error:e}");
        }
    }

    #[test]
    fn the_ends_are_tame() {
        assert!(exp(f32::NAN).is_nan() && silu(f32::NAN).is_nan());
        assert!(exp(-1e30) < 1e-37 && exp(1e30).is_finite());
        assert_eq!(silu(50.0), 50.0);
        assert!(silu(-1e4).abs() < 1e-30);
    }
}

//! What the tests of every crate share: fixtures made by the reference implementations, weights drawn
//! from a name, and one measure of closeness.
//!
//! A fixture is a safetensors file in `tests/fixtures`, made by a script in `tests/reference`. Weights are
//! not stored: both sides draw them from the tensor's name and shape ([`seeded_weight`] here,
//! `tests/reference/seeded.py` there), bit for bit alike.

mod fixture;
mod seeded;
mod torch;
mod warnings;

pub use fixture::Fixture;
pub use seeded::{seeded_input, seeded_weight, write_weights};
pub use torch::{pickled_state_dict, write_torch, write_torch_deflated};
pub use warnings::with_warnings;

use burn::tensor::Tensor;

/// `max |a - b| / max |b|`, in f64; infinite where a value is NaN or the shapes differ.
pub fn relative_difference<const D: usize>(actual: &Tensor<D>, expected: &Tensor<D>) -> f64 {
    if actual.dims() != expected.dims() {
        return f64::INFINITY;
    }
    let values = |t: &Tensor<D>| t.to_data().iter::<f64>().collect::<Vec<_>>();
    let (a, b) = (values(actual), values(expected));
    let largest = b.iter().fold(0f64, |m, v| m.max(v.abs()));
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
    let worst = worst.fold(0f64, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) });
    if worst == 0.0 { 0.0 } else { worst / largest }
}

/// Panics unless [`relative_difference`] is at most `tolerance`; prints the measured difference.
#[track_caller]
pub fn assert_close<const D: usize>(name: &str, actual: &Tensor<D>, expected: &Tensor<D>, tolerance: f64) {
    let difference = relative_difference(actual, expected);
    println!("{name}: difference {difference:.2e} (at most {tolerance:.0e})");
    assert!(
        difference <= tolerance,
        "{name}: shapes {:?} and {:?}, difference {difference:.3e} > {tolerance:.0e}",
        actual.dims(),
        expected.dims(),
    );
}

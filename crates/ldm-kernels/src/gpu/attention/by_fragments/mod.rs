//! Flash attention where a plane's units know which values of a product they hold, as on CUDA: scores, probabilities and
//! sums never leave the registers, and of shared memory only rows and lines are read.
//!
//! The softmax's reference lags behind as it does with tiles (see [`super`]), so that a score costs one product by the
//! scale, one exponential, one sum and one comparison, and no unit asks another.

#[cfg(feature = "autodiff")]
pub mod backward;
pub mod forward;
#[cfg(feature = "autodiff")]
mod known;
mod rows;

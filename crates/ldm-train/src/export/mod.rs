//! Finished models in the formats that others read, and first stages read from them.

mod first_stage;

pub use first_stage::{load_first_stage, save_first_stage};

//! Weight files: reading, naming, loading into modules, writing.
//!
//! A module's own parameter paths (`down.0.resnets.1.conv1.weight`) are mapped *forward* to the names
//! that a file uses, by a [`KeyMap`]. Loading and saving share the one map, so a name is never parsed.

mod key;

pub use key::{Entry, KeyMap, Layout};

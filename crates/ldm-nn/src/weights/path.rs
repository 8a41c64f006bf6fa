//! The path of the parameter that a walk through a module has reached.

/// The path of the parameter that a walk through a module has reached: the one that a
/// [`KeyMap`](super::KeyMap) is asked for.
///
/// A visitor or mapper passes its `enter_module` and `exit_module` on to it.
#[derive(Debug, Clone, Default)]
pub struct Path(Vec<String>);

impl Path {
    /// An enum's variant is no part of the path: which variant a config chose is not the file's business.
    pub fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.push(name.into());
        }
    }

    /// The way back from [`enter`](Self::enter).
    pub fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.pop();
        }
    }

    /// The parts joined by dots.
    pub fn joined(&self) -> String {
        self.0.join(".")
    }
}

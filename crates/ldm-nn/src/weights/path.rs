//! The path of the parameter that a walk through a module has reached.

/// The path of the parameter that a walk through a module has reached.
#[derive(Debug, Default)]
pub(super) struct Path(Vec<String>);

impl Path {
    /// An enum's variant is no part of the path: which variant a config chose is not the file's business.
    pub fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.push(name.into());
        }
    }

    pub fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.pop();
        }
    }

    pub fn joined(&self) -> String {
        self.0.join(".")
    }
}

//! From a module's parameter path to the name and the shape that a weight file gives it.

use super::layout::Layout;

/// Where a parameter lies in a weight file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tensor's name in the file.
    pub key: String,
    /// How the file's tensor relates to the parameter.
    pub layout: Layout,
}

impl Entry {
    /// A tensor of the same shape as its parameter.
    pub fn same(key: impl Into<String>) -> Self {
        Self::new(key, Layout::Same)
    }

    /// A tensor of another layout.
    pub fn new(key: impl Into<String>, layout: Layout) -> Self {
        Self { key: key.into(), layout }
    }
}

/// Names every parameter of one model in one file format.
///
/// `path` is the parameter's path in our module, its parts joined by dots; the name of an enum's variant
/// is no part of it. Every `Fn(&str) -> Option<Entry>` is a key map.
pub trait KeyMap {
    /// Where the parameter at `path` lies in the file; `None` for one that the format does not hold.
    fn entry(&self, path: &str) -> Option<Entry>;

    /// All places where files of this format keep the parameter at `path`, in the order in which they are
    /// tried. The first one is written when saving. Default: [`entry`](Self::entry) alone.
    fn entries(&self, path: &str) -> Vec<Entry> {
        self.entry(path).into_iter().collect()
    }
}

impl<F: Fn(&str) -> Option<Entry>> KeyMap for F {
    fn entry(&self, path: &str) -> Option<Entry> {
        self(path)
    }
}

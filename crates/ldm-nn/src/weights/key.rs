//! From a module's parameter path to the name and the shape that a weight file gives it.

/// Where a parameter lies in a weight file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tensor's name in the file.
    pub key: String,
    /// How the file's tensor relates to the parameter.
    pub layout: Layout,
}

/// How a file's tensor relates to the parameter that is loaded from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// The same shape.
    #[default]
    Same,
    /// The parameter `[a, b]` is kept as `[b, a]` (OpenCLIP's `text_projection`).
    Transposed,
    /// The parameter `[a, b]` is kept as a 1x1 convolution `[a, b, 1, 1]`.
    Conv2d1x1,
    /// The parameter `[a, b]` is kept as a 1x1 convolution `[a, b, 1]`.
    Conv1d1x1,
    /// One of three parameters stacked along the first axis of the file's tensor: query, key, value.
    Qkv {
        /// 0 query, 1 key, 2 value.
        part: usize,
        /// With `Some(heads)` the parts are stacked inside each head: `[heads, 3, width]` rows.
        per_head: Option<usize>,
        /// The file's tensor has a trailing axis of 1 (a 1x1 `Conv1d`).
        conv: bool,
    },
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
/// `path` is the parameter's path in our module, its parts joined by dots.
pub trait KeyMap {
    /// Where the parameter at `path` lies in the file; `None` for one that the format does not hold.
    fn entry(&self, path: &str) -> Option<Entry>;
}

impl<F: Fn(&str) -> Option<Entry>> KeyMap for F {
    fn entry(&self, path: &str) -> Option<Entry> {
        self(path)
    }
}

//! How a file's tensor relates to the parameter that is loaded from it.

use std::ops::Range;

use super::element::Rearrange;

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

impl Layout {
    /// The file's shape of a parameter of shape `param`; `None` where the layout doesn't fit such a shape.
    pub fn file_shape(&self, param: &[usize]) -> Option<Vec<usize>> {
        let mut shape = param.to_vec();
        match *self {
            Self::Same => {}
            Self::Transposed if param.len() == 2 => shape.reverse(),
            Self::Conv2d1x1 if param.len() == 2 => shape.extend([1, 1]),
            Self::Conv1d1x1 if param.len() == 2 => shape.push(1),
            Self::Qkv { part: 0..=2, per_head, conv } => {
                let rows = shape.first_mut()?;
                if per_head.is_some_and(|heads| heads == 0 || *rows % heads != 0) {
                    return None;
                }
                *rows *= 3;
                if conv {
                    shape.push(1);
                }
            }
            _ => return None,
        }
        Some(shape)
    }

    /// The runs of elements of the file's tensor that make the parameter, in the parameter's order.
    ///
    /// [`Layout::Transposed`] is the whole tensor; its elements are still to be reordered.
    pub(super) fn runs(&self, param: &[usize]) -> Vec<Range<usize>> {
        let n: usize = param.iter().product();
        match *self {
            Self::Qkv { part, per_head, .. } => {
                let heads = per_head.unwrap_or(1);
                let run = n / heads;
                (0..heads).map(|h| (h * 3 + part) * run).map(|start| start..start + run).collect()
            }
            _ => std::iter::once(0..n).collect(),
        }
    }
}

/// `[rows, columns]` to `[columns, rows]`.
pub(super) struct Transpose(pub usize, pub usize);

impl Rearrange for Transpose {
    fn apply<T: Copy>(self, values: Vec<T>) -> Vec<T> {
        let Self(rows, columns) = self;
        let mut out = Vec::with_capacity(values.len());
        for c in 0..columns {
            out.extend((0..rows).map(|r| values[r * columns + c]));
        }
        out
    }
}

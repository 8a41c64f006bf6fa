//! Bounding boxes as tokens, for the transformer that reads layouts.

use serde::{Deserialize, Serialize};

/// A rectangle in parts of the picture: 0 is its left or upper edge, 1 its right or lower one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BoundingBox {
    /// The left edge.
    pub x: f64,
    /// The upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// One object of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LayoutObject {
    /// Its class.
    pub class: usize,
    /// Where it is.
    pub bbox: BoundingBox,
    /// A group of them rather than one.
    #[serde(default)]
    pub is_group_of: bool,
    /// Partly hidden by something else.
    #[serde(default)]
    pub is_occluded: bool,
    /// A picture of it rather than the thing.
    #[serde(default)]
    pub is_depiction: bool,
    /// Seen from the inside.
    #[serde(default)]
    pub is_inside: bool,
}

/// What a picture should show, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// In the order in which they become tokens.
    pub objects: Vec<LayoutObject>,
    /// The part of the whole scene that the picture shows; boxes are given in the scene.
    #[serde(default = "full")]
    pub crop: BoundingBox,
    /// Mirrors objects and crop.
    #[serde(default)]
    pub horizontal_flip: bool,
}

/// Turns layouts into tokens: `ObjectsBoundingBoxConditionalBuilder` of the taming code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutTokenizer {
    /// The number of classes.
    pub no_object_classes: usize,
    /// Objects a layout; fewer are padded.
    pub no_max_objects: usize,
    /// The size of the vocabulary; its last token pads.
    pub no_tokens: usize,
    /// Ends with two tokens for the crop; otherwise boxes are taken relative to it.
    pub encode_crop: bool,
    /// Whether `is_group_of` counts.
    pub use_group_parameter: bool,
    /// Whether `is_occluded`, `is_depiction` and `is_inside` count.
    pub use_additional_parameters: bool,
}

/// Why a layout can't become tokens.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// More objects than the model takes.
    #[error("layout: {got} objects, at most {max}")]
    TooManyObjects {
        /// How many there are.
        got: usize,
        /// `no_max_objects`.
        max: usize,
    },
    /// A class outside the list.
    #[error("layout: class {class} of object {object} is outside 0..{classes}")]
    ClassOutOfRange {
        /// The class.
        class: usize,
        /// The object's place.
        object: usize,
        /// `no_object_classes`.
        classes: usize,
    },
    /// A box that isn't in the picture, or has no size; `object` is `None` for the crop.
    #[error(
        "layout: the {} from ({}, {}), {} wide and {} high, is not inside the picture of 1 x 1",
        .object.map_or_else(|| String::from("crop"), |object| format!("box of object {object}")),
        .bbox.x, .bbox.y, .bbox.width, .bbox.height
    )]
    BoxOutside {
        /// The object's place.
        object: Option<usize>,
        /// The box.
        bbox: BoundingBox,
    },
    /// Class and attributes make a token that the vocabulary doesn't have.
    #[error(
        "layout: object {object} would be token {token}, the vocabulary has {no_tokens} and pads with the last"
    )]
    OutOfVocabulary {
        /// The object's place.
        object: usize,
        /// The token.
        token: usize,
        /// `no_tokens`.
        no_tokens: usize,
    },
    /// A vocabulary too small for any grid.
    #[error("layout: a vocabulary of {0} tokens has no grid for boxes")]
    Vocabulary(usize),
}

/// What rounding may put a box beyond the edge.
const EDGE: f64 = 1e-6;

impl BoundingBox {
    /// The whole picture.
    pub const FULL: Self = Self { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };

    /// Left and upper edge, width, height.
    pub fn new(x: f64, y: f64, width: f64, height: f64) -> Self {
        Self { x, y, width, height }
    }

    fn is_inside(&self) -> bool {
        let axis = |start: f64, size: f64| start >= -EDGE && size > 0.0 && start + size <= 1.0 + EDGE;
        axis(self.x, self.width) && axis(self.y, self.height)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let axis = |a: f64, a_size: f64, b: f64, b_size: f64| (a + a_size).min(b + b_size) > a.max(b);
        axis(self.x, self.width, other.x, other.width) && axis(self.y, self.height, other.y, other.height)
    }

    /// The same seen from a crop, cut at its edges.
    fn relative_to(&self, crop: &Self, flip: bool) -> Self {
        let x = ((self.x - crop.x) / crop.width).clamp(0.0, 1.0);
        let y = ((self.y - crop.y) / crop.height).clamp(0.0, 1.0);
        let width = (self.width / crop.width).min(1.0 - x);
        let height = (self.height / crop.height).min(1.0 - y);
        Self { x: if flip { 1.0 - (x + width) } else { x }, y, width, height }
    }

    fn flipped(&self) -> Self {
        Self { x: 1.0 - (self.x + self.width), ..*self }
    }
}

impl LayoutObject {
    /// An object without attributes.
    pub fn new(class: usize, bbox: BoundingBox) -> Self {
        Self { class, bbox, is_group_of: false, is_occluded: false, is_depiction: false, is_inside: false }
    }
}

impl Layout {
    /// Objects in a picture that is not cropped.
    pub fn new(objects: impl Into<Vec<LayoutObject>>) -> Self {
        Self { objects: objects.into(), crop: BoundingBox::FULL, horizontal_flip: false }
    }
}

impl LayoutTokenizer {
    /// As the paper's layout models have it: 30 objects and the crop in 8,192 tokens, with all attributes.
    pub fn new(no_object_classes: usize) -> Self {
        Self {
            no_object_classes,
            no_max_objects: 30,
            no_tokens: 8192,
            encode_crop: true,
            use_group_parameter: true,
            use_additional_parameters: true,
        }
    }

    /// The number of tokens of every layout: `max_seq_len` of its transformer.
    pub fn length(&self) -> usize {
        3 * self.no_max_objects + if self.encode_crop { 2 } else { 0 }
    }

    /// The token that pads.
    pub fn none(&self) -> i64 {
        self.no_tokens as i64 - 1
    }

    /// Object, upper left and lower right corner of each object, pads, and the crop's two corners.
    ///
    /// Unlike the reference it keeps the order of the objects, which is shuffled there: that is the caller's.
    /// Objects outside the crop are left out, boxes at its edge are cut.
    ///
    /// # Errors
    /// [`LayoutError`] names the object and what is wrong with it.
    pub fn encode(&self, layout: &Layout) -> Result<Vec<i64>, LayoutError> {
        if self.sections() < 2 {
            return Err(LayoutError::Vocabulary(self.no_tokens));
        }
        let (got, max) = (layout.objects.len(), self.no_max_objects);
        if got > max {
            return Err(LayoutError::TooManyObjects { got, max });
        }
        if !layout.crop.is_inside() {
            return Err(LayoutError::BoxOutside { object: None, bbox: layout.crop });
        }
        let mut tokens = Vec::with_capacity(self.length());
        for (i, object) in layout.objects.iter().enumerate() {
            let token = self.object(i, object)?;
            if object.bbox.overlaps(&layout.crop) {
                let frame = if self.encode_crop { &BoundingBox::FULL } else { &layout.crop };
                tokens.push(token);
                tokens.extend(self.corners(&object.bbox.relative_to(frame, layout.horizontal_flip)));
            }
        }
        tokens.resize(3 * max, self.none());
        if self.encode_crop {
            let crop = if layout.horizontal_flip { layout.crop.flipped() } else { layout.crop };
            tokens.extend(self.corners(&crop));
        }
        Ok(tokens)
    }

    fn object(&self, place: usize, object: &LayoutObject) -> Result<i64, LayoutError> {
        let (class, classes) = (object.class, self.no_object_classes);
        if class >= classes {
            return Err(LayoutError::ClassOutOfRange { class, object: place, classes });
        }
        if !object.bbox.is_inside() {
            return Err(LayoutError::BoxOutside { object: Some(place), bbox: object.bbox });
        }
        let (group, more) = (self.use_group_parameter, self.use_additional_parameters);
        let attributes = [
            group && object.is_group_of,
            more && object.is_occluded,
            more && object.is_depiction,
            more && object.is_inside,
        ];
        let modifier: usize = attributes.iter().enumerate().map(|(bit, set)| usize::from(*set) << bit).sum();
        let token = class + classes * modifier;
        if token + 1 >= self.no_tokens {
            let no_tokens = self.no_tokens;
            return Err(LayoutError::OutOfVocabulary { object: place, token, no_tokens });
        }
        Ok(token as i64)
    }

    /// Points a side of the grid: as many as the vocabulary has tokens for.
    fn sections(&self) -> usize {
        self.no_tokens.isqrt()
    }

    fn corners(&self, b: &BoundingBox) -> [i64; 2] {
        let sections = self.sections();
        let on_grid = |v: f64| {
            let last = (sections - 1) as f64;
            (v * last).round_ties_even().clamp(0.0, last) as i64
        };
        let point = |x, y| on_grid(y) * sections as i64 + on_grid(x);
        [point(b.x, b.y), point(b.x + b.width, b.y + b.height)]
    }
}

fn full() -> BoundingBox {
    BoundingBox::FULL
}

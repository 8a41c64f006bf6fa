use image::imageops::FilterType;
use image::{ColorType, DynamicImage, ImageBuffer, Luma};
use serde::{Deserialize, Serialize};

use super::{DataError, Transform, View};

/// What a picture's second picture says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapKind {
    /// It is a picture: red, green and blue in [-1, 1], resized as the first one.
    #[default]
    Picture,
    /// It is a map of labels: its grey levels (8 or 16 bits) are numbers, resized by the nearest.
    Labels,
}

impl MapKind {
    /// How many channels it has.
    pub fn channels(self) -> usize {
        match self {
            Self::Picture => 3,
            Self::Labels => 1,
        }
    }
}

/// How the second picture of each picture is read (`data.loader.map`). It is cropped and mirrored as the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MapConfig {
    /// A picture, or labels.
    pub kind: MapKind,
    /// Side of its crop in pixels (default: the first one's).
    pub size: Option<usize>,
}

/// How much the sides' ratio may differ from the first picture's.
const RATIO: f64 = 0.02;

impl MapConfig {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn validate(&self) -> Result<(), DataError> {
        match self.size {
            Some(size) if !(1..=1 << 14).contains(&size) => {
                Err(DataError::config("map.size", size, "must lie in 1..=16384"))
            }
            _ => Ok(()),
        }
    }

    /// Side of what [`apply`](Self::apply) gives.
    pub(super) fn side(&self, transform: &Transform) -> usize {
        self.size.unwrap_or(transform.size)
    }

    /// The view of a map whose picture is seen as `transform` says: `[channels, side, side]`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the map.
    pub(super) fn apply(
        &self,
        map: &DynamicImage,
        transform: &Transform,
        view: View,
        picture: [u32; 2],
    ) -> Result<Vec<f32>, String> {
        let ratio = |[w, h]: [u32; 2]| f64::from(w) / f64::from(h);
        let own = [map.width(), map.height()];
        if (ratio(own) / ratio(picture) - 1.0).abs() > RATIO {
            let ([w, h], [pw, ph]) = (own, picture);
            return Err(format!("its second picture has {w} x {h} pixels, itself {pw} x {ph}"));
        }
        let size = self.side(transform);
        // As much larger than the crop as the first picture is.
        let resize = transform.resize.map(|resize| (resize * size).div_ceil(transform.size));
        let transform = Transform { size, resize, ..transform.clone() };
        match self.kind {
            MapKind::Picture => Ok(transform.see(map, view)?.0),
            MapKind::Labels => labels(map, &transform, view),
        }
    }
}

fn labels(map: &DynamicImage, transform: &Transform, view: View) -> Result<Vec<f32>, String> {
    let grey: ImageBuffer<Luma<u16>, Vec<u16>> = match map.color() {
        ColorType::L16 => map.to_luma16(),
        // Not `to_luma16`, which would spread 255 to 65,535.
        ColorType::L8 => {
            let levels = map.to_luma8();
            ImageBuffer::from_fn(levels.width(), levels.height(), |x, y| {
                Luma([u16::from(levels.get_pixel(x, y).0[0])])
            })
        }
        other => return Err(format!("a map of labels must be grey, this one is {other:?}")),
    };
    let grey = match transform.square([grey.width(), grey.height()], view) {
        Some([left, top, side]) => image::imageops::crop_imm(&grey, left, top, side, side).to_image(),
        None => grey,
    };
    let (w, h) = transform.resized_to(grey.width(), grey.height())?;
    let grey = match (w, h) == grey.dimensions() {
        true => grey,
        false => image::imageops::resize(&grey, w, h, FilterType::Nearest),
    };
    let size = transform.size;
    let [left, top] = transform.corner([w as usize, h as usize], view);
    let at = |i: usize| {
        let (y, x) = (i / size, i % size);
        let x = if view.flip { size - 1 - x } else { x };
        f32::from(grey.get_pixel((left + x) as u32, (top + y) as u32).0[0])
    };
    Ok((0..size * size).map(at).collect())
}

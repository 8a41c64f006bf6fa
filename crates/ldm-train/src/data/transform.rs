use image::imageops::FilterType;
use image::{DynamicImage, Rgb, RgbImage};
use ldm_conditioning::BoundingBox;
use ldm_scheduler::NativeRng;
use serde::{Deserialize, Serialize};

use super::random::{below, uniform};
use super::{DataError, area};
use crate::pixels::upper_bytes;

/// What is done to a picture before it is trained on: on a background, resized, cropped, perhaps mirrored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transform {
    /// Side of the crop, in pixels.
    pub size: usize,
    /// The shorter side before cropping (default: `size`).
    pub resize: Option<usize>,
    /// Where the crop is taken.
    pub crop: Crop,
    /// Whether half of the pictures are mirrored left to right.
    pub flip: bool,
    /// How pictures are resized.
    pub filter: Filter,
    /// What shows through transparent pixels: red, green, blue (default: white).
    pub background: [u8; 3],
    /// The side of the crop in parts of the shorter side, drawn anew each time from the first to the second number; the
    /// crop is then resized to `size`, which takes the place of `resize`. No view has a number then (default: none).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_f: Option<[f64; 2]>,
}

impl Default for Transform {
    fn default() -> Self {
        Self {
            size: 256,
            resize: None,
            crop: Crop::Center,
            flip: false,
            filter: Filter::Bicubic,
            background: [255; 3],
            crop_f: None,
        }
    }
}

/// Where a crop is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// In the middle.
    Center,
    /// In the middle or at one of the four corners: few enough for their latents to be kept.
    Five,
    /// Anywhere.
    Random,
}

/// How pictures are resized; smaller ones are averaged over the filter's width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // Their names say it.
pub enum Filter {
    Nearest,
    Bilinear,
    Bicubic,
    Lanczos,
    /// OpenCV's `INTER_AREA`: the mean of the area that a pixel covers; enlarging, a ramp between whole pixels.
    Area,
}

/// One way to see a picture: where the crop lies (0 to 1 of the room there is) and whether it is mirrored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Its number among [`Transform::views`]; `None` where those can't be counted: of crops anywhere, or of any size.
    pub number: Option<u64>,
    /// Left to right.
    pub x: f64,
    /// Top to bottom.
    pub y: f64,
    /// Mirrored left to right.
    pub flip: bool,
    /// The side of the crop in parts of the shorter side, where the transform draws it ([`Transform::crop_f`]); else 1.
    pub part: f64,
}

/// A strip would grow beyond any memory before it is cropped.
const LONGEST: u32 = 64;
const FIVE: [(f64, f64); 5] = [(0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)];

impl Transform {
    /// Pictures of `size` pixels a side, nothing else changed.
    pub fn new(size: usize) -> Self {
        Self { size, ..Self::default() }
    }

    /// Says what keeps this from being done.
    ///
    /// # Errors
    ///
    /// [`DataError::Config`], naming the key.
    pub fn validate(&self) -> Result<(), DataError> {
        if !(1..=1 << 14).contains(&self.size) {
            return Err(DataError::config("size", self.size, "must lie in 1..=16384"));
        }
        if let Some([least, most]) = self.crop_f {
            let what = match (self.crop, self.resize) {
                _ if !(least > 0.0 && least <= most && most <= 1.0) => {
                    "must be two numbers above 0, not falling, at most 1"
                }
                (Crop::Five, _) => "goes with the crops `random` and `center`",
                (_, Some(_)) => "takes the place of `resize`",
                _ => return Ok(()),
            };
            return Err(DataError::config("crop_f", [least, most], what));
        }
        match self.resize {
            Some(resize) if resize < self.size || resize > 1 << 14 => {
                let what = format!("must lie in {}..=16384: `size` is cropped from it", self.size);
                Err(DataError::config("resize", resize, what))
            }
            _ => Ok(()),
        }
    }

    fn crops(&self) -> Option<&'static [(f64, f64)]> {
        match self.crop {
            _ if self.crop_f.is_some() => None,
            Crop::Center => Some(&FIVE[..1]),
            Crop::Five => Some(&FIVE),
            Crop::Random => None,
        }
    }

    /// Refuses where views have no numbers, naming the key by which they have none.
    pub(super) fn numbered(&self, what: &str) -> Result<(), DataError> {
        match (self.crops(), self.crop_f) {
            (Some(_), _) => Ok(()),
            (None, Some(parts)) if self.crop != Crop::Random => Err(DataError::config("crop_f", parts, what)),
            (None, _) => Err(DataError::config("crop", self.crop, what)),
        }
    }

    /// How many ways there are to see a picture; `None` where there is no counting them.
    pub fn views(&self) -> Option<u64> {
        self.crops().map(|crops| crops.len() as u64 * if self.flip { 2 } else { 1 })
    }

    /// The view of this number, below [`Transform::views`]; `None` past it.
    pub fn view(&self, number: u64) -> Option<View> {
        let flips = if self.flip { 2 } else { 1 };
        let (x, y) = *self.crops()?.get(usize::try_from(number / flips).ok()?)?;
        Some(View { number: Some(number), x, y, flip: number % flips == 1, part: 1.0 })
    }

    /// A view at random.
    pub(super) fn choose(&self, rng: &mut NativeRng) -> View {
        match self.crops() {
            None => {
                // Anywhere, or of any size in the middle: with `five` views are counted.
                let (x, y) = if self.crop == Crop::Random { (uniform(rng), uniform(rng)) } else { FIVE[0] };
                let flip = self.flip && below(rng, 2) == 1;
                let part = self.crop_f.map_or(1.0, |[least, most]| least + (most - least) * uniform(rng));
                View { number: None, x, y, flip, part }
            }
            Some(crops) => {
                let (at, flip) = (below(rng, crops.len()), self.flip && below(rng, 2) == 1);
                let flips = if self.flip { 2 } else { 1 };
                let (x, y) = crops[at];
                View { number: Some(at as u64 * flips + u64::from(flip)), x, y, flip, part: 1.0 }
            }
        }
    }

    /// The planes `[3, size, size]` in [-1, 1] of a view.
    ///
    /// # Errors
    ///
    /// Says so of a picture that is too long for its width.
    pub fn apply(&self, picture: &DynamicImage, view: View) -> Result<Vec<f32>, String> {
        Ok(self.see(picture, view)?.0)
    }

    /// The planes of a view, and which part of the whole picture it shows (before it is mirrored).
    pub(super) fn see(&self, picture: &DynamicImage, view: View) -> Result<(Vec<f32>, BoundingBox), String> {
        let mut rgb = self.on_background(picture);
        let square = self.square([rgb.width(), rgb.height()], view);
        let whole = [rgb.width() as usize, rgb.height() as usize];
        if let Some([left, top, side]) = square {
            rgb = image::imageops::crop_imm(&rgb, left, top, side, side).to_image();
        }
        let rgb = self.resized(rgb)?;
        let size = self.size;
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        let [left, top] = self.corner([width, height], view);
        let pixels = rgb.as_raw();
        let mut planes = vec![0.0; 3 * size * size];
        for y in 0..size {
            let row = &pixels[3 * ((top + y) * width + left)..][..3 * size];
            for (x, pixel) in row.chunks_exact(3).enumerate() {
                let x = if view.flip { size - 1 - x } else { x };
                for (channel, value) in pixel.iter().enumerate() {
                    planes[(channel * size + y) * size + x] = 2.0 * (f32::from(*value) / 255.0) - 1.0;
                }
            }
        }
        let ([left, top, side], [width, height]) = match square {
            Some(square) => (square.map(|pixels| pixels as usize), whole),
            None => ([left, top, size], [width, height]),
        };
        let part = |length: usize, whole: usize| length as f64 / whole as f64;
        let crop =
            BoundingBox::new(part(left, width), part(top, height), part(side, width), part(side, height));
        Ok((planes, crop))
    }

    /// Left, upper edge and side of what a view takes of a picture before it is resized; `None` for all of it.
    pub(super) fn square(&self, [width, height]: [u32; 2], view: View) -> Option<[u32; 3]> {
        self.crop_f?;
        let shorter = width.min(height);
        let side = ((f64::from(shorter) * view.part) as u32).min(shorter).max(1);
        let edge = |share: f64, whole: u32| offset(share, whole.saturating_sub(side) as usize) as u32;
        Some([edge(view.x, width), edge(view.y, height), side])
    }

    /// Left and upper edge of a view's crop in a picture of this width and height.
    pub(super) fn corner(&self, [width, height]: [usize; 2], view: View) -> [usize; 2] {
        [offset(view.x, width - self.size), offset(view.y, height - self.size)]
    }

    fn on_background(&self, picture: &DynamicImage) -> RgbImage {
        let picture = upper_bytes(picture);
        if !picture.color().has_alpha() {
            return picture.to_rgb8();
        }
        let rgba = picture.to_rgba8();
        let mix = |over: u8, alpha: u8, under: u8| {
            let (over, alpha, under) = (u32::from(over), u32::from(alpha), u32::from(under));
            ((over * alpha + under * (255 - alpha) + 127) / 255) as u8
        };
        RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
            let [r, g, b, a] = rgba.get_pixel(x, y).0;
            let [under_r, under_g, under_b] = self.background;
            Rgb([mix(r, a, under_r), mix(g, a, under_g), mix(b, a, under_b)])
        })
    }

    /// The shorter side becomes `resize`, the longer keeps the proportion.
    fn resized(&self, picture: RgbImage) -> Result<RgbImage, String> {
        let (width, height) = self.resized_to(picture.width(), picture.height())?;
        if (width, height) == picture.dimensions() {
            return Ok(picture);
        }
        let filter = match self.filter {
            Filter::Nearest => FilterType::Nearest,
            Filter::Bilinear => FilterType::Triangle,
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Lanczos => FilterType::Lanczos3,
            Filter::Area => return Ok(area::resize(&picture, width, height)),
        };
        Ok(image::imageops::resize(&picture, width, height, filter))
    }

    /// The size that a picture gets before it is cropped.
    pub(super) fn resized_to(&self, w: u32, h: u32) -> Result<(u32, u32), String> {
        let target = self.resize.unwrap_or(self.size) as u32;
        let shorter = w.min(h);
        if shorter == target {
            return Ok((w, h));
        }
        if w.max(h) / shorter.max(1) > LONGEST {
            return Err(format!("{w} x {h} pixels: longer than {LONGEST} times its width"));
        }
        let scaled = |side: u32| {
            ((f64::from(side) * f64::from(target) / f64::from(shorter)).round() as u32).max(target)
        };
        Ok((scaled(w), scaled(h)))
    }
}

/// Of `room + 1` places, the one at this share of the way.
fn offset(share: f64, room: usize) -> usize {
    ((share * (room + 1) as f64) as usize).min(room)
}

//! Degradations that a super-resolution model is trained to undo: `bsrgan` and `bsrgan_light`.
//!
//! Blur, shrinking, noise and JPEG compression in a random order with random parameters (Zhang et al. 2021, "Designing
//! a practical degradation model for deep blind image super-resolution"). Each operation is a function of its own, whose
//! parameters are given; [`Degradation::degrade`] draws them. Pictures between operations are RGB, f32, in [0, 1].
//! `Worn` (Cargo feature `train`) wears a training's pictures.
//!
//! Source: `ldm/modules/image_degradation` of CompVis/latent-diffusion. Not here, since neither pipeline calls it:
//! `add_sharpening`, `add_resize`, `srmd_degradation`, `dpsr_degradation`, `classical_degradation`,
//! `bicubic_degradation`, `gen_kernel`, `analytic_kernel`, `fspecial_laplacian`, `random_crop`, and the pipelines around
//! them, `degradation_bsrgan` (which crops pairs) and `degradation_bsrgan_plus`. Speckle and Poisson noise, which only the
//! last takes, are.

pub mod blur;
pub mod imresize;
pub mod jpeg;
pub mod noise;
pub mod resize;

mod draws;
mod kernel;
#[cfg(test)]
mod tests;
#[cfg(feature = "train")]
mod worn;

pub use draws::{Draws, SeededDraws};
pub use image::Rgb32FImage;
pub use kernel::Kernel;
#[cfg(feature = "train")]
pub use worn::Worn;

use std::f64::consts::PI;
use std::ops::RangeInclusive;

use image::{Rgb, RgbImage};

use crate::Error;
use resize::Interpolation;

/// Which of the two pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Degradation {
    /// `bsrgan`: `degradation_bsrgan_variant` in the reference's `bsrgan.py`.
    Bsrgan,
    /// `bsrgan_light`, the gentler one that the paper's super-resolution model was trained with: the same in
    /// `bsrgan_light.py`.
    BsrganLight,
}

/// What the pipelines differ in.
struct Settings {
    /// How many of the seven steps are blurs.
    blurs: usize,
    /// What both blurs' widths are divided by.
    narrower: f64,
    /// The size of an anisotropic kernel by the number drawn for it, and those numbers.
    anisotropic: (fn(usize) -> usize, RangeInclusive<usize>),
    /// The same of an isotropic kernel.
    isotropic: (fn(usize) -> usize, RangeInclusive<usize>),
    /// How often the picture is shrunk by interpolation, not by blur and decimation.
    interpolated: f64,
    /// Noise, of 255.
    noise: RangeInclusive<usize>,
    /// Quality of JPEG.
    quality: RangeInclusive<usize>,
}

/// How often the picture is halved first, where it is to be a quarter.
const HALVED_FIRST: f64 = 0.25;
/// How often it is compressed on the way; at the end it always is.
const COMPRESSED: f64 = 0.9;

impl Degradation {
    /// The pipeline of this name, as the reference's data configs say it.
    ///
    /// # Errors
    /// [`Error::Argument`] for another name.
    pub fn named(name: &str) -> Result<Self, Error> {
        match name {
            "bsrgan" => Ok(Self::Bsrgan),
            "bsrgan_light" => Ok(Self::BsrganLight),
            _ => Err(Error::argument("degradation", format!("`{name}` is neither bsrgan nor bsrgan_light"))),
        }
    }

    fn settings(self) -> Settings {
        match self {
            Self::Bsrgan => Settings {
                blurs: 2,
                narrower: 1.0,
                anisotropic: (|n| 2 * n + 3, 2..=11),
                isotropic: (|n| 2 * n + 3, 2..=11),
                interpolated: 0.75,
                noise: 2..=25,
                quality: 30..=95,
            },
            Self::BsrganLight => Settings {
                blurs: 1,
                narrower: 4.0,
                anisotropic: (|n| n + 3, 2..=11),
                isotropic: (|n| n + 3, 2..=4),
                interpolated: 0.8,
                noise: 1..=2,
                quality: 80..=95,
            },
        }
    }

    /// A picture of `sf` times smaller sides, worn; each side is first cropped to a multiple of `sf`.
    ///
    /// The same draws give the same picture. (The reference crops each side by the *other's* remainder; for the
    /// squares that it is given that is the same.)
    ///
    /// # Errors
    /// [`Error::Argument`] where `sf` is 0 or a side is shorter than `2 sf`.
    pub fn degrade(self, picture: &RgbImage, sf: usize, draws: &mut impl Draws) -> Result<RgbImage, Error> {
        let (w, h) = picture.dimensions();
        if sf == 0 {
            return Err(Error::argument("sf", "must be at least 1"));
        }
        if (w.min(h) as usize) < 2 * sf {
            let reason = format!("a picture of {w}x{h} is too small to be made {sf} times smaller");
            return Err(Error::argument("picture", reason));
        }
        let cropped = |side: u32| side - side % sf as u32;
        let picture = image::imageops::crop_imm(picture, 0, 0, cropped(w), cropped(h)).to_image();
        Ok(to_u8(&self.run(to_f32(&picture), sf, draws)))
    }

    fn run(self, mut picture: Rgb32FImage, mut sf: usize, draws: &mut impl Draws) -> Rgb32FImage {
        let settings = self.settings();
        if sf == 4 && draws.unit() < HALVED_FIRST {
            picture = if draws.unit() < 0.5 {
                shrink(&picture, picture.dimensions(), 2.0, draws)
            } else {
                imresize::imresize(&picture, 0.5)
            };
            clip(&mut picture);
            sf = 2;
        }
        let mut order = draws.order(7);
        // What is shrunk to the final size comes after what is shrunk to any size.
        let place = |step: usize| order.iter().position(|s| *s == step).unwrap_or(step);
        let (any, last) = (place(2), place(3));
        if any > last {
            order.swap(any, last);
        }
        let mut size = picture.dimensions();
        for step in order {
            match step {
                step if step < settings.blurs => {
                    picture = blur::blur(&picture, &kernel_for(&settings, sf, draws));
                }
                2 => {
                    size = picture.dimensions();
                    picture = if draws.unit() < settings.interpolated {
                        let factor = draws.uniform(1.0, 2.0 * sf as f64);
                        shrink(&picture, size, factor, draws)
                    } else {
                        let sigma = draws.uniform(0.1, 0.6 * sf as f64);
                        let kernel = Kernel::gaussian(25, sigma).shifted(sf);
                        blur::decimate(&blur::blur(&picture, &kernel), sf)
                    };
                    clip(&mut picture);
                }
                3 => {
                    picture = shrink(&picture, size, sf as f64, draws);
                    clip(&mut picture);
                }
                4 => {
                    let field = noise::Noise::draw(&settings.noise, draws).field(picture.dimensions(), draws);
                    picture = noise::add(&picture, &field);
                }
                5 if draws.unit() < COMPRESSED => {
                    picture = compress(&picture, &settings, draws);
                }
                // A second blur that the lighter pipeline leaves out, and the camera's processing, for which the
                // reference has no model.
                _ => {}
            }
        }
        compress(&picture, &settings, draws)
    }
}

/// A kernel of either kind (`add_blur`).
fn kernel_for(settings: &Settings, sf: usize, draws: &mut impl Draws) -> Kernel {
    let sf = sf as f64;
    let size = |(size, numbers): &(fn(usize) -> usize, RangeInclusive<usize>), draws: &mut dyn Draws| {
        size(draws.integer(*numbers.start(), *numbers.end()))
    };
    if draws.unit() < 0.5 {
        let widest = (4.0 + sf) / settings.narrower;
        let (l1, l2) = (widest * draws.unit(), widest * draws.unit());
        let size = size(&settings.anisotropic, draws);
        Kernel::anisotropic(size, draws.unit() * PI, l1, l2)
    } else {
        let widest = (2.0 + 0.2 * sf) / settings.narrower;
        let size = size(&settings.isotropic, draws);
        Kernel::gaussian(size, widest * draws.unit())
    }
}

/// `size` divided by `factor`, by an interpolation that is drawn.
fn shrink(picture: &Rgb32FImage, size: (u32, u32), factor: f64, draws: &mut impl Draws) -> Rgb32FImage {
    let kinds = [Interpolation::Linear, Interpolation::Cubic, Interpolation::Area];
    let kind = kinds[draws.integer(0, 2)];
    let side = |n: u32| ((1.0 / factor * f64::from(n)) as u32).max(1);
    resize::resize(picture, (side(size.0), side(size.1)), kind)
}

fn compress(picture: &Rgb32FImage, settings: &Settings, draws: &mut impl Draws) -> Rgb32FImage {
    let quality = draws.integer(*settings.quality.start(), *settings.quality.end());
    to_f32(&jpeg::compressed(&to_u8(picture), quality as u8))
}

fn clip(picture: &mut Rgb32FImage) {
    picture.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
}

/// From 0 to 255 to [0, 1] (`uint2single`).
pub fn to_f32(picture: &RgbImage) -> Rgb32FImage {
    let (w, h) = picture.dimensions();
    Rgb32FImage::from_fn(w, h, |x, y| Rgb(picture.get_pixel(x, y).0.map(|v| (f64::from(v) / 255.0) as f32)))
}

/// From [0, 1], cut off there, to 0 to 255, rounded half to even (`single2uint`).
pub fn to_u8(picture: &Rgb32FImage) -> RgbImage {
    let (w, h) = picture.dimensions();
    let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    RgbImage::from_fn(w, h, |x, y| Rgb(picture.get_pixel(x, y).0.map(byte)))
}

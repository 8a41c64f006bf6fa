//! Between RGB and YCbCr, in libjpeg's 16-bit fixed point.

use image::{Rgb, RgbImage};

use super::plane::Plane;

const HALF: i32 = 1 << 15;
/// 128, and just below half a step, as libjpeg rounds colour.
const OFFSET: i32 = (128 << 16) + HALF - 1;

pub(super) fn split(picture: &RgbImage) -> [Plane; 3] {
    let (w, h) = picture.dimensions();
    let plane = |weights: [i32; 3], offset: i32| {
        let value = |p: &Rgb<u8>| {
            let sum: i32 = p.0.iter().zip(weights).map(|(v, k)| i32::from(*v) * k).sum();
            ((sum + offset) >> 16) as u8
        };
        Plane::new(w as usize, h as usize, picture.pixels().map(value).collect())
    };
    [
        plane([19595, 38470, 7471], HALF),
        plane([-11059, -21709, 32768], OFFSET),
        plane([32768, -27439, -5329], OFFSET),
    ]
}

pub(super) fn join(y: &Plane, cb: &Plane, cr: &Plane) -> RgbImage {
    let byte = |v: i32| v.clamp(0, 255) as u8;
    RgbImage::from_fn(y.width() as u32, y.height() as u32, |column, row| {
        let at = |plane: &Plane| i32::from(plane.at(column as usize, row as usize));
        let (y, cb, cr) = (at(y), at(cb) - 128, at(cr) - 128);
        Rgb([
            byte(y + ((91881 * cr + HALF) >> 16)),
            byte(y + ((-22554 * cb - 46802 * cr + HALF) >> 16)),
            byte(y + ((116_130 * cb + HALF) >> 16)),
        ])
    })
}

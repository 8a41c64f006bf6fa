use burn::tensor::{DType, Device, Tensor, TensorData};
use image::{DynamicImage, ImageBuffer, Pixel, RgbImage};

use crate::Error;

/// A picture's colours in 8 bits, as Pillow hands them to diffusers: an alpha channel is dropped, of 16 bits the upper
/// eight are taken. (Of 16-bit grey Pillow 13 makes white wherever it is above 255; here it goes as the colours do.)
pub fn to_rgb8(picture: &DynamicImage) -> RgbImage {
    match picture {
        DynamicImage::ImageLuma16(deep) => upper_bytes(deep),
        DynamicImage::ImageLumaA16(deep) => upper_bytes(deep),
        DynamicImage::ImageRgb16(deep) => upper_bytes(deep),
        DynamicImage::ImageRgba16(deep) => upper_bytes(deep),
        flat => flat.to_rgb8(),
    }
}

fn upper_bytes<P: Pixel<Subpixel = u16>>(picture: &ImageBuffer<P, Vec<u16>>) -> RgbImage {
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let channels = picture.get_pixel(x, y).channels();
        // Grey has one channel of colour, perhaps with alpha beside it.
        let color = |c: usize| if channels.len() < 3 { channels[0] } else { channels[c] };
        image::Rgb([0, 1, 2].map(|c| (color(c) >> 8) as u8))
    })
}

/// `[1, 3, h, w]` in [-1, 1] from 8-bit pixels (`2 x / 255 - 1`).
pub fn to_tensor(picture: &RgbImage, device: &Device) -> Tensor<4> {
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let values = planes(picture.as_raw(), 3, |v| 2.0 * (f32::from(v) / 255.0) - 1.0);
    Tensor::from_data(TensorData::new(values, [1, 3, h, w]), (device, DType::F32))
}

/// 8-bit pictures from `[b, 3, h, w]`: clamped to [-1, 1], rounded half to even as diffusers does.
///
/// # Errors
/// [`Error::Backend`] where the tensor can't be read from its device; [`Error::Argument`] unless it has
/// three channels.
pub fn from_tensor(pictures: Tensor<4>) -> Result<Vec<RgbImage>, Error> {
    from_tensor_by(pictures, to_u8)
}

/// As [`from_tensor`], rounded down as the reference's scripts do.
///
/// # Errors
/// As [`from_tensor`].
pub fn from_tensor_truncated(pictures: Tensor<4>) -> Result<Vec<RgbImage>, Error> {
    from_tensor_by(pictures, |v| (((v + 1.0) / 2.0).clamp(0.0, 1.0) * 255.0) as u8)
}

fn from_tensor_by(pictures: Tensor<4>, to_u8: fn(f32) -> u8) -> Result<Vec<RgbImage>, Error> {
    let [b, c, h, w] = pictures.dims();
    if c != 3 {
        return Err(Error::argument("pictures", format!("{c} channels instead of 3")));
    }
    let data = pictures.cast(DType::F32).try_into_data().map_err(|e| Error::Backend(format!("{e:?}")))?;
    let values = data.as_slice::<f32>().map_err(|e| Error::Backend(format!("{e:?}")))?;
    let not_numbers = values.iter().filter(|v| v.is_nan()).count();
    if not_numbers > 0 {
        tracing::warn!(
            "{not_numbers} of {} values of the pictures are NaN and become black: the model has overflowed, as may \
             happen in f16; try bf16 or f32",
            values.len()
        );
    }
    let area = h * w;
    let picture = |i: usize| {
        let planes = &values[i * 3 * area..(i + 1) * 3 * area];
        let pixel = |x: u32, y: u32| {
            let at = y as usize * w + x as usize;
            image::Rgb([0, 1, 2].map(|c| to_u8(planes[c * area + at])))
        };
        RgbImage::from_fn(w as u32, h as u32, pixel)
    };
    Ok((0..b).map(picture).collect())
}

fn to_u8(v: f32) -> u8 {
    // NaN becomes 0 in the cast; `from_tensor_by` tells.
    ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

/// Which pixels to paint anew: white is painted, black is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    width: u32,
    height: u32,
    /// One luma value a pixel.
    pub(super) luma: Vec<u8>,
}

impl Mask {
    /// The luma of a picture, by the weights that Pillow uses.
    pub fn new(picture: &DynamicImage) -> Self {
        let rgb = to_rgb8(picture);
        // ITU-R 601-2 in 16-bit fixed point.
        let luma = |p: &image::Rgb<u8>| {
            let [r, g, b] = p.0.map(u32::from);
            ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
        };
        Self { width: rgb.width(), height: rgb.height(), luma: rgb.pixels().map(luma).collect() }
    }

    pub(super) fn from_luma(luma: Vec<u8>, width: u32, height: u32) -> Self {
        Self { width, height, luma }
    }

    /// `(width, height)`.
    pub fn dimensions(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// `[1, 1, h, w]`: 1 where the luma is at least half, else 0.
    pub fn to_tensor(&self, device: &Device) -> Tensor<4> {
        let values = planes(&self.luma, 1, |v| if f32::from(v) / 255.0 < 0.5 { 0.0 } else { 1.0 });
        let shape = [1, 1, self.height as usize, self.width as usize];
        Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
    }
}

/// From interleaved pixels to one plane after another.
fn planes(pixels: &[u8], channels: usize, value: impl Fn(u8) -> f32) -> Vec<f32> {
    let plane = |c: usize| pixels.iter().skip(c).step_by(channels);
    (0..channels).flat_map(plane).map(|v| value(*v)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_way_there_and_back() {
        let picture = RgbImage::from_fn(16, 16, |x, y| {
            let v = (y * 16 + x) as u8;
            image::Rgb([v, 255 - v, v ^ 85])
        });
        let back = from_tensor(to_tensor(&picture, &Device::default())).unwrap();
        assert_eq!(back, vec![picture]);
    }

    #[test]
    fn values_outside_are_clamped_and_halves_go_to_even() {
        assert_eq!([to_u8(-3.0), to_u8(7.0), to_u8(f32::NAN)], [0, 255, 0]);
        // 127.5 lies between 127 and 128.
        assert_eq!(to_u8(0.0), 128);
    }

    /// What is warned of while a picture is made of `values`.
    fn warnings(values: [f32; 12]) -> String {
        let pictures = Tensor::<1>::from_floats(values, &Device::default()).reshape([1, 3, 2, 2]);
        let (made, warned) = ldm_test_support::with_warnings(|| from_tensor(pictures));
        assert_eq!(made.unwrap()[0].dimensions(), (2, 2));
        warned
    }

    #[test]
    fn pictures_of_nan_are_black_and_told() {
        let mut values = [0.5; 12];
        assert_eq!(warnings(values), "");
        values[3..6].fill(f32::NAN);
        let told = warnings(values);
        assert!(told.contains("3 of 12") && told.contains("NaN") && told.contains("f16"), "{told}");
    }

    /// PNGs of 1 to 16 bits, with and without transparency.
    #[test]
    fn files_have_the_pixels_that_pillow_sees() {
        let fixture = ldm_test_support::Fixture::open("pictures");
        let folder = tempfile::tempdir().unwrap();
        let kinds: Vec<String> = serde_json::from_value(fixture.json("kinds")).unwrap();
        let bytes = |kind: &str, what: &str| fixture.bytes(&format!("{kind}.{what}")).1;
        for kind in &kinds {
            let path = folder.path().join("picture.png");
            std::fs::write(&path, bytes(kind, "png")).unwrap();
            let picture = crate::image::open(&path).unwrap();
            assert_eq!(to_rgb8(&picture).into_raw(), bytes(kind, "rgb"), "{kind}");
            assert_eq!(Mask::new(&picture).luma, bytes(kind, "l"), "{kind}");
        }
        assert_eq!(kinds.len(), 11);
        let deep = ImageBuffer::from_raw(3, 1, vec![255, 256, 65_535]).unwrap();
        let grey = DynamicImage::ImageLuma16(deep);
        assert_eq!(to_rgb8(&grey).into_raw(), [0, 0, 0, 1, 1, 1, 255, 255, 255]);
    }

    #[test]
    fn a_mask_splits_at_half() {
        let grey = DynamicImage::ImageLuma8(image::GrayImage::from_raw(3, 1, vec![0, 127, 128]).unwrap());
        let mask = Mask::new(&grey).to_tensor(&Device::default());
        assert_eq!(mask.to_data().try_to_vec::<f32>().unwrap(), [0.0, 0.0, 1.0]);
    }
}

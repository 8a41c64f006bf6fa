//! Pictures of folders.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::MetricError;
use crate::pixels::upper_bytes;

/// The file name extensions that pytorch-fid looks for.
const EXTENSIONS: [&str; 9] = ["bmp", "jpg", "jpeg", "pgm", "png", "ppm", "tif", "tiff", "webp"];

/// The pictures in a folder, not in its subfolders, sorted by name.
///
/// # Errors
/// Where there is no such folder, or no picture in it.
pub fn pictures_in(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, MetricError> {
    let folder = folder.as_ref();
    let mut pictures = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(MetricError::io(folder))? {
        let path = entry.map_err(MetricError::io(folder))?.path();
        let extension = path.extension().map(|e| e.to_ascii_lowercase());
        if extension.is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known)) && path.is_file() {
            pictures.push(path);
        }
    }
    if pictures.is_empty() {
        let what = format!("no pictures here (looked for {})", EXTENSIONS.join(", "));
        return Err(MetricError::content(folder, what));
    }
    pictures.sort();
    Ok(pictures)
}

/// The pictures that two folders have under the same name; the extension doesn't count.
///
/// # Errors
/// As [`pictures_in`]; where a picture of the first folder has no partner in the second, or two have one name.
pub fn pairs_in(a: impl AsRef<Path>, b: impl AsRef<Path>) -> Result<Vec<(PathBuf, PathBuf)>, MetricError> {
    let (left, mut right) = (by_name(a.as_ref())?, by_name(b.as_ref())?);
    let mut pairs = Vec::new();
    for (name, path) in left {
        let Some(partner) = right.remove(&name) else {
            let what = format!("there is no picture named {}, as {} is", name.display(), path.display());
            return Err(MetricError::content(b.as_ref(), what));
        };
        pairs.push((path, partner));
    }
    Ok(pairs)
}

fn by_name(folder: &Path) -> Result<BTreeMap<OsString, PathBuf>, MetricError> {
    let mut names = BTreeMap::new();
    for path in pictures_in(folder)? {
        let name = path.file_stem().unwrap_or_default().to_os_string();
        if let Some(other) = names.insert(name, path.clone()) {
            let what = format!("{} and {} have one name", other.display(), path.display());
            return Err(MetricError::content(folder, what));
        }
    }
    Ok(names)
}

/// A picture as `[1, 3, h, w]` in [-1, 1]; an alpha channel is dropped, and of 16 bits the upper eight are taken, as the
/// references do.
///
/// # Errors
/// Where the file can't be read or decoded.
pub fn read_picture(path: impl AsRef<Path>, device: &Device) -> Result<Tensor<4>, MetricError> {
    let (shape, values) = decode(path.as_ref())?;
    Ok(Tensor::from_data(TensorData::new(values, shape), (device, DType::F32)))
}

/// The shape `[1, 3, h, w]` and the values of a picture.
pub(super) fn decode(path: &Path) -> Result<([usize; 4], Vec<f32>), MetricError> {
    let picture = |source| MetricError::Picture { path: path.into(), source };
    // By content: many a .png is a JPEG.
    let reader = image::ImageReader::open(path).and_then(|r| r.with_guessed_format());
    let decoded = reader.map_err(MetricError::io(path))?.decode().map_err(picture)?;
    let rgb = upper_bytes(&decoded).to_rgb8();
    let plane = |c: usize| rgb.as_raw().iter().skip(c).step_by(3).map(|v| f32::from(*v) / 127.5 - 1.0);
    let values = (0..3).flat_map(plane).collect();
    Ok(([1, 3, rgb.height() as usize, rgb.width() as usize], values))
}

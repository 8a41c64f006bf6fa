use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use image::RgbImage;
use ldm::image::save_png;

use super::Result;

/// The PNG that is written, or the numbered ones.
#[derive(Debug, Clone)]
pub struct Pictures(PathBuf);

impl FromStr for Pictures {
    type Err = Infallible;

    fn from_str(path: &str) -> std::result::Result<Self, Infallible> {
        Ok(Self(path.into()))
    }
}

impl Pictures {
    /// Says before the long work whether the pictures can be written after it.
    pub fn check(&self) -> Result<()> {
        if self.0.extension().is_none_or(|e| !e.eq_ignore_ascii_case("png")) {
            return Err(format!("--output {}: pictures are written as .png", self.0.display()).into());
        }
        check_folder(&self.0, "--output")
    }

    /// Writes them: `output.png`, or `output-1.png`, `output-2.png`, ...; says where.
    pub fn save(&self, pictures: &[RgbImage], parameters: &str) -> Result<()> {
        for (i, picture) in pictures.iter().enumerate() {
            let path = if pictures.len() == 1 { self.0.clone() } else { self.numbered(i + 1) };
            // `parameters` is the keyword under which other tools look.
            save_png(picture, &path, &[("parameters", parameters.into()), ("Software", "ldm".into())])?;
            println!("{}", path.display());
        }
        Ok(())
    }

    fn numbered(&self, n: usize) -> PathBuf {
        let stem = self.0.file_stem().unwrap_or_default().to_string_lossy();
        self.0.with_file_name(format!("{stem}-{n}.png"))
    }
}

/// Pictures of one size side by side, row by row.
pub fn sheet(pictures: &[RgbImage], columns: usize) -> RgbImage {
    let [width, height] = pictures.first().map_or([0, 0], |p| [p.width(), p.height()]);
    let columns = columns.clamp(1, pictures.len().max(1)) as u32;
    let rows = (pictures.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::new(columns * width, rows * height);
    for (i, picture) in (0..).zip(pictures) {
        let [x, y] = [i % columns * width, i / columns * height].map(i64::from);
        image::imageops::replace(&mut sheet, picture, x, y);
    }
    sheet
}

/// Whether a file can come to lie at `path`.
pub fn check_folder(path: &Path, argument: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => {
            Err(format!("{argument} {}: there is no folder {}", path.display(), folder.display()).into())
        }
        _ => Ok(()),
    }
}

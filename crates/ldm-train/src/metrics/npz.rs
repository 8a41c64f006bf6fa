//! Statistics as pytorch-fid and guided-diffusion keep them: NumPy's `.npz`.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::Path;

use npyz::{NpyFile, Order, WriterBuilder};
use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::{MetricError, Statistics};

/// Which features an archive's statistics are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatisticsKind {
    /// The 2048 pool features, of FID: arrays `mu` and `sigma`.
    Pool,
    /// The 17 x 17 x 7 spatial features, of sFID: arrays `mu_s` and `sigma_s`.
    Spatial,
}

/// No feature extractor gives more; a header that says so is believed no further.
const WIDEST: u64 = 1 << 15;

impl StatisticsKind {
    fn keys(self) -> [&'static str; 2] {
        match self {
            Self::Pool => ["mu", "sigma"],
            Self::Spatial => ["mu_s", "sigma_s"],
        }
    }
}

impl Statistics {
    /// Reads the statistics of one kind from an `.npz`, of f64 or f32.
    ///
    /// # Errors
    /// Where the file is no such archive, lacks one of the arrays, or they don't fit together.
    pub fn read_npz(path: impl AsRef<Path>, kind: StatisticsKind) -> Result<Self, MetricError> {
        let path = path.as_ref();
        let file = BufReader::new(File::open(path).map_err(MetricError::io(path))?);
        let mut archive =
            ZipArchive::new(file).map_err(|e| MetricError::content(path, format!("no .npz archive: {e}")))?;
        let [mu, sigma] = kind.keys();
        let (shape, mean) = array(path, &mut archive, mu)?;
        let &[d] = shape.as_slice() else {
            return Err(MetricError::content(path, format!("{mu} has shape {shape:?}, not [d]")));
        };
        let (shape, covariance) = array(path, &mut archive, sigma)?;
        if shape != [d, d] {
            let what = format!("{sigma} has shape {shape:?}, {mu} needs {:?}", [d, d]);
            return Err(MetricError::content(path, what));
        }
        Self::new(mean, covariance).map_err(|e| MetricError::content(path, format!("{mu} and {sigma}: {e}")))
    }

    /// Writes statistics to an `.npz`, compressed, as f64; the file appears whole or not at all.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write_npz(
        path: impl AsRef<Path>,
        statistics: &[(StatisticsKind, &Statistics)],
    ) -> Result<(), MetricError> {
        let path = path.as_ref();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let write = || -> std::io::Result<()> {
            let file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
            let mut archive = ZipWriter::new(file);
            for (kind, statistics) in statistics {
                let d = statistics.mu().len() as u64;
                let arrays = [(&[d][..], statistics.mu()), (&[d, d], statistics.sigma())];
                for (key, (shape, values)) in kind.keys().into_iter().zip(arrays) {
                    let name = npyz::npz::file_name_from_array_name(key);
                    archive.start_file(name, SimpleFileOptions::default())?;
                    archive.write_all(&npy(shape, values)?)?;
                }
            }
            let file = archive.finish()?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(MetricError::io(path))
    }
}

fn npy(shape: &[u64], values: &[f64]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.len() * 8 + 128);
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes).begin_nd()?;
    writer.extend(values)?;
    writer.finish()?;
    Ok(bytes)
}

/// Shape and values of one array.
fn array(
    path: &Path,
    archive: &mut ZipArchive<impl Read + std::io::Seek>,
    key: &str,
) -> Result<(Vec<u64>, Vec<f64>), MetricError> {
    let refuse = |what: String| MetricError::content(path, format!("{key}: {what}"));
    let name = npyz::npz::file_name_from_array_name(key);
    let entry = archive.by_name(&name).map_err(|_| {
        MetricError::content(path, format!("there is no array {key}; statistics have `mu` and `sigma`"))
    })?;
    // The largest array that is believed, and a header.
    let mut bytes = Vec::new();
    entry.take(WIDEST * WIDEST * 8 + 4096).read_to_end(&mut bytes).map_err(|e| refuse(e.to_string()))?;
    let file = NpyFile::new(Cursor::new(&bytes)).map_err(|e| refuse(e.to_string()))?;
    let shape = file.shape().to_vec();
    if shape.len() > 2 || shape.iter().any(|n| *n > WIDEST) {
        return Err(refuse(format!("shape {shape:?} is none of a mean or a covariance")));
    }
    let (order, len) = (file.order(), file.len());
    if len * 4 > bytes.len() as u64 {
        return Err(refuse(format!("shape {shape:?} in {} bytes", bytes.len())));
    }
    let dtype = file.dtype().descr();
    let values: std::io::Result<Vec<f64>> = match file.try_data::<f64>() {
        Ok(data) => data.collect(),
        Err(file) => match file.try_data::<f32>() {
            Ok(data) => data.map(|v| v.map(f64::from)).collect(),
            Err(_) => return Err(refuse(format!("elements {dtype}, not f64 or f32"))),
        },
    };
    let mut values = values.map_err(|e| refuse(e.to_string()))?;
    if let (Order::Fortran, &[rows, columns]) = (order, shape.as_slice()) {
        let (rows, columns) = (rows as usize, columns as usize);
        values = (0..rows * columns).map(|i| values[(i % columns) * rows + i / columns]).collect();
    }
    Ok((shape, values))
}

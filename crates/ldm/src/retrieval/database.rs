use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};

use super::npz::Npz;
use super::{Neighbour, RetrievalError};

/// Embeddings of patches of pictures, with where each patch was cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    width: usize,
    embedding: Vec<f32>,
    img_id: Vec<String>,
    patch_coords: Vec<[i64; 4]>,
}

const ARRAYS: [&str; 3] = ["embedding", "img_id", "patch_coords"];

impl Database {
    /// Reads a database: one `.npz` file, or a folder of them, taken in the order of their names.
    ///
    /// Each holds `embedding` `[n, d]` (float16, 32 or 64), `img_id` `[n]` (integers or strings) and `patch_coords`
    /// `[n, 4]` (integers: left, top, right, bottom).
    ///
    /// # Errors
    /// Names the file, and the arrays that are missing or of the wrong shape, type or width.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RetrievalError> {
        let path = path.as_ref();
        let mut database = Self { width: 0, embedding: vec![], img_id: vec![], patch_coords: vec![] };
        for part in parts(path)? {
            database.append(Npz::open(&part)?)?;
        }
        Ok(database)
    }

    /// Of embeddings alone, for tests of the searches.
    #[cfg(all(test, feature = "retrieval"))]
    pub(super) fn of(width: usize, embedding: Vec<f32>) -> Self {
        let rows = embedding.len() / width;
        let img_id = (0..rows).map(|i| i.to_string()).collect();
        Self { width, embedding, img_id, patch_coords: vec![[0; 4]; rows] }
    }

    fn append(&mut self, mut file: Npz) -> Result<(), RetrievalError> {
        let path = file.path().to_path_buf();
        let mut found = file.names();
        let missing: Vec<_> = ARRAYS.into_iter().filter(|name| !found.iter().any(|f| f == name)).collect();
        if !missing.is_empty() {
            found.sort();
            return Err(RetrievalError::Missing { path, missing, found });
        }
        let shape = |array, found: &[u64], expected: &str| RetrievalError::Shape {
            path: path.clone(),
            array,
            found: found.to_vec(),
            expected: expected.into(),
        };
        let embedding = file.floats("embedding")?;
        let [rows, width] = embedding.shape[..] else {
            return Err(shape("embedding", &embedding.shape, "[n, d]"));
        };
        let (rows, width) = (rows as usize, width as usize);
        if rows == 0 || width == 0 {
            return Err(shape("embedding", &embedding.shape, "at least one row and one column"));
        }
        if self.width != 0 && width != self.width {
            let what = path.display().to_string();
            return Err(RetrievalError::Width { what, expected: self.width, found: width });
        }
        let not_finite =
            embedding.values.chunks_exact(width).position(|row| !row.iter().all(|v| v.is_finite()));
        if let Some(row) = not_finite {
            return Err(RetrievalError::NotFinite { path, row });
        }
        let img_id = file.names_or_numbers("img_id")?;
        if img_id.shape != [rows as u64] {
            return Err(shape("img_id", &img_id.shape, &format!("[{rows}]")));
        }
        let coordinates = file.integers("patch_coords")?;
        if coordinates.shape != [rows as u64, 4] {
            return Err(shape("patch_coords", &coordinates.shape, &format!("[{rows}, 4]")));
        }
        self.width = width;
        self.embedding.extend(embedding.values);
        self.img_id.extend(img_id.values);
        self.patch_coords.extend(coordinates.values.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]));
        Ok(())
    }

    /// The number of patches.
    pub fn len(&self) -> usize {
        self.img_id.len()
    }

    /// Never: a file without rows is refused.
    pub fn is_empty(&self) -> bool {
        self.img_id.is_empty()
    }

    /// The width of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The embedding of a patch, as the file has it. Panics where there is no such row, as a slice does.
    pub fn embedding(&self, index: usize) -> &[f32] {
        &self.embedding[index * self.width..(index + 1) * self.width]
    }

    /// Which picture each patch is of.
    pub fn img_id(&self) -> &[String] {
        &self.img_id
    }

    /// Where each patch was cut: left, top, right, bottom.
    pub fn patch_coords(&self) -> &[[i64; 4]] {
        &self.patch_coords
    }

    pub(super) fn rows(&self) -> &[f32] {
        &self.embedding
    }

    /// The embeddings of neighbours, each of length 1, as the model's context takes them: `[queries, k, d]`.
    ///
    /// # Errors
    /// A row that isn't there, or queries with different numbers of neighbours.
    pub fn context(&self, found: &[Vec<Neighbour>], device: &Device) -> Result<Tensor<3>, RetrievalError> {
        let k = found.first().map_or(0, Vec::len);
        let mut values = Vec::with_capacity(found.len() * k * self.width);
        for neighbours in found {
            if neighbours.len() != k || k == 0 {
                return Err(RetrievalError::Count { k: neighbours.len(), rows: self.len() });
            }
            for Neighbour { index, .. } in neighbours {
                if *index >= self.len() {
                    return Err(RetrievalError::Row { index: *index, rows: self.len() });
                }
                values.extend(normalised(self.embedding(*index)));
            }
        }
        Ok(Tensor::from_data(TensorData::new(values, [found.len(), k, self.width]), device))
    }

    /// A query must be as wide as the embeddings, and ask for as many rows as there are.
    pub(super) fn check(&self, width: usize, k: usize) -> Result<(), RetrievalError> {
        if width != self.width {
            let (what, expected) = ("the query".into(), self.width);
            return Err(RetrievalError::Width { what, expected, found: width });
        }
        if !(1..=self.len()).contains(&k) {
            return Err(RetrievalError::Count { k, rows: self.len() });
        }
        Ok(())
    }
}

/// A vector of length 1 in the same direction; a zero stays one.
pub(super) fn normalised(vector: &[f32]) -> impl Iterator<Item = f32> + '_ {
    let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    vector.iter().map(move |v| (f64::from(*v) / length) as f32)
}

fn parts(path: &Path) -> Result<Vec<PathBuf>, RetrievalError> {
    let io = |source| RetrievalError::Io { path: path.into(), source };
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if file.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
            parts.push(file);
        }
    }
    parts.sort();
    if parts.is_empty() {
        return Err(RetrievalError::NoParts { path: path.into() });
    }
    Ok(parts)
}

//! Data sets made for the tests: picture n is one colour that says n.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use ldm_train::data::{Batch, DataConfig, Loader, LoaderConfig, Source, Transform};

pub fn colour(n: u8) -> [u8; 3] {
    [n, 255 - n, n.wrapping_mul(37)]
}

pub fn picture(n: u8) -> RgbImage {
    RgbImage::from_pixel(8, 8, Rgb(colour(n)))
}

pub fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(picture.clone()).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn png(n: u8) -> Vec<u8> {
    encoded(&picture(n), ImageFormat::Png)
}

/// Writes entries as a tar archive.
pub fn tar(path: &Path, entries: &[(String, Vec<u8>)]) -> PathBuf {
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, data) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data.as_slice()).unwrap();
    }
    tar.finish().unwrap();
    path.into()
}

/// `p012.png` and its caption.
pub fn sample(n: u8) -> [(String, Vec<u8>); 2] {
    [(format!("p{n:03}.png"), png(n)), (format!("p{n:03}.txt"), format!("number {n}\n").into_bytes())]
}

/// A folder of shards with so many samples each, numbered through.
pub fn shards(dir: &Path, sizes: &[u8]) -> PathBuf {
    let mut n = 0;
    for (i, size) in sizes.iter().enumerate() {
        let entries: Vec<_> = (n..n + size).flat_map(sample).collect();
        tar(&dir.join(format!("shard-{i:03}.tar")), &entries);
        n += size;
    }
    dir.into()
}

pub fn small(batch_size: usize) -> LoaderConfig {
    LoaderConfig { batch_size, seed: 5, workers: 2, transform: Transform::new(8), ..Default::default() }
}

pub fn loader(path: &Path, config: LoaderConfig) -> Loader {
    Loader::new(DataConfig::new(path).open().unwrap(), config).unwrap()
}

pub fn keys(source: &Arc<dyn Source>, order: ldm_train::data::Order) -> Vec<String> {
    source.epoch(order).map(|item| item.unwrap().key).collect()
}

/// Batches `from..from + count`.
pub fn batches(loader: &Loader, from: u64, count: usize) -> Vec<Batch> {
    loader.batches_from(from).unwrap().take(count).map(Result::unwrap).collect()
}

/// The first pixel of a batch's picture, as 8-bit colour.
pub fn pixel(batch: &Batch, at: usize) -> [u8; 3] {
    let area = batch.size * batch.size;
    [0, 1, 2].map(|c| ((batch.pictures[(at * 3 + c) * area] + 1.0) * 127.5).round() as u8)
}

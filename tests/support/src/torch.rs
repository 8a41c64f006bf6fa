use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Writes a file as `torch.save` does: a zip archive of a pickle and of the storages that it names, not compressed.
///
/// `storages` are the elements' little-endian bytes; the n-th is the storage called `n`. They are made one at a time.
pub fn write_torch(path: &Path, pickle: &[u8], storages: impl IntoIterator<Item = Vec<u8>>) {
    write(path, CompressionMethod::Stored, pickle, storages);
}

/// The same file as somebody has packed it anew: its entries are compressed.
pub fn write_torch_deflated(path: &Path, pickle: &[u8], storages: impl IntoIterator<Item = Vec<u8>>) {
    write(path, CompressionMethod::Deflated, pickle, storages);
}

fn write(path: &Path, method: CompressionMethod, pickle: &[u8], storages: impl IntoIterator<Item = Vec<u8>>) {
    let file = File::create(path).expect("the file can be created");
    let mut archive = ZipWriter::new(BufWriter::new(file));
    let options = SimpleFileOptions::default().compression_method(method);
    let mut entry = |name: String, bytes: &[u8]| {
        archive.start_file(name, options).expect("an entry can be begun");
        archive.write_all(bytes).expect("an entry can be written");
    };
    entry("archive/data.pkl".into(), pickle);
    for (i, bytes) in storages.into_iter().enumerate() {
        entry(format!("archive/data/{i}"), &bytes);
    }
    entry("archive/version".into(), b"3\n");
    archive.finish().expect("the archive can be finished");
}

/// The pickle of a state dict of f32 tensors, of which the n-th is all of the storage `n`.
pub fn pickled_state_dict(shapes: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}(".to_vec();
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let strides: Vec<usize> = (1..=shape.len()).map(|axis| shape[axis..].iter().product()).collect();
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(text("storage"));
        pickle.extend(b"ctorch\nFloatStorage\n");
        pickle.extend(text(&i.to_string()));
        pickle.extend(text("cpu"));
        pickle.extend(number(shape.iter().product()));
        pickle.extend(b"tQK\0");
        pickle.extend(tuple(shape));
        pickle.extend(tuple(&strides));
        pickle.extend(b"\x89}tR");
    }
    pickle.extend(b"u.");
    pickle
}

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn number(n: usize) -> Vec<u8> {
    let n = i32::try_from(n).expect("a size below 2^31");
    [&b"J"[..], &n.to_le_bytes()[..]].concat()
}

fn tuple(numbers: &[usize]) -> Vec<u8> {
    let items: Vec<u8> = numbers.iter().flat_map(|n| number(*n)).collect();
    [&b"("[..], &items[..], &b"t"[..]].concat()
}

//! Models by name, from a hub on this machine: what is fetched, the cache, and what is said where neither answers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on has failed")]

mod common;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::thread;

use common::program::{example_with, text};
use common::{directory, write_directory};
use ldm_test_support::Fixture;
use serde_json::json;

const NAME: &str = "someone/tiny-model";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The few answers of the hub that a download asks for, over a folder that stands for one repository.
struct Hub {
    endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn of(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (folder, log) = (folder.to_path_buf(), Arc::clone(&asked));
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (folder, log) = (folder.clone(), Arc::clone(&log));
                thread::spawn(move || answer(connection.unwrap(), &folder, &log));
            }
        });
        Self { endpoint, asked }
    }

    /// The files that were downloaded so far.
    fn fetched(&self) -> Vec<String> {
        let mut files = self.asked.lock().unwrap().clone();
        files.sort();
        files
    }
}

fn answer(mut connection: TcpStream, folder: &Path, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(connection.try_clone().unwrap()).lines().map(Result::unwrap);
    let request = lines.next().unwrap_or_default();
    // The headers end with an empty line; a request without a body ends there too.
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let (method, target) = request.trim_end_matches(" HTTP/1.1").split_once(' ').unwrap_or_default();
    let path = target.split('?').next().unwrap();
    let (status, body) = if path == format!("/api/models/{NAME}/revision/main") {
        ("200 OK", json!({ "sha": COMMIT }).to_string().into_bytes())
    } else if path == format!("/api/models/{NAME}/tree/{COMMIT}") {
        let entry = |path: PathBuf| {
            let size = fs::metadata(folder.join(&path)).unwrap().len();
            json!({ "type": "file", "oid": "0", "size": size, "path": path })
        };
        let tree: Vec<_> = files_below(folder).into_iter().map(entry).collect();
        ("200 OK", serde_json::to_vec(&tree).unwrap())
    } else if let Some(file) = path.strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/")) {
        if method == "GET" {
            log.lock().unwrap().push(file.into());
        }
        fs::read(folder.join(file)).map_or(("404 Not Found", Vec::new()), |bytes| ("200 OK", bytes))
    } else {
        ("404 Not Found", Vec::new())
    };
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let tag = format!("{:016x}", hasher.finish());
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"{tag}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    if method != "HEAD" {
        connection.write_all(&body).unwrap();
    }
}

/// The files of a folder and of those in it, by their paths from there.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(folder.join(&inner)).unwrap() {
            let entry = entry.unwrap();
            let path = inner.join(entry.file_name());
            if entry.path().is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// Draws with the model called `name`.
fn draw(name: &str, hub: &str, cache: &Path, output: &Path, more: &[&str]) -> Output {
    let mut arguments = vec![
        "--model", name, "--prompt", "a fox", "--steps", "2", "--seed", "7", "--width", "64", "--height",
        "64",
    ];
    arguments.extend(["--output", text(output)]);
    arguments.extend(more);
    let environment = [
        ("HF_ENDPOINT", hub),
        ("HF_HUB_CACHE", text(cache)),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
        ("NO_PROXY", "127.0.0.1"),
        ("no_proxy", "127.0.0.1"),
    ];
    example_with("text_to_image", &arguments, &environment)
}

#[track_caller]
fn refused(output: &Output, parts: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !error.contains("panicked"), "{error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not named: {error}");
    }
}

/// An endpoint where nobody listens: the port of a service that no machine runs any more.
const NOBODY: &str = "http://127.0.0.1:9";

#[test]
fn a_model_by_name_is_fetched_once_and_draws_the_same_picture() {
    let fixture = Fixture::open("pipeline_sd1");
    let repository = directory(&fixture);
    let files = files_below(repository.path()).len();
    // What a repository has besides and sampling has no use for.
    for unwanted in ["README.md", "safety_checker/model.safetensors", "unet/model.fp16.safetensors"] {
        let path = repository.path().join(unwanted);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "not wanted").unwrap();
    }
    let hub = Hub::of(repository.path());
    let work = tempfile::tempdir().unwrap();
    let [cache, local, named, again] =
        ["cache", "local.png", "named.png", "again.png"].map(|name| work.path().join(name));
    let pixels = |path: &Path| image::open(path).unwrap().to_rgb8();

    let expected = tempfile::tempdir().unwrap();
    write_directory(&fixture, expected.path());
    let output = draw(text(expected.path()), NOBODY, &cache, &local, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = draw(NAME, &hub.endpoint, &cache, &named, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(pixels(&named), pixels(&local));
    let fetched = hub.fetched();
    assert_eq!(fetched.len(), files, "{fetched:?}");
    assert!(!fetched.iter().any(|file| file.contains("README") || file.contains("fp16")), "{fetched:?}");

    // All of it is in the cache now, whether the hub answers or not.
    let output = draw(NAME, &hub.endpoint, &cache, &again, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(hub.fetched(), fetched);
    fs::remove_file(&again).unwrap();
    let output = draw(NAME, NOBODY, &cache, &again, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(pixels(&again), pixels(&local));
}

#[test]
fn weights_that_are_there_as_bin_alone_are_fetched_too() {
    let repository = directory(&Fixture::open("pipeline_sd1"));
    let unet = repository.path().join("unet");
    fs::remove_file(unet.join("diffusion_pytorch_model.safetensors")).unwrap();
    fs::write(unet.join("diffusion_pytorch_model.bin"), "no weights").unwrap();
    let hub = Hub::of(repository.path());
    let work = tempfile::tempdir().unwrap();
    let [cache, picture] = ["cache", "picture.png"].map(|name| work.path().join(name));
    let output = draw(NAME, &hub.endpoint, &cache, &picture, &[]);
    refused(&output, &["diffusion_pytorch_model.bin"]);
    assert!(hub.fetched().contains(&"unet/diffusion_pytorch_model.bin".to_string()), "{:?}", hub.fetched());
}

#[test]
fn a_variant_is_fetched_instead_of_the_plain_weights() {
    let repository = directory(&Fixture::open("pipeline_sd1"));
    for part in ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"] {
        let [plain, half] = ["safetensors", "fp16.safetensors"].map(|end| format!("{part}.{end}"));
        fs::copy(repository.path().join(plain), repository.path().join(half)).unwrap();
    }
    let hub = Hub::of(repository.path());
    let work = tempfile::tempdir().unwrap();
    let [cache, picture] = ["cache", "picture.png"].map(|name| work.path().join(name));
    let output = draw(NAME, &hub.endpoint, &cache, &picture, &["--variant", "fp16"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let weights: Vec<_> = hub.fetched().into_iter().filter(|f| f.ends_with("safetensors")).collect();
    assert_eq!(weights.len(), 3, "{weights:?}");
    assert!(weights.iter().all(|file| file.contains(".fp16.")), "{weights:?}");
}

#[test]
fn without_network_and_cache_the_error_says_what_to_download() {
    let work = tempfile::tempdir().unwrap();
    let [cache, picture] = ["cache", "picture.png"].map(|name| work.path().join(name));
    let output = draw(NAME, NOBODY, &cache, &picture, &[]);
    let by_hand = ["huggingface.co/someone/tiny-model", "By hand", "unet/*.safetensors", "model_index.json"];
    refused(&output, &by_hand);
    // Told once, by us.
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("ERROR") && !error.contains("retry exhausted"), "{error}");
    // A repository that isn't there is named as well.
    let empty = tempfile::tempdir().unwrap();
    let hub = Hub::of(empty.path());
    let output = draw("someone/else", &hub.endpoint, &cache, &picture, &[]);
    refused(&output, &["someone/else", "By hand"]);
    // And what can't be a repository's name asks nobody.
    let output = draw("runs/no such/model", &hub.endpoint, &cache, &picture, &[]);
    refused(&output, &["runs/no such/model", "there is no such folder or file"]);
}

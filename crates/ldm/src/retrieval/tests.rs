//! Databases that numpy wrote and the neighbours that it finds (tests/reference/retrieval.py).

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use ldm_scheduler::{NativeRng, Noise};
use ldm_test_support::{Fixture, assert_close};

use super::*;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/retrieval").join(name)
}

#[test]
fn neighbours_are_numpys() {
    let (device, fixture) = (Device::default(), Fixture::open("retrieval"));
    let database = Database::open(file("parts")).unwrap();
    assert_eq!((database.len(), database.width()), (70, 12));
    let ids: Vec<String> = serde_json::from_value(fixture.json("img_id")).unwrap();
    assert_eq!(database.img_id(), ids);
    let coordinates: Vec<[i64; 4]> = serde_json::from_value(fixture.json("patch_coords")).unwrap();
    assert_eq!(database.patch_coords(), coordinates);
    let rows = Tensor::<2>::from_data(TensorData::new(database.rows().to_vec(), [70, 12]), &device);
    assert_close("embedding", &rows, &fixture.tensor::<2>("embedding", &device), 0.0);

    let queries = fixture.tensor::<2>("queries", &device);
    for (name, metric) in [("cosine", Metric::Cosine), ("dot", Metric::Dot)] {
        let found = database.nearest(queries.clone(), 10, metric).unwrap();
        let indices: Vec<i64> = found.iter().flatten().map(|n| n.index as i64).collect();
        assert_eq!(indices, fixture.ints(&format!("{name}.indices")), "{name}");
        let scores: Vec<f32> = found.iter().flatten().map(|n| n.score).collect();
        let scores = Tensor::<2>::from_data(TensorData::new(scores, [found.len(), 10]), &device);
        assert_close(name, &scores, &fixture.tensor(&format!("{name}.scores"), &device), 1e-5);
        if metric == Metric::Cosine {
            let context = database.context(&found, &device).unwrap();
            assert_close("context", &context, &fixture.tensor::<3>("context", &device), 1e-6);
        }
    }
    // The whole database, each row once.
    let mut all: Vec<_> = database.nearest(queries, 70, Metric::Dot).unwrap().swap_remove(0);
    assert!(all.windows(2).all(|pair| pair[0].score >= pair[1].score));
    all.sort_by_key(|n| n.index);
    assert!(all.iter().enumerate().all(|(i, n)| n.index == i));
}

#[test]
fn what_is_no_database_is_named() {
    let named = |name: &str, parts: &[&str]| {
        let error = Database::open(file(name)).unwrap_err();
        let text = error.to_string();
        for part in parts {
            assert!(text.contains(part), "{name}: `{part}` is not named: {text}");
        }
        error
    };
    let error = named("missing.npz", &["missing.npz", "img_id", "patch_coords", "embedding"]);
    assert!(
        matches!(error, RetrievalError::Missing { missing, .. } if missing == ["img_id", "patch_coords"])
    );
    let error = named("widths", &["part_1.npz", "8", "12"]);
    assert!(matches!(error, RetrievalError::Width { expected: 12, found: 8, .. }));
    let error = named("rows.npz", &["rows.npz", "img_id", "[5]", "[4]"]);
    assert!(matches!(error, RetrievalError::Shape { array: "img_id", .. }));
    let error = named("coords.npz", &["patch_coords", "[4, 3]", "[4, 4]"]);
    assert!(matches!(error, RetrievalError::Shape { array: "patch_coords", .. }));
    let error = named("complex.npz", &["embedding", "c8", "float32"]);
    assert!(matches!(error, RetrievalError::Type { array: "embedding", .. }));
    // An object array is a pickle, which is never run.
    assert!(matches!(
        named("pickle.npz", &["img_id", "pickled"]),
        RetrievalError::Type { array: "img_id", .. }
    ));
    assert!(matches!(named("nan.npz", &["row 2"]), RetrievalError::NotFinite { row: 2, .. }));
    let error = named("no_such.npz", &["no_such.npz"]);
    assert!(matches!(error, RetrievalError::Io { .. }));

    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Database::open(folder.path()), Err(RetrievalError::NoParts { .. })));
    let path = folder.path().join("x.npz");
    let whole = std::fs::read(file("parts/part_0.npz")).unwrap();
    for bytes in [&b"not a zip"[..], &whole[..whole.len() / 2], &[]] {
        std::fs::write(&path, bytes).unwrap();
        let error = Database::open(&path).unwrap_err();
        assert!(matches!(&error, RetrievalError::Format { .. }), "{error}");
        assert!(error.to_string().contains("x.npz"), "{error}");
    }
    // Any flipped byte is an error or leaves the file readable; never a panic.
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&path, bytes).unwrap();
        let _ = Database::open(&path);
    }
}

#[test]
fn queries_that_cannot_be_answered_are_named() {
    let device = Device::default();
    let database = Database::open(file("parts")).unwrap();
    let zeros = |width| Tensor::<2>::zeros([2, width], &device);
    let error = database.nearest(zeros(16), 3, Metric::Cosine).unwrap_err();
    assert_eq!(error.to_string(), "the query has embeddings 16 wide, the database's are 12");
    for k in [0, 71] {
        let error = database.nearest(zeros(12), k, Metric::Cosine).unwrap_err();
        assert!(matches!(error, RetrievalError::Count { rows: 70, .. }), "{error}");
    }
    // A zero has no direction: everything is equally far, and the first rows come first.
    let found = database.nearest(zeros(12), 3, Metric::Cosine).unwrap();
    assert_eq!(found[0].iter().map(|n| n.index).collect::<Vec<_>>(), [0, 1, 2]);
    let far = vec![vec![Neighbour { index: 70, score: 0.0 }]];
    assert!(matches!(database.context(&far, &device), Err(RetrievalError::Row { index: 70, rows: 70 })));
    let uneven = vec![found[0].clone(), found[0][..2].to_vec()];
    assert!(matches!(database.context(&uneven, &device), Err(RetrievalError::Count { k: 2, .. })));
}

/// Points around 50 centres, as embeddings are: `[n, 32]`.
#[cfg(feature = "retrieval")]
fn points(n: usize, rng: &mut NativeRng, centres: &[f32]) -> Vec<f32> {
    let normal = |rng: &mut NativeRng, n| rng.normal(&[n], burn::tensor::DType::F32).unwrap();
    let mut points = normal(rng, n * 32);
    for (i, point) in points.chunks_exact_mut(32).enumerate() {
        let centre = &centres[i % 50 * 32..(i % 50 + 1) * 32];
        point.iter_mut().zip(centre).for_each(|(v, c)| *v = 0.6 * *v + c);
    }
    points
}

#[cfg(feature = "retrieval")]
#[test]
fn the_graph_finds_nearly_all_that_a_full_search_finds() {
    let device = Device::default();
    let mut rng = NativeRng::new(11);
    let centres = rng.normal(&[50 * 32], burn::tensor::DType::F32).unwrap();
    let embedding = points(3000, &mut rng, &centres);
    let database = Database::of(32, embedding);
    let queries = points(200, &mut rng, &centres);
    let queries = Tensor::<2>::from_data(TensorData::new(queries, [200, 32]), &device);
    let exact = database.nearest(queries.clone(), 10, Metric::Cosine).unwrap();
    let config = HnswConfig { max_nb_connection: 16, ef_construction: 100 };
    let graph = Hnsw::build(&database, config).unwrap();
    let found = graph.nearest(queries.clone(), 10, 32).unwrap();
    let mut hits = 0;
    for (found, exact) in found.iter().zip(&exact) {
        assert_eq!(found.len(), 10);
        assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
        hits += found.iter().filter(|n| exact.iter().any(|e| e.index == n.index)).count();
        for n in found {
            if let Some(e) = exact.iter().find(|e| e.index == n.index) {
                assert!((e.score - n.score).abs() < 1e-5);
            }
        }
    }
    let recall = hits as f64 / 2000.0;
    println!("recall at 10: {recall:.4}");
    assert!(recall >= 0.95, "{recall}");

    assert!(matches!(graph.nearest(queries, 0, 64), Err(RetrievalError::Count { k: 0, .. })));
    let narrow = Tensor::<2>::zeros([1, 8], &device);
    assert!(matches!(graph.nearest(narrow, 1, 64), Err(RetrievalError::Width { found: 8, .. })));
    for (max_nb_connection, ef_construction) in [(300, 10), (0, 10), (16, 0)] {
        let config = HnswConfig { max_nb_connection, ef_construction };
        assert!(matches!(Hnsw::build(&database, config), Err(RetrievalError::Parameter { .. })));
    }
}

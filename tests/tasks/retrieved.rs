//! Retrieval as `scripts/knn2img.py` goes about it: text, CLIP, neighbours in a database, context, picture.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use ldm::LoadOptions;
use ldm::conditioning::clip::{ClipTextEmbedder, ClipTokenizer};
use ldm::retrieval::{Database, Hnsw, HnswConfig, Metric};
use ldm::scheduler::SamplerKind;
use ldm_test_support::{Fixture, assert_close, write_weights};

use crate::models::published;

const RUN: f64 = 1e-3;
const DATABASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/retrieval/texts.npz");

/// The folder of a CLIP text encoder as transformers saves it.
fn write_clip(fixture: &Fixture, folder: &Path) {
    std::fs::write(folder.join("config.json"), fixture.json("config").to_string()).unwrap();
    write_weights(&folder.join("model.safetensors"), &fixture.shapes("shapes"));
}

#[test]
fn from_texts_and_their_neighbours_to_pictures() {
    let (device, fixture) = (Device::default(), Fixture::open("task_retrieved"));
    let folder = tempfile::tempdir().unwrap();
    write_clip(&fixture, folder.path());
    let encoder = ldm::load_text_encoder(folder.path(), ".", &LoadOptions::default()).unwrap();
    let clip = ClipTextEmbedder::new(ClipTokenizer::open_ai().unwrap(), encoder).unwrap();
    let prompts: Vec<String> = serde_json::from_value(fixture.json("prompts")).unwrap();
    let texts = clip.embed(&prompts).unwrap();
    assert_close("texts", &texts, &fixture.tensor::<2>("texts", &device), 1e-4);

    let database = Database::open(DATABASE).unwrap();
    let found = database.nearest(texts.clone(), 4, Metric::Cosine).unwrap();
    let indices: Vec<i64> = found.iter().flatten().map(|neighbour| neighbour.index as i64).collect();
    assert_eq!(indices, fixture.ints("nns"));
    // The graph over the same file, looking at all of it, misses none.
    let graph = Hnsw::build(&database, HnswConfig::default()).unwrap();
    let approximate = graph.nearest(texts.clone(), 4, database.len()).unwrap();
    assert_eq!(approximate.len(), found.len());
    for (approximate, exact) in approximate.iter().flatten().zip(found.iter().flatten()) {
        assert_eq!(approximate.index, exact.index);
        assert!((approximate.score - exact.score).abs() < 1e-5, "{approximate:?} {exact:?}");
    }
    let neighbours = database.context(&found, &device).unwrap();
    let context = Tensor::cat(vec![texts.unsqueeze_dim::<3>(1), neighbours], 1);
    assert_close("context", &context, &fixture.tensor::<3>("context", &device), 1e-4);

    let model = published("rdm768x768");
    for kind in [SamplerKind::Ddim, SamplerKind::Pndm] {
        let run = model.embeddings(context.clone()).unwrap().latent_size(8, 8);
        let drawn = run.steps(20).seed(5).guidance(5.0).sampler(kind).run().unwrap();
        let expected = fixture.tensor::<4>(&format!("{kind}.latents"), &device);
        assert_close(&format!("{kind} latents"), &drawn.latents, &expected, RUN);
        if kind == SamplerKind::Ddim {
            let first = drawn.pictures.narrow(0, 0, 1);
            assert_close("pictures", &first, &fixture.tensor::<4>("ddim.pictures", &device), RUN);
        }
    }
}

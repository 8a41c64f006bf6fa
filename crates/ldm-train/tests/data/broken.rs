use std::path::Path;

use ldm_train::data::{Batches, DataConfig, DataError, Loader, LoaderConfig};

use super::made::{batches, loader, png, sample, shards, small, tar};

fn error(path: &Path) -> DataError {
    DataConfig::new(path).open().unwrap_err()
}

#[test]
fn a_broken_picture_is_skipped_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut entries: Vec<_> = (0..20).flat_map(sample).collect();
    let half = entries[2 * 4].1.len() / 2;
    entries[2 * 4].1.truncate(half);
    entries[2 * 11].1 = b"no picture at all".to_vec();
    let path = tar(&dir.path().join("a.tar"), &entries);

    let loader = loader(&path, small(4));
    // Two epochs: every other picture is there, batches are full and none moves.
    let all = batches(&loader, 0, 10);
    for epoch in all.chunks(5) {
        let keys: Vec<_> = epoch.iter().flat_map(|b| b.keys.clone()).collect();
        assert_eq!(keys.len(), 20);
        for n in (0..20).filter(|n| ![4, 11].contains(n)) {
            assert!(keys.contains(&format!("p{n:03}")), "{n} is lost");
        }
    }
    assert_eq!(batches(&loader, 7, 3), all[7..]);

    let fresh = Loader::new(loader.source().clone(), small(4)).unwrap();
    let once: usize = fresh.once().unwrap().map(|b| b.unwrap().len()).sum();
    assert_eq!(once, 18);
    let broken = fresh.report().broken();
    assert_eq!(broken.keys().collect::<Vec<_>>(), ["p004", "p011"]);
    assert!(broken.values().all(|b| b.skipped == 1), "{broken:?}");
    assert!(broken["p011"].reason.contains("neither PNG"), "{broken:?}");
}

#[test]
fn neighbours_that_are_all_broken_end_no_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut entries: Vec<_> = (0..9).flat_map(sample).collect();
    for n in 3..6 {
        entries[2 * n].1.truncate(40);
    }
    let path = tar(&dir.path().join("a.tar"), &entries);
    let loader = loader(&path, LoaderConfig { shuffle: false, ..small(1) });
    let keys = |batches: Batches| -> Vec<String> { batches.take(18).flat_map(|b| b.unwrap().keys).collect() };
    // The next one that can be read stands in for each of them, in two epochs.
    let epoch = [0, 1, 2, 6, 6, 6, 6, 7, 8].map(|n| format!("p{n:03}"));
    let expected = [epoch.as_slice(), &epoch].concat();
    assert_eq!(keys(loader.batches_from(0).unwrap()), expected);
    let readable = |view: u64| !(3..6).contains(&view);
    assert_eq!(keys(loader.views_from(0, readable).unwrap()), expected);
    assert_eq!(loader.report().broken().len(), 3);
}

#[test]
fn nothing_but_broken_pictures_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        std::fs::write(dir.path().join(format!("{n}.png")), b"x").unwrap();
    }
    let loader = loader(dir.path(), small(2));
    let mut batches = loader.batches_from(0).unwrap();
    let error = batches.next().unwrap().unwrap_err();
    assert!(matches!(error, DataError::NothingReadable { batch: 0, .. }), "{error}");
    assert!(batches.next().is_none());
    let error = loader.views_from(0, |_| false).unwrap().next().unwrap().unwrap_err();
    assert!(matches!(error, DataError::NothingReadable { batch: 0, .. }), "{error}");
    assert!(loader.once().unwrap().next().is_none());
    assert_eq!(loader.report().broken().len(), 3);
}

#[test]
fn missing_and_empty_data() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(error(&dir.path().join("nowhere")), DataError::Missing { .. }));
    assert!(matches!(error(dir.path()), DataError::Empty { .. }));
    let path = shards(dir.path(), &[3]);
    let config = DataConfig::new(path).split("validation");
    let error = config.open().unwrap_err().to_string();
    assert!(error.contains("\"validation\""), "{error}");
}

#[test]
fn a_bad_metadata_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.png"), png(1)).unwrap();
    let good = "{\"file_name\": \"a.png\", \"text\": \"a\"}\n";
    for (line, expected) in [
        ("{\"file_name\": \"a.png\", \"te", "line 2: EOF"),
        ("[1]", "line 2: not a JSON object"),
        ("{\"text\": \"a\"}", "line 2: no `file_name`"),
        ("{\"file_name\": \"a.png\", \"text\": 3}", "line 2: `text` is 3"),
        ("{\"file_name\": \"../a.png\"}", "line 2: `file_name` \"../a.png\" leaves the folder"),
        ("{\"file_name\": \"b.png\", \"text\": \"b\"}", "a caption without a picture: b.png (line 2)"),
    ] {
        std::fs::write(dir.path().join("metadata.jsonl"), format!("{good}{line}\n")).unwrap();
        let error = error(dir.path()).to_string();
        assert!(error.contains("metadata.jsonl") && error.contains(expected), "{error}");
    }
}

#[test]
fn captions_and_pictures_come_together() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.png"), png(1)).unwrap();
    std::fs::write(dir.path().join("a.txt"), "a").unwrap();
    std::fs::write(dir.path().join("b.txt"), "b").unwrap();
    let found = error(dir.path());
    assert!(matches!(&found, DataError::CaptionWithoutPicture { key, .. } if key == "b.txt"), "{found}");
    std::fs::rename(dir.path().join("b.txt"), dir.path().join("c.md")).unwrap();
    std::fs::write(dir.path().join("b.png"), png(2)).unwrap();
    assert!(matches!(error(dir.path()), DataError::PictureWithoutCaption { .. }));

    let entries = [sample(1).to_vec(), sample(2)[1..].to_vec()].concat();
    let path = tar(&dir.path().join("a.tar"), &entries);
    let found = error(&path);
    assert!(matches!(&found, DataError::CaptionWithoutPicture { key, .. } if key == "p002"), "{found}");
}

#[test]
fn a_truncated_shard_is_an_error_wherever_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = tar(&dir.path().join("a.tar"), &(0..3).flat_map(sample).collect::<Vec<_>>());
    let whole = std::fs::read(&path).unwrap();
    let end = whole.len() - 1024;
    // In the end mark, at it, in data, in a header, at an entry's border, nearly nothing.
    for length in [end + 511, end, end - 100, end - 700, end - 1024, 512, 100, 0] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = error(&path);
        assert!(matches!(&error, DataError::Truncated { .. }), "{length} of {}: {error}", whole.len());
        assert!(error.to_string().contains("a.tar"));
    }
    std::fs::write(&path, [b"not a tar archive".as_slice(), &[7; 4000]].concat()).unwrap();
    assert!(matches!(error(&path), DataError::Shard { .. }));
}

#[test]
fn bad_samples_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (name, data, expected) in [
        ("p001.json", "{\"caption\": ", "p001.json: EOF"),
        ("p001.json", "3", "p001.json: not a JSON object"),
        ("p001.cls", "three", "p001.cls: \"three\": invalid digit"),
        ("p001.jpg", "", "p001: two pictures"),
    ] {
        let entries = [sample(1).to_vec(), vec![(name.into(), data.into())]].concat();
        let path = tar(&dir.path().join("a.tar"), &entries);
        let error = error(&path).to_string();
        assert!(error.contains("a.tar") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_shard_that_changes_under_a_run_stops_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = tar(&dir.path().join("a.tar"), &(0..6).flat_map(sample).collect::<Vec<_>>());
    let loader = loader(&path, small(2));
    tar(&path, &(0..5).flat_map(sample).collect::<Vec<_>>());
    let error = loader.batches_from(0).unwrap().next().unwrap().unwrap_err();
    assert!(matches!(error, DataError::Changed { expected: 6, found: 5 }), "{error}");
}

use std::collections::BTreeSet;
use std::path::Path;

use image::ImageFormat;
use ldm_train::data::{DataConfig, Layout, Loader, LoaderConfig, Order, Transform};

use super::made::{batches, colour, encoded, keys, loader, picture, pixel, png, sample, small, tar};

fn write(path: &Path, data: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, data).unwrap();
}

/// Every picture has its own caption, colour and class, wherever they come from.
fn assert_whole(dir: &Path, expected: &[(&str, &str, u8, Option<i64>)]) {
    let loader = loader(dir, LoaderConfig { shuffle: false, ..small(expected.len()) });
    let batch = &batches(&loader, 0, 1)[0];
    for (at, (key, caption, number, class)) in expected.iter().enumerate() {
        assert_eq!(batch.keys[at], *key);
        assert_eq!(batch.captions[at], *caption);
        assert_eq!(pixel(batch, at), colour(*number), "{key}");
        assert_eq!(batch.classes.as_ref().map(|classes| classes[at]), *class);
    }
    assert_eq!(batch.len(), expected.len());
    assert_eq!(loader.source().items(), expected.len() as u64);
}

#[test]
fn a_metadata_file() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "{\"file_name\": \"b.png\", \"text\": \"blue\"}\n\n{\"file_name\": \"in/a.jpg\", \"text\": \"red\"}\n";
    write(&dir.path().join("metadata.jsonl"), lines.as_bytes());
    write(&dir.path().join("b.png"), &png(3));
    // White survives JPEG.
    let white = image::RgbImage::from_pixel(8, 8, image::Rgb([255; 3]));
    write(&dir.path().join("in/a.jpg"), &encoded(&white, ImageFormat::Jpeg));
    write(&dir.path().join("not_named.png"), &png(9));
    let loader = loader(dir.path(), LoaderConfig { shuffle: false, ..small(2) });
    let batch = &batches(&loader, 0, 1)[0];
    assert_eq!(batch.keys, ["b.png", "in/a.jpg"]);
    assert_eq!(batch.captions, ["blue", "red"]);
    assert_eq!((pixel(batch, 0), pixel(batch, 1)), (colour(3), [255; 3]));
    assert_eq!(batch.classes, None);
}

#[test]
fn captions_beside_pictures() {
    let dir = tempfile::tempdir().unwrap();
    for (name, n) in [("a", 1), ("deep/b", 2)] {
        write(&dir.path().join(name).with_extension("webp"), &encoded(&picture(n), ImageFormat::WebP));
        write(&dir.path().join(name).with_extension("txt"), format!("  is {n}\n").as_bytes());
    }
    write(&dir.path().join(".hidden.txt"), b"not a caption");
    assert_whole(dir.path(), &[("a.webp", "is 1", 1, None), ("deep/b.webp", "is 2", 2, None)]);
}

#[test]
fn folders_as_classes() {
    let dir = tempfile::tempdir().unwrap();
    for (name, n) in [("tabby_cat/1.png", 1), ("dog/2.bmp", 2), ("dog/old/3.png", 3)] {
        let format = ImageFormat::from_path(name).unwrap();
        write(&dir.path().join(name), &encoded(&picture(n), format));
    }
    for hidden in [".thumbnails/1.png", "dog/.cache/2.png", "dog/.3.png"] {
        write(&dir.path().join(hidden), &encoded(&picture(9), ImageFormat::Png));
    }
    assert_whole(
        dir.path(),
        &[
            ("dog/2.bmp", "dog", 2, Some(0)),
            ("dog/old/3.png", "dog", 3, Some(0)),
            ("tabby_cat/1.png", "tabby cat", 1, Some(1)),
        ],
    );
    let classes = DataConfig::new(dir.path()).open().unwrap().classes().to_vec();
    assert_eq!(classes, ["dog", "tabby_cat"]);
}

#[test]
fn pictures_alone() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("1.png"), &png(1));
    write(&dir.path().join("more/2.png"), &png(2));
    assert_whole(dir.path(), &[("1.png", "", 1, None), ("more/2.png", "", 2, None)]);
    // Folders that are no classes must be said to be none.
    std::fs::remove_file(dir.path().join("1.png")).unwrap();
    let config = DataConfig { layout: Some(Layout::Plain), ..DataConfig::new(dir.path()) };
    assert!(config.open().unwrap().classes().is_empty());
}

#[test]
fn shards_with_texts_json_and_classes() {
    let dir = tempfile::tempdir().unwrap();
    let json = |text: &str| text.as_bytes().to_vec();
    let mut entries = vec![
        ("d/1.v2.PNG".to_string(), png(0)),
        ("d/1.png".to_string(), png(1)),
        ("d/1.json".to_string(), json(r#"{"caption": "one", "split": "train", "kind": "b"}"#)),
        (
            "2.json".to_string(),
            json(r#"{"caption": "two", "split": "held_out", "kind": "a", "why": "rare"}"#),
        ),
        ("2.png".to_string(), png(2)),
        ("notes.md".to_string(), json("about this shard")),
    ];
    let path = tar(&dir.path().join("a.tar"), &entries);
    assert_whole(&path, &[("d/1", "one", 1, None), ("2", "two", 2, None)]);

    let config = DataConfig { class_key: Some("kind".into()), ..DataConfig::new(&path) };
    let source = config.open().unwrap();
    assert_eq!(source.classes(), ["a", "b"]);
    let classes: Vec<_> = source.epoch(Order::Listed).map(|i| i.unwrap().class).collect();
    assert_eq!(classes, [Some(1), Some(0)]);
    let held_out = DataConfig::new(&path).split("held_out").open().unwrap();
    assert_eq!(keys(&held_out, Order::Listed), ["2"]);

    // Another split may lack the class.
    let config = DataConfig { class_key: Some("why".into()), ..DataConfig::new(&path) };
    assert!(config.open().unwrap_err().to_string().contains("no `why`"));
    assert_eq!(config.split("held_out").open().unwrap().classes(), ["rare"]);

    entries.extend(sample(7));
    entries.push(("p007.cls".into(), b"41\n".to_vec()));
    let path = tar(&dir.path().join("b.tar"), &entries[6..]);
    assert_whole(&path, &[("p007", "number 7", 7, Some(41))]);
    // A folder of shards is read as one data set.
    assert_eq!(DataConfig::new(dir.path()).open().unwrap().items(), 3);
}

/// The shipped data set keeps what assets/README.md promises.
#[test]
fn the_emoji() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/emoji.tar");
    let open = |split| DataConfig::new(&path).split(split).open().unwrap();
    let (train, held_out) = (open("train"), open("held_out"));
    assert_eq!((train.items(), held_out.items()), (3173, 200));

    let captions = |source: &std::sync::Arc<dyn ldm_train::data::Source>| -> BTreeSet<String> {
        source.epoch(Order::Listed).map(|item| item.unwrap().caption).collect()
    };
    let (seen, unseen) = (captions(&train), captions(&held_out));
    assert_eq!((seen.len(), unseen.len()), (3173, 200), "captions are unique");
    assert!(seen.is_disjoint(&unseen));
    let list = std::fs::read_to_string(path.with_file_name("held_out.txt")).unwrap();
    let mut combinations = 0;
    for line in list.lines() {
        let [_, kind, caption] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        assert!(unseen.contains(caption), "{caption}");
        if kind == "combination" {
            combinations += 1;
            let (person, tone) = caption.split_once(", ").unwrap();
            let others = seen.iter().filter(|c| c.split_once(", ").is_some_and(|(p, _)| p == person)).count();
            assert!(others >= 3, "{person} is seen in {others} other tones");
            assert!(seen.iter().any(|c| c.ends_with(&format!(", {tone}"))));
        }
    }
    assert_eq!((list.lines().count(), combinations), (200, 110));

    let config = LoaderConfig { batch_size: 200, transform: Transform::new(64), ..Default::default() };
    let loader = Loader::new(held_out, config).unwrap();
    let batch = loader.once().unwrap().next().unwrap().unwrap();
    assert_eq!((batch.len(), loader.report().broken().len()), (200, 0));
    // On white: nearly every picture's corner is (rocks and hills reach theirs), but for what WebP loses.
    let white = (0..200).filter(|at| pixel(&batch, *at).iter().all(|v| *v >= 248)).count();
    assert!(white >= 190, "{white}");
}

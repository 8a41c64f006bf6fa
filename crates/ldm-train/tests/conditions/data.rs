//! Second pictures and boxes, from folders and shards.

use std::io::Cursor;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use ldm_conditioning::{BoundingBox, Condition};
use ldm_train::conditions::{Asked, ConditionConfig, Conditions};
use ldm_train::data::{
    Batch, Crop, DataConfig, DataError, Loader, LoaderConfig, MapConfig, MapKind, Transform,
};
use ldm_train::run::Random;
use ldm_vae::{FirstStage, IdentityFirstStage};
use serde_json::json;

const WIDE: u32 = 24;
const HIGH: u32 = 12;

/// Red says the column, the label too.
fn picture() -> RgbImage {
    RgbImage::from_fn(WIDE, HIGH, |x, y| Rgb([x as u8, y as u8, 9]))
}

fn labels() -> GrayImage {
    GrayImage::from_fn(WIDE, HIGH, |x, _| Luma([x as u8]))
}

fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn entries() -> Vec<(String, Vec<u8>)> {
    let json = json!({"text": "a", "objects": [
        {"class": 2, "bbox": [0.25, 0.0, 0.25, 0.5], "is_occluded": true, "name": "read over"},
    ]});
    vec![
        ("a.png".into(), png(picture())),
        ("a.map.png".into(), png(labels())),
        ("a.json".into(), json.to_string().into_bytes()),
    ]
}

fn shard(dir: &Path, entries: &[(String, Vec<u8>)]) {
    let mut tar = tar::Builder::new(std::fs::File::create(dir.join("s.tar")).unwrap());
    for (name, data) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        tar.append_data(&mut header, name, data.as_slice()).unwrap();
    }
    tar.finish().unwrap();
}

/// As `metadata.jsonl` says it.
fn folder(dir: &Path, entries: &[(String, Vec<u8>)]) {
    for (name, data) in entries {
        match name.strip_suffix(".json") {
            None => std::fs::write(dir.join(name), data).unwrap(),
            Some(_) => {
                let mut line: serde_json::Value = serde_json::from_slice(data).unwrap();
                line["file_name"] = json!("a.png");
                std::fs::write(dir.join("metadata.jsonl"), line.to_string()).unwrap();
            }
        }
    }
}

fn source(dir: &Path) -> DataConfig {
    DataConfig { map_suffix: Some("map".into()), objects_key: Some("objects".into()), ..DataConfig::new(dir) }
}

fn batches(dir: &Path, crop: Crop, flip: bool, map: MapConfig, count: usize) -> Vec<Batch> {
    let transform = Transform { crop, flip, ..Transform::new(HIGH as usize) };
    let config = LoaderConfig { transform, map, workers: 1, ..LoaderConfig::default() };
    let loader = Loader::new(source(dir).open().unwrap(), config).unwrap();
    loader.batches_from(0).unwrap().take(count).map(Result::unwrap).collect()
}

fn condition(config: &ConditionConfig, batch: &Batch) -> Result<Condition, ldm_train::RunError> {
    let (device, first_stage) = (Device::default(), FirstStage::Identity(IdentityFirstStage::new(3)));
    config.of(batch, &Asked { micro: 0, random: Random::new(0), first_stage: &first_stage, device: &device })
}

/// Crops and mirrors take map and boxes along.
#[test]
fn maps_and_boxes_are_seen_as_their_pictures() {
    for write in [shard, folder] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &entries());
        let labels = MapConfig { kind: MapKind::Labels, size: None };
        let (mut flips, mut lefts) = (0, std::collections::BTreeSet::new());
        for batch in batches(dir.path(), Crop::Random, true, labels, 24) {
            let map = batch.maps.as_ref().unwrap();
            let side = HIGH as usize;
            assert_eq!((map.size, map.values.len()), (side, side * side));
            let red = &batch.pictures[..side * side];
            let columns: Vec<u32> = red.iter().map(|v| ((v + 1.0) * 127.5).round() as u32).collect();
            assert_eq!(columns, map.values.iter().map(|v| *v as u32).collect::<Vec<_>>());

            let layout = &batch.layouts.as_ref().unwrap()[0];
            assert_eq!(layout.objects.len(), 1);
            assert_eq!(layout.objects[0].bbox, BoundingBox::new(0.25, 0.0, 0.25, 0.5));
            assert!(layout.objects[0].is_occluded && !layout.objects[0].is_group_of);
            assert_eq!(layout.horizontal_flip, columns[0] > columns[1]);
            let left = *columns.iter().min().unwrap();
            let expected = BoundingBox::new(f64::from(left) / f64::from(WIDE), 0.0, 0.5, 1.0);
            assert_eq!(layout.crop, expected);
            flips += usize::from(layout.horizontal_flip);
            lefts.insert(left);
        }
        assert!((4..20).contains(&flips) && lefts.len() > 5, "{flips} {lefts:?}");
    }
}

/// Pictures of their own size, in colours.
#[test]
fn second_pictures_may_be_smaller() {
    let dir = tempfile::tempdir().unwrap();
    let mut entries = entries();
    let small = RgbImage::from_fn(WIDE / 2, HIGH / 2, |x, _| Rgb([2 * x as u8, 0, 255]));
    entries[1].1 = png(small);
    shard(dir.path(), &entries);
    let map = MapConfig { kind: MapKind::Picture, size: Some(6) };
    let batch = &batches(dir.path(), Crop::Center, false, map, 1)[0];
    let Condition::Image(given) = condition(&ConditionConfig::Map { classes: None }, batch).unwrap() else {
        panic!()
    };
    assert_eq!(given.dims(), [1, 3, 6, 6]);
    let values: Vec<f32> = given.into_data().iter().collect();
    let row: Vec<i32> = values[..6].iter().map(|v| ((v + 1.0) * 127.5).round() as i32).collect();
    assert_eq!(row, [6, 8, 10, 12, 14, 16]);
    assert!(values[72..].iter().all(|v| *v == 1.0));
}

/// One channel a class; objects as the tokenizer of the paper's layout models has them.
#[test]
fn maps_and_boxes_become_conditions() {
    let dir = tempfile::tempdir().unwrap();
    shard(dir.path(), &entries());
    let labels = MapConfig { kind: MapKind::Labels, size: None };
    let batch = &batches(dir.path(), Crop::Center, false, labels, 1)[0];
    let map = ConditionConfig::Map { classes: Some(24) };
    let Condition::Image(given) = condition(&map, batch).unwrap() else { panic!() };
    assert_eq!(given.dims(), [1, 24, 12, 12]);
    // The crop's left edge is column 6, so class 6 + x is set in column x.
    let sums: Vec<f32> = given.clone().sum_dim(2).into_data().iter().collect();
    for (i, sum) in sums.iter().enumerate() {
        assert_eq!(*sum, if i / 12 == 6 + i % 12 { 12.0 } else { 0.0 }, "{i}");
    }
    let narrow = condition(&ConditionConfig::Map { classes: Some(10) }, batch).unwrap_err().to_string();
    assert!(narrow.contains("label 1") && narrow.starts_with("a: "), "{narrow}");

    let layouts = ConditionConfig::layouts(5);
    let Condition::Tokens(tokens) = condition(&layouts, batch).unwrap() else { panic!() };
    let tokens: Vec<i64> = tokens.into_data().iter().collect();
    // Class 2, occluded (2): 2 + 5 x 2; corners (0.25, 0) and (0.5, 0.5) on a grid of 90; the crop from 0.25 to 0.75.
    assert_eq!(tokens.len(), 92);
    assert_eq!(tokens[..4], [12, 22, 44 * 90 + 44, 8191]);
    assert_eq!(tokens[90..], [22, 89 * 90 + 67]);
    let null: Tensor<2, Int> = match layouts.null(&condition(&layouts, batch).unwrap()) {
        Some(Condition::Tokens(null)) => null,
        other => panic!("{other:?}"),
    };
    let null: Vec<i64> = null.into_data().iter().collect();
    assert!(null[..90].iter().all(|t| *t == 8191));
    assert_eq!(null[90..], [0, 89 * 90 + 89]);
}

#[test]
fn missing_and_broken_maps_are_named() {
    let without = |entries: &mut Vec<(String, Vec<u8>)>| drop(entries.remove(1));
    let dir = tempfile::tempdir().unwrap();
    let mut all = entries();
    without(&mut all);
    shard(dir.path(), &all);
    let error = source(dir.path()).open().unwrap_err();
    assert!(matches!(&error, DataError::Shard { .. }) && error.to_string().contains("a.map.png"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), &all);
    let error = source(dir.path()).open().unwrap_err();
    assert!(matches!(error, DataError::PictureWithoutMap { .. }), "{error}");
    assert!(error.to_string().contains("a.map.png"), "{error}");

    // Colours are no labels, other sides no map of this picture: the sample is skipped and named.
    for (map, reason) in [(png(picture()), "grey"), (png(GrayImage::new(12, 12)), "12 x 12")] {
        let dir = tempfile::tempdir().unwrap();
        let mut all = entries();
        all[1].1 = map;
        let good = entries().into_iter().map(|(name, data)| (name.replacen('a', "b", 1), data));
        all.extend(good);
        shard(dir.path(), &all);
        let map = MapConfig { kind: MapKind::Labels, size: None };
        let transform = Transform::new(12);
        let config = LoaderConfig { transform, map, workers: 1, shuffle: false, ..LoaderConfig::default() };
        let loader = Loader::new(source(dir.path()).open().unwrap(), config).unwrap();
        let batch = loader.batches_from(0).unwrap().next().unwrap().unwrap();
        assert_eq!(batch.keys, ["b"]);
        let broken = loader.report().broken();
        assert!(broken["a"].reason.contains(reason), "{}", broken["a"].reason);
    }
    let mut all = entries();
    all[2].1 = br#"{"objects": [{"class": "cat", "bbox": [0, 0, 1, 1]}]}"#.to_vec();
    let dir = tempfile::tempdir().unwrap();
    shard(dir.path(), &all);
    let error = source(dir.path()).open().unwrap_err().to_string();
    assert!(error.contains("a.json") && error.contains("`objects`"), "{error}");
}

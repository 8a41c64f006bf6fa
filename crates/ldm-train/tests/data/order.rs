use std::collections::BTreeSet;
use std::sync::Arc;

use ldm_train::data::{Crop, DataConfig, Items, LoaderConfig, Order, Part, Source, Transform};

use super::made::{batches, keys, loader, shards, small};

/// Sizes that no batch divides, over shards of several sizes.
const SIZES: [u8; 4] = [13, 1, 20, 9];
const ITEMS: usize = 43;

fn random_views() -> LoaderConfig {
    let transform = Transform { crop: Crop::Random, flip: true, resize: Some(12), ..Transform::new(8) };
    LoaderConfig { transform, ..small(5) }
}

#[test]
fn threads_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = shards(dir.path(), &SIZES);
    let with = |workers, prefetch| {
        let config = LoaderConfig { workers, prefetch, ..random_views() };
        batches(&loader(&path, config), 0, 30)
    };
    let one = with(1, 1);
    assert_eq!(one.len(), 30);
    assert!(one.iter().all(|batch| batch.len() == 5));
    for (workers, prefetch) in [(2, 4), (3, 1), (7, 20)] {
        assert_eq!(with(workers, prefetch), one, "{workers} threads, {prefetch} ahead");
    }
}

#[test]
fn a_run_goes_on_from_any_batch() {
    let dir = tempfile::tempdir().unwrap();
    let path = shards(dir.path(), &SIZES);
    // Batches straddle epochs: 30 batches of 5 are 3.5 epochs of 43.
    let whole = batches(&loader(&path, random_views()), 0, 30);
    for from in [1, 8, 9, 17, 29] {
        let rest = batches(&loader(&path, random_views()), from as u64, 30 - from);
        assert_eq!(rest, whole[from..], "from {from}");
    }
    let other = LoaderConfig { seed: 6, ..random_views() };
    assert_ne!(batches(&loader(&path, other), 0, 3), whole[..3]);
}

#[test]
fn an_epoch_has_everything_once_in_an_order_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = shards(dir.path(), &SIZES);
    for shuffle_buffer in [1, 6, 1000] {
        let source = DataConfig { shuffle_buffer, ..DataConfig::new(&path) }.open().unwrap();
        let listed = keys(&source, Order::Listed);
        assert_eq!(listed.len(), ITEMS);
        let mut orders = BTreeSet::new();
        for epoch in 0..4 {
            let order = keys(&source, Order::Shuffled { seed: 1, epoch });
            assert_eq!(order, keys(&source, Order::Shuffled { seed: 1, epoch }));
            let mut sorted = order.clone();
            sorted.sort();
            assert_eq!(sorted, listed, "buffer {shuffle_buffer}, epoch {epoch}");
            orders.insert(order);
        }
        assert!(orders.len() >= 3, "buffer {shuffle_buffer}");
    }
    // The loader's epochs are these: 43 batches of 43 items, each item once in every 43.
    let all = batches(&loader(&path, small(ITEMS)), 0, 3);
    for batch in &all {
        assert_eq!(batch.keys.iter().collect::<BTreeSet<_>>().len(), ITEMS);
    }
    assert_ne!(all[0].keys, all[1].keys);
}

/// How far a full buffer moves items: as a shuffle of everything would, a third of the way on average.
#[test]
fn the_buffer_mixes_over_its_whole_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = shards(dir.path(), &[200]);
    let moved = |shuffle_buffer| {
        let source = DataConfig { shuffle_buffer, ..DataConfig::new(&path) }.open().unwrap();
        let items = source.epoch(Order::Shuffled { seed: 3, epoch: 0 });
        items.enumerate().map(|(at, item)| item.unwrap().index.abs_diff(at as u64)).sum::<u64>() as f64
            / 200.0
    };
    assert!((moved(200) - 200.0 / 3.0).abs() < 10.0, "{}", moved(200));
    assert!((2.0..40.0).contains(&moved(10)), "{}", moved(10));
}

#[test]
fn parts_share_the_data_without_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let path = shards(dir.path(), &SIZES);
    let listed = keys(&DataConfig::new(&path).open().unwrap(), Order::Listed);
    // Whole shards for up to four parts, samples beyond.
    for count in [1, 2, 3, 4, 6] {
        let (mut all, mut numbers) = (Vec::new(), BTreeSet::new());
        for index in 0..count {
            let part = Part { index, count };
            let source = DataConfig { part, ..DataConfig::new(&path) }.open().unwrap();
            let mine = keys(&source, Order::Shuffled { seed: 2, epoch: 7 });
            assert_eq!(mine.len() as u64, source.items());
            numbers.extend(source.epoch(Order::Listed).map(|i| i.unwrap().index));
            all.extend(mine);
        }
        all.sort();
        assert_eq!(all, listed, "{count} parts");
        assert_eq!(numbers, (0..ITEMS as u64).collect(), "{count} parts");
    }
    let wrong = DataConfig { part: Part { index: 2, count: 2 }, ..DataConfig::new(&path) };
    assert!(wrong.open().unwrap_err().to_string().contains("index must be below count"));
}

/// A source that leaves its fingerprint to the trait: one more walk over the items.
#[derive(Debug)]
struct Walked(Arc<dyn Source>);

impl Source for Walked {
    fn items(&self) -> u64 {
        self.0.items()
    }

    fn classes(&self) -> &[String] {
        self.0.classes()
    }

    fn epoch(&self, order: Order) -> Items {
        self.0.epoch(order)
    }
}

/// Shards have their fingerprint from when they were opened, and it is that of their items.
#[test]
fn the_fingerprint_of_shards_takes_no_second_reading() {
    let dir = tempfile::tempdir().unwrap();
    let path = shards(dir.path(), &SIZES);
    let mut seen = BTreeSet::new();
    let mut opened = Vec::new();
    for count in [1, 3, 6] {
        for index in 0..count {
            let part = Part { index, count };
            let source = DataConfig { part, ..DataConfig::new(&path) }.open().unwrap();
            let fingerprint = source.fingerprint().unwrap();
            assert_eq!(fingerprint, Walked(source.clone()).fingerprint().unwrap(), "{part:?}");
            seen.insert(fingerprint.clone());
            opened.push((source, fingerprint));
        }
    }
    assert_eq!(seen.len(), opened.len());
    dir.close().unwrap();
    for (source, fingerprint) in opened {
        assert_eq!(source.fingerprint().unwrap(), fingerprint);
    }
}

#[test]
fn one_pass_gives_every_view_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = shards(dir.path(), &SIZES);
    let transform = Transform { crop: Crop::Five, flip: true, resize: Some(12), ..Transform::new(8) };
    let loader = loader(&path, LoaderConfig { transform, ..small(7) });
    assert_eq!(loader.views(), Some(ITEMS as u64 * 10));
    let batches: Vec<_> = loader.once().unwrap().map(Result::unwrap).collect();
    let views: Vec<u64> = batches.iter().flat_map(|b| b.views.clone().unwrap()).collect();
    assert_eq!(views, (0..ITEMS as u64 * 10).collect::<Vec<_>>());
    assert_eq!(batches.last().unwrap().len(), ITEMS * 10 % 7);
}

#[test]
fn views_without_pictures_are_those_of_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    let path = shards(dir.path(), &SIZES);
    let transform = Transform { flip: true, ..Transform::new(8) };
    let loader = loader(&path, LoaderConfig { transform, ..small(5) });
    let pictures = batches(&loader, 3, 10);
    let views = loader.views_from(3, |_| true).unwrap().take(10).map(Result::unwrap);
    for (with, without) in pictures.iter().zip(views) {
        assert_eq!(without.views, with.views);
        assert_eq!(without.captions, with.captions);
        assert_eq!((without.number, without.pictures.len()), (with.number, 0));
    }
}

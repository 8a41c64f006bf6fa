use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fields::{ClassNames, Label};
use super::latents::Fnv;
use super::random::{Purpose, rng, shuffle};
use super::shuffle::Shuffle;
use super::{DataConfig, DataError, Item, Items, Order, Source, tar};

/// WebDataset shards. Opening reads every header once; an epoch then streams them, a shard at a time.
///
/// A shuffled epoch takes the shards in a new order and mixes their samples with a buffer. What is
/// streamed and buffered are places in the shards; a picture's bytes are read by the thread that decodes it.
#[derive(Debug)]
pub struct Shards {
    shards: Arc<Vec<Shard>>,
    classes: Arc<ClassNames>,
    config: Arc<DataConfig>,
    items: u64,
    /// Of the first reading: large shards take long to read again.
    fingerprint: String,
}

/// One shard of this part.
#[derive(Debug)]
struct Shard {
    path: Arc<Path>,
    /// The number of its first item.
    first: u64,
    /// How many of its samples are taken.
    items: u64,
    /// Where shards are fewer than parts, one of `count` samples is taken: the `index`-th.
    stride: (usize, usize),
}

impl Shards {
    /// Reads the headers of all shards.
    ///
    /// # Errors
    ///
    /// [`DataError`], naming the shard: truncated, no tar archive, a caption without picture, nothing of the split.
    pub fn open(paths: Vec<PathBuf>, config: &DataConfig) -> Result<Self, DataError> {
        let part = config.part;
        let by_shard = paths.len() >= part.count;
        let stride = if by_shard { (0, 1) } else { (part.index, part.count) };
        let (mut shards, mut labels, mut first) = (Vec::new(), Vec::new(), 0u64);
        let mut hash = Fnv::default();
        for (i, path) in paths.iter().enumerate() {
            let path: Arc<Path> = path.as_path().into();
            let found = tar::samples(&path, config)?;
            let all = found.len() as u64;
            labels.extend(found.iter().filter_map(|s| s.class.clone()));
            if !by_shard || i % part.count == part.index {
                let taken = || (first..).zip(&found).skip(stride.0).step_by(stride.1);
                taken().for_each(|(index, sample)| hash.add_item(index, &sample.key));
                let items = taken().count() as u64;
                shards.push(Shard { path, first, items, stride });
            }
            first += all;
        }
        let items = shards.iter().map(|s| s.items).sum();
        if items == 0 {
            let what = config.split.as_ref().map_or(String::new(), |split| format!(" of split {split:?}"));
            return Err(DataError::Empty { path: config.path.clone(), what });
        }
        let classes = ClassNames::new(labels.iter().map(Some));
        let (config, fingerprint) = (config.clone().into(), hash.hex());
        Ok(Self { shards: shards.into(), classes: classes.into(), config, items, fingerprint })
    }

    /// The samples of the shards with these numbers, in that order.
    fn stream(&self, order: Vec<usize>) -> impl Iterator<Item = Result<Item, DataError>> + Send + 'static {
        let (shards, config, classes) = (self.shards.clone(), self.config.clone(), self.classes.clone());
        order.into_iter().flat_map(move |i| {
            let shard = &shards[i];
            match tar::samples(&shard.path, &config) {
                Err(e) => vec![Err(e)],
                Ok(samples) => numbered(shard, samples, &classes),
            }
        })
    }
}

/// A shard's samples with their numbers, or one error if they aren't those of the first reading.
fn numbered(shard: &Shard, samples: Vec<tar::Sample>, classes: &ClassNames) -> Vec<Result<Item, DataError>> {
    let (skip, step) = shard.stride;
    let item = |(index, sample): (u64, tar::Sample)| Item {
        index,
        key: sample.key,
        caption: sample.caption,
        class: sample.class.and_then(|label: Label| classes.number(&label)),
        picture: sample.picture,
        map: sample.map,
        objects: sample.objects,
    };
    let items: Vec<_> =
        (shard.first..).zip(samples).skip(skip).step_by(step).map(|found| Ok(item(found))).collect();
    match items.len() as u64 {
        found if found == shard.items => items,
        found => vec![Err(DataError::Changed { expected: shard.items, found })],
    }
}

impl Source for Shards {
    fn items(&self) -> u64 {
        self.items
    }

    fn classes(&self) -> &[String] {
        self.classes.names()
    }

    fn epoch(&self, order: Order) -> Items {
        let mut shards: Vec<usize> = (0..self.shards.len()).collect();
        match order {
            Order::Listed => Box::new(self.stream(shards)),
            Order::Shuffled { seed, epoch } => {
                shuffle(&mut rng(seed, Purpose::Order, epoch, 0), &mut shards);
                let draws = rng(seed, Purpose::Buffer, epoch, 0);
                Box::new(Shuffle::new(self.stream(shards), self.config.shuffle_buffer, draws))
            }
        }
    }

    fn fingerprint(&self) -> Result<String, DataError> {
        Ok(self.fingerprint.clone())
    }
}

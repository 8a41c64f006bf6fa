use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pipeline::{Batches, Job, Task, Work, start};
use super::random::{Purpose, rng};
use super::{DataError, Item, MapConfig, Order, Report, Source, Transform, View};

/// How many pictures behind a batch at least may take the place of broken ones: so many in a row can be broken.
const SPARE: usize = 64;

/// How a data set becomes batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// Pictures in a batch.
    pub batch_size: usize,
    /// What order, crops and flips are drawn from.
    pub seed: u64,
    /// Whether each epoch has its own order.
    pub shuffle: bool,
    /// Decoding threads; 0 for one a core.
    pub workers: usize,
    /// Batches that are decoded ahead.
    pub prefetch: usize,
    /// What is done to each picture.
    pub transform: Transform,
    /// How the second picture of each is read, where the data has those.
    #[serde(skip_serializing_if = "MapConfig::is_default")]
    pub map: MapConfig,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 1,
            seed: 0,
            shuffle: true,
            workers: 0,
            prefetch: 4,
            transform: Transform::default(),
            map: MapConfig::default(),
        }
    }
}

/// Batches of a data set. What is in batch n depends on the data, the seed and n alone.
///
/// ```no_run
/// # use ldm_train::data::{DataConfig, DataError, Loader, LoaderConfig, Transform};
/// # fn main() -> Result<(), DataError> {
/// let source = DataConfig::new("assets/emoji.tar").split("train").open()?;
/// let config = LoaderConfig { batch_size: 32, transform: Transform::new(64), ..Default::default() };
/// let loader = Loader::new(source, config)?;
/// for batch in loader.batches_from(0)?.take(100) {
///     let batch = batch?;
///     println!("{} {:?}", batch.number, batch.captions);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Loader {
    source: Arc<dyn Source>,
    config: LoaderConfig,
    report: Report,
}

impl Loader {
    /// A loader of this source.
    ///
    /// # Errors
    ///
    /// [`DataError::Config`], naming the key that can't be.
    pub fn new(source: Arc<dyn Source>, config: LoaderConfig) -> Result<Self, DataError> {
        config.transform.validate()?;
        config.map.validate()?;
        if config.batch_size == 0 {
            return Err(DataError::config("batch_size", 0, "must be at least 1"));
        }
        Ok(Self { source, config, report: Report::default() })
    }

    /// The data set.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The config.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }

    /// The pictures that could not be read so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// How many views of the data set there are, if they can be counted.
    pub fn views(&self) -> Option<u64> {
        Some(self.source.items() * self.config.transform.views()?)
    }

    /// Batches without end, epoch after epoch, beginning with the one of this number.
    ///
    /// A picture that can't be read is replaced by the next one that can, so that every batch is full and no
    /// picture moves to another batch. The iterator ends with [`DataError::NothingReadable`] where none of the next 64
    /// can be read (of a larger batch, as many as it has).
    ///
    /// # Errors
    ///
    /// Where threads can't be started. The iterator ends after an error.
    pub fn batches_from(&self, number: u64) -> Result<Batches, DataError> {
        self.endless(number, Task::Decode)
    }

    /// The same batches without their pictures: captions, classes, keys and views of those pictures that
    /// `readable` accepts (a view's number), as [`crate::data::LatentCache::contains`] does.
    ///
    /// # Errors
    ///
    /// Where threads can't be started, or views can't be counted: [`DataError::Config`] names the key.
    pub fn views_from(
        &self,
        number: u64,
        readable: impl Fn(u64) -> bool + Send + Sync + 'static,
    ) -> Result<Batches, DataError> {
        self.config.transform.numbered("has no numbered views")?;
        self.endless(number, Task::Views(Arc::new(readable)))
    }

    fn endless(&self, number: u64, task: Task) -> Result<Batches, DataError> {
        let loader = self.clone();
        let feed = move |send: &mut dyn FnMut(Result<Job, DataError>) -> bool| loader.feed(number, send);
        start(&self.config, Some(number), self.work(task), feed)
    }

    /// Every view of every picture once, in the data's order; the last batch may be smaller, and broken
    /// pictures are left out. Where views can't be counted, the largest crop in the middle is taken.
    ///
    /// # Errors
    ///
    /// Where threads can't be started. The iterator ends after an error.
    pub fn once(&self) -> Result<Batches, DataError> {
        let loader = self.clone();
        let feed = move |send: &mut dyn FnMut(Result<Job, DataError>) -> bool| loader.feed_once(send);
        start(&self.config, None, self.work(Task::Decode), feed)
    }

    fn order(&self, epoch: u64) -> Order {
        match self.config.shuffle {
            true => Order::Shuffled { seed: self.config.seed, epoch },
            false => Order::Listed,
        }
    }

    fn work(&self, task: Task) -> Work {
        let (transform, map) = (self.config.transform.clone(), self.config.map);
        Work { transform, map, report: self.report.clone(), task }
    }

    /// Sends the jobs from this number on, until nobody takes them.
    fn feed(&self, number: u64, send: &mut dyn FnMut(Result<Job, DataError>) -> bool) {
        let size = self.config.batch_size;
        let mut ahead = Ahead::new(self, number * size as u64);
        for number in number.. {
            // As many again, and never few, to take the place of broken ones.
            let job = ahead.window(size + size.max(SPARE)).map(|items| Job { number, keep: size, items });
            let failed = job.is_err();
            if !send(job) || failed {
                return;
            }
            ahead.advance(size);
        }
    }

    fn feed_once(&self, send: &mut dyn FnMut(Result<Job, DataError>) -> bool) {
        let views = self.config.transform.views();
        let middle = View { number: None, x: 0.5, y: 0.5, flip: false, part: 1.0 };
        let (mut items, mut number) = (Vec::new(), 0);
        let mut job = |items: Result<Vec<_>, DataError>| {
            let job = items.map(|items| Job { number, keep: 0, items });
            number += 1;
            send(job)
        };
        for item in self.source.epoch(Order::Listed) {
            let item = match item {
                Ok(item) => item,
                Err(e) => {
                    job(Err(e));
                    return;
                }
            };
            for view in 0..views.unwrap_or(1) {
                items.push((item.clone(), self.config.transform.view(view).unwrap_or(middle)));
                if items.len() == self.config.batch_size && !job(Ok(std::mem::take(&mut items))) {
                    return;
                }
            }
        }
        if !items.is_empty() {
            job(Ok(items));
        }
    }
}

/// The endless sequence of items, with a look ahead.
struct Ahead<'a> {
    loader: &'a Loader,
    epoch: u64,
    /// Items of this epoch that were taken.
    taken: u64,
    items: super::Items,
    window: VecDeque<(Item, View)>,
}

impl<'a> Ahead<'a> {
    fn new(loader: &'a Loader, position: u64) -> Self {
        let (epoch, skip) = (position / loader.source.items(), position % loader.source.items());
        // Passing over an error would lose it, so that what is skipped is counted by `next`.
        let items = loader.source.epoch(loader.order(epoch));
        let mut ahead = Self { loader, epoch, taken: 0, items, window: VecDeque::new() };
        ahead.skip(skip);
        ahead
    }

    fn skip(&mut self, count: u64) {
        for _ in 0..count {
            match self.items.next() {
                Some(Ok(_)) => self.taken += 1,
                Some(Err(e)) => {
                    self.items = Box::new(std::iter::once(Err(e)));
                    return;
                }
                None => return,
            }
        }
    }

    /// The next `count` items, not yet passed.
    fn window(&mut self, count: usize) -> Result<Vec<(Item, View)>, DataError> {
        while self.window.len() < count {
            let item = self.next()?;
            let config = &self.loader.config;
            let view = config.transform.choose(&mut rng(config.seed, Purpose::View, self.epoch, item.index));
            self.window.push_back((item, view));
        }
        Ok(self.window.iter().take(count).cloned().collect())
    }

    fn advance(&mut self, count: usize) {
        self.window.drain(..count.min(self.window.len()));
    }

    fn next(&mut self) -> Result<Item, DataError> {
        loop {
            if let Some(item) = self.items.next() {
                self.taken += 1;
                return item;
            }
            let expected = self.loader.source.items();
            if self.taken != expected {
                return Err(DataError::Changed { expected, found: self.taken });
            }
            self.epoch += 1;
            self.taken = 0;
            self.items = self.loader.source.epoch(self.loader.order(self.epoch));
        }
    }
}

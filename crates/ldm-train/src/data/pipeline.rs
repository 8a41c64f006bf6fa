//! Threads: one walks the data, several decode, the caller takes whole batches in order.
//!
//! Batch n is decoded by thread n mod threads and taken from its channel, so that the order never depends on
//! which thread is faster. Channels are bounded: what is decoded ahead stays small.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use ldm_conditioning::Layout;

use super::decode::{Reader, Seen};
use super::{Batch, DataError, Item, LoaderConfig, MapConfig, Maps, Report, Transform, View};

/// What came of an item; `None` where it was not tried.
type Tried = Option<Result<Seen, String>>;

/// One batch to be made.
pub(super) struct Job {
    pub number: u64,
    /// How many pictures; the items after them take the place of broken ones. 0: all items, none replaced.
    pub keep: usize,
    pub items: Vec<(Item, View)>,
}

/// What a decoding thread does.
#[derive(Clone)]
pub(super) struct Work {
    pub transform: Transform,
    pub map: MapConfig,
    pub report: Report,
    pub task: Task,
}

/// Which part of a batch is wanted.
#[derive(Clone)]
pub(super) enum Task {
    Decode,
    /// The views alone, of those that can be read.
    Views(Arc<dyn Fn(u64) -> bool + Send + Sync>),
}

/// Batches in order, decoded ahead by threads that end when this is dropped.
#[derive(Debug)]
pub struct Batches {
    /// One channel a thread.
    results: Vec<Receiver<Result<Batch, DataError>>>,
    threads: Vec<JoinHandle<()>>,
    first: u64,
    next: u64,
    endless: bool,
    waited: Duration,
}

impl Batches {
    /// How long the caller has waited for batches so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The number of the next batch.
    pub fn number(&self) -> u64 {
        self.next
    }

    /// The next batch that isn't empty, as one of nothing but broken pictures is.
    fn receive(&mut self) -> Option<Result<Batch, DataError>> {
        while !self.results.is_empty() {
            let at = ((self.next - self.first) % self.results.len() as u64) as usize;
            self.next += 1;
            match self.results[at].recv() {
                Ok(Ok(batch)) if batch.is_empty() => {}
                Ok(result) => return Some(result),
                // The thread has nothing more: the data ends, or it panicked.
                Err(_) => return (self.end() || self.endless).then_some(Err(DataError::Stopped)),
            }
        }
        None
    }

    /// Ends the threads; says whether one panicked.
    fn end(&mut self) -> bool {
        // Threads that find nobody at the other end stop by themselves.
        self.results.clear();
        self.threads.drain(..).map(JoinHandle::join).filter(Result::is_err).count() > 0
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let started = Instant::now();
        let result = self.receive();
        self.waited += started.elapsed();
        if !matches!(result, Some(Ok(_))) {
            self.end();
        }
        result
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts the threads; `feed` sends the jobs, and stops when its sender says that nobody listens. Without a `first`
/// number the batches come to an end.
pub(super) fn start(
    config: &LoaderConfig,
    first: Option<u64>,
    work: Work,
    feed: impl FnOnce(&mut dyn FnMut(Result<Job, DataError>) -> bool) + Send + 'static,
) -> Result<Batches, DataError> {
    let workers = match config.workers {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    };
    let ahead = config.prefetch.div_ceil(workers).max(1);
    let mut batches = Batches {
        results: Vec::new(),
        threads: Vec::new(),
        first: first.unwrap_or(0),
        next: first.unwrap_or(0),
        endless: first.is_some(),
        waited: Duration::ZERO,
    };
    let mut jobs = Vec::new();
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let io = |source| DataError::Io { path: name.into(), source };
        Builder::new().name(name.into()).spawn(run).map_err(io)
    };
    for _ in 0..workers {
        let (job, todo) = sync_channel(ahead);
        let (done, result) = sync_channel(ahead);
        let work = work.clone();
        batches.results.push(result);
        batches.threads.push(spawn("decode pictures", Box::new(move || run(&todo, &done, &work)))?);
        jobs.push(job);
    }
    let feeder = move || {
        let mut turn = 0;
        feed(&mut |job| {
            turn += 1;
            jobs[(turn - 1) % jobs.len()].send(job).is_ok()
        });
    };
    batches.threads.push(spawn("walk the data", Box::new(feeder))?);
    Ok(batches)
}

/// A decoding thread.
fn run(todo: &Receiver<Result<Job, DataError>>, done: &SyncSender<Result<Batch, DataError>>, work: &Work) {
    let mut reader = Reader::default();
    for job in todo {
        let batch = job.and_then(|job| work.batch(&mut reader, &job));
        let failed = batch.is_err();
        if done.send(batch).is_err() || failed {
            return;
        }
    }
}

impl Work {
    fn batch(&self, reader: &mut Reader, job: &Job) -> Result<Batch, DataError> {
        // Each item is tried once, however many places it could fill.
        let mut tried: Vec<Tried> = vec![None; job.items.len()];
        let mut taken = Vec::new();
        let places = if job.keep == 0 { job.items.len() } else { job.keep };
        for place in 0..places {
            let mut candidates = place..if job.keep == 0 { place + 1 } else { job.items.len() };
            let mut readable = |at: usize| {
                let (item, view) = &job.items[at];
                tried[at].get_or_insert_with(|| self.see(reader, item, *view, at < places)).is_ok()
            };
            match candidates.find(|at| readable(*at)) {
                Some(at) => taken.push(at),
                None if job.keep == 0 => {}
                None => return Err(nothing(job, place, &tried)),
            }
        }
        Ok(self.assemble(job, &taken, &tried))
    }

    fn see(&self, reader: &mut Reader, item: &Item, view: View, counts: bool) -> Result<Seen, String> {
        let seen = match &self.task {
            Task::Views(readable) => match self.number(item, view) {
                Some(number) if readable(number) => Ok(Seen::default()),
                _ => Err("not in the cache of latents".into()),
            },
            Task::Decode => reader.see(item, &self.transform, &self.map, view),
        };
        if let (Err(reason), true) = (&seen, counts) {
            self.report.skip(&item.key, reason);
        }
        seen
    }

    fn number(&self, item: &Item, view: View) -> Option<u64> {
        Some(item.index * self.transform.views()? + view.number?)
    }

    fn assemble(&self, job: &Job, taken: &[usize], tried: &[Tried]) -> Batch {
        let items = || taken.iter().map(|at| &job.items[*at]);
        let seen = || taken.iter().filter_map(|at| tried[*at].as_ref()?.as_ref().ok());
        let decoded = matches!(self.task, Task::Decode);
        let has_maps = decoded && items().all(|(item, _)| item.map.is_some());
        let has_objects = decoded && items().all(|(item, _)| item.objects.is_some());
        let layout = |((item, view), seen): (&(Item, View), &Seen)| {
            let (objects, crop) = (item.objects.clone().unwrap_or_default(), seen.crop);
            Layout { objects, crop, horizontal_flip: view.flip }
        };
        Batch {
            number: job.number,
            pictures: seen().flat_map(|seen| &seen.planes).copied().collect(),
            size: self.transform.size,
            captions: items().map(|(item, _)| item.caption.clone()).collect(),
            classes: items().map(|(item, _)| item.class).collect(),
            keys: items().map(|(item, _)| item.key.clone()).collect(),
            views: items().map(|(item, view)| self.number(item, *view)).collect(),
            maps: has_maps.then(|| Maps {
                kind: self.map.kind,
                size: self.map.side(&self.transform),
                values: seen().flat_map(|seen| &seen.map).copied().collect(),
            }),
            layouts: has_objects.then(|| items().zip(seen()).map(layout).collect()),
        }
    }
}

fn nothing(job: &Job, place: usize, tried: &[Tried]) -> DataError {
    let reason = match &tried[place] {
        Some(Err(reason)) => reason.as_str(),
        _ => "",
    };
    let first = format!("{}: {reason}", job.items[place].0.key);
    DataError::NothingReadable { batch: job.number, count: job.items.len() - place, first }
}

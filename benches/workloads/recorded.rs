//! How long a kernel takes, without the host's time.

use std::time::Instant;

use burn::tensor::{Tensor, capture};

use super::Place;

/// Replays of a recording, of which the fastest counts.
const REPLAYS: usize = 5;

/// Seconds of one run, of which so many are recorded together and replayed; `None` where it can't be done.
pub fn fastest(run: impl Fn() -> Option<Tensor<4>> + 'static, runs: usize, place: &Place) -> Option<f64> {
    run()?;
    // All are kept: under fusion what is let go of unread is not computed.
    let all = move || (0..runs).map(|_| run()).collect::<Vec<_>>();
    let mut graph = capture(&place.device, all);
    if !graph.is_hardware() {
        eprintln!("not recorded: the host's time counts");
    }
    let mut best = f64::INFINITY;
    for _ in 0..REPLAYS {
        place.sync();
        let start = Instant::now();
        // SAFETY: what it reads lives in the closure and is written by nobody, and its output is not read.
        let _ = unsafe { graph.replay() };
        place.sync();
        best = best.min(start.elapsed().as_secs_f64());
    }
    Some(best / runs as f64)
}

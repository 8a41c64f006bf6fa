use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Which pictures could not be read: shared by a loader's threads, warned of once each.
#[derive(Debug, Clone, Default)]
pub struct Report {
    broken: Arc<Mutex<BTreeMap<String, Broken>>>,
}

/// One broken picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong with it.
    pub reason: String,
    /// How often it was met and skipped.
    pub skipped: u64,
}

impl Report {
    /// The broken pictures met so far, by key.
    pub fn broken(&self) -> BTreeMap<String, Broken> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn skip(&self, key: &str, reason: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = broken.entry(key.into()).or_insert_with(|| {
            tracing::warn!(picture = key, reason, "a broken picture is skipped");
            Broken { reason: reason.into(), skipped: 0 }
        });
        entry.skipped += 1;
    }
}

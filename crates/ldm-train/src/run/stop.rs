use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request to end a run after the step that it is at.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// One that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGINT (Ctrl-C), SIGTERM and SIGHUP ask for; the second signal ends the process at once.
    ///
    /// # Errors
    ///
    /// Where the program has handlers of its own already.
    pub fn on_signals() -> Result<Self, ctrlc::Error> {
        let stop = Self::new();
        let asked = stop.clone();
        ctrlc::set_handler(move || {
            if asked.0.swap(true, Ordering::SeqCst) {
                // What a shell reports of a process that SIGINT ended.
                std::process::exit(130);
            }
        })?;
        Ok(stop)
    }

    /// Asks for it.
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether somebody has asked.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `work` gives, and what it warned of on this thread.
pub fn with_warnings<T>(work: impl FnOnce() -> T) -> (T, String) {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let given = tracing::subscriber::with_default(subscriber, work);
    let bytes = written.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (given, String::from_utf8_lossy(&bytes).into_owned())
}

//! Looking for devices where there may be none.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, DeviceType};

/// The machine's devices of a kind; `None` where it has no driver for them.
///
/// A driver that is missing altogether makes burn panic while it looks. The panic's message is not shown: the hook that
/// shows it is the process's, so for as long as this takes no thread's panic is.
pub fn enumerate(kind: DeviceType) -> Option<Vec<Device>> {
    quietly(|| Device::enumerate(kind).into_vec())
}

/// What `look` gives, or nothing where it panics; the panic's message is not shown.
fn quietly<T>(look: impl FnOnce() -> T) -> Option<T> {
    // One at a time, or one would take the other's silence for the hook to put back.
    static HOOK: Mutex<()> = Mutex::new(());
    let _held = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let shows = take_hook();
    set_hook(Box::new(|_| {}));
    let found = catch_unwind(AssertUnwindSafe(look));
    set_hook(shows);
    found.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_panic_while_looking_for_devices_is_not_shown() {
        const WORDS: &str = "there is no such driver, says a test";
        let shown = Arc::new(AtomicUsize::new(0));
        let before = take_hook();
        let counter = shown.clone();
        set_hook(Box::new(move |info| match info.payload_as_str() {
            Some(WORDS) => {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            _ => before(info),
        }));
        assert_eq!(quietly(|| -> usize { panic!("{WORDS}") }), None);
        assert_eq!(shown.load(Ordering::SeqCst), 0);
        assert_eq!(quietly(|| 7), Some(7));
        // Afterwards panics are shown again.
        assert!(catch_unwind(|| panic!("{WORDS}")).is_err());
        assert_eq!(shown.load(Ordering::SeqCst), 1);
    }
}

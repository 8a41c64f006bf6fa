//! How much memory work takes, in MiB.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::tensor::Device;

const MIB: f64 = (1 << 20) as f64;

/// The most memory that this process has had resident; `None` where /proc doesn't tell.
pub fn peak_resident() -> Option<f64> {
    kib("/proc/self/status", "VmHWM:").map(|kib| kib / 1024.0)
}

/// What the machine could still give; `None` where /proc doesn't tell.
pub fn available() -> Option<f64> {
    kib("/proc/meminfo", "MemAvailable:").map(|kib| kib / 1024.0)
}

fn kib(file: &str, key: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The most that the device's allocations held while `work` ran; `None` on a device that keeps no account.
///
/// Read every millisecond by a thread of its own. With fusion a reading makes the device catch up with what was recorded, so
/// time and memory are not measured in the same run.
pub fn peak_on_device(device: &Device, work: impl FnOnce()) -> Option<f64> {
    let in_use = |device: &Device| device.memory_pool_usage().map(|usage| usage.bytes_in_use);
    let before = in_use(device)?;
    let done = AtomicBool::new(false);
    let peak = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = before;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(in_use(device).unwrap_or(0));
                std::thread::sleep(Duration::from_millis(1));
            }
            peak
        });
        work();
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap_or(before)
    });
    Some(peak as f64 / MIB)
}

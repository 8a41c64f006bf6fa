//! Large results in large pages: a map of 128 channels at 512 px has 32,768 pages of 4 KiB, and a fault for each
//! costs more than a group norm does with it.

/// Where it pays, in bytes: two huge pages.
#[cfg(target_os = "linux")]
const LEAST: usize = 4 << 20;

/// `len` zeros; where there are many, the system is asked to back them by huge pages.
pub fn zeros(len: usize) -> Vec<f32> {
    let values = vec![0.0; len];
    #[cfg(target_os = "linux")]
    advise(&values);
    values
}

#[cfg(target_os = "linux")]
fn advise(values: &[f32]) {
    const PAGE: usize = 4096;
    let range = values.as_ptr_range();
    let (start, end) = ((range.start as usize).next_multiple_of(PAGE), range.end as usize / PAGE * PAGE);
    if end.saturating_sub(start) >= LEAST {
        // Whether the system does it (it may have none, or not know of them) makes no difference but to the time.
        // SAFETY: whole pages of memory that is ours; the advice leaves what they hold as it is.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

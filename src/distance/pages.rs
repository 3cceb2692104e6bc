#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "the system is told how memory is used"))]

/// Asks the system to keep an array of `len` elements at `start` in large pages, where it has them. What is read row by row in no order, as
/// codes and links are, waits for the addresses of pages as often as for the rows where pages are small: of 20,000 codes of 384 bytes, searches
/// of the graph took 0.95 times as long with large ones (the median of five runs), scans of a tenth of the rows 0.82 times.
///
/// It is a wish. A system that has none, or has them for all memory, does not mind.
#[cfg(target_os = "linux")]
pub(super) fn ask_for_large<T>(start: *mut T, len: usize) {
    use rustix::mm::{Advice, madvise};

    /// Arrays of fewer bytes are left alone: it is the large page of most processors.
    const LARGE_MIN: usize = 2 << 20;
    /// As large as the small pages of any processor are.
    const SMALL: usize = 64 << 10;
    let (start, bytes) = (start.cast::<u8>(), len * size_of::<T>());
    if bytes < LARGE_MIN {
        return;
    }
    let skipped = start.align_offset(SMALL);
    let whole = (bytes - skipped) / SMALL * SMALL;
    // SAFETY: the advice changes nothing that can be seen in the range, which lies within the array.
    let asked = unsafe { madvise(start.wrapping_add(skipped).cast(), whole, Advice::LinuxHugepage) };
    if let Err(error) = asked {
        tracing::trace!(%error, bytes, "no large pages");
    }
}

/// Elsewhere the system decides by itself.
#[cfg(not(target_os = "linux"))]
pub(super) fn ask_for_large<T>(_start: *mut T, _len: usize) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use crate::distance::AlignedVec;

    /// Whether the system was asked to keep what is at `address` in large pages, by what it tells of the process.
    fn is_asked(address: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux tells of every process");
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let ends = range.map(|(from, to)| [from, to].map(|end| usize::from_str_radix(end, 16)));
            if let Some([Ok(from), Ok(to)]) = ends {
                inside = (from..to).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                return flags.split_whitespace().any(|flag| flag == "hg");
            }
        }
        panic!("nothing is at {address:x}")
    }

    #[test]
    fn large_arrays_ask_for_large_pages() {
        let has_large = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        let mut array = AlignedVec::<u8>::new();
        array.grow(16 << 20);
        assert_eq!(is_asked(array.as_ptr() as usize + (8 << 20)), has_large);
        for len in 17..40 {
            array.grow(len << 20);
        }
        array.settle();
        assert_eq!(is_asked(array.as_ptr() as usize + (38 << 20)), has_large);
        assert!(array.iter().all(|&byte| byte == 0));
        let mut exact = AlignedVec::<f32>::new();
        exact.reserve_exact(4 << 20);
        exact.grow(4 << 20);
        assert_eq!(is_asked(exact.as_ptr() as usize + (8 << 20)), has_large);
    }
}

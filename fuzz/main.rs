//! The targets of `targets.rs` under libFuzzer. Which one is said by `EDDY_FUZZ_TARGET`; `npm run fuzz` knows how to build and call this.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

mod targets;

/// No input is longer than 1 MiB, so whoever asks for this much at once believed a length in it.
const ALLOCATION_BYTES_MAX: usize = 256 << 20;

struct Bounded;

fn check(bytes: usize) {
    if bytes > ALLOCATION_BYTES_MAX {
        // Not a panic, which would allocate.
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<targets::Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        // In place of libFuzzer's, which knows no guarded readers.
        eddydb::server::import::end_at_panics();
        let name = std::env::var("EDDY_FUZZ_TARGET").expect("EDDY_FUZZ_TARGET names a target");
        targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target of targets.rs").1
    });
    target(bytes);
});

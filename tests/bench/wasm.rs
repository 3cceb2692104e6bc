//! The WebAssembly side of `npm run bench`: the same suite behind four functions that need no glue; `wasm.mjs` calls them.
#![expect(unsafe_code, reason = "exported by name, and one buffer is handed to the host")]

mod suite;

use std::sync::{Mutex, PoisonError};

use suite::Suite;

static INPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static SUITE: Mutex<Option<Suite>> = Mutex::new(None);

/// Room for `len` bytes of a set, which the host fills.
// SAFETY: no other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn bench_input(len: usize) -> *mut u8 {
    let mut input = INPUT.lock().unwrap_or_else(PoisonError::into_inner);
    *input = vec![0; len];
    input.as_mut_ptr()
}

/// Loads the set; tells the number of its queries.
// SAFETY: no other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn bench_load() -> usize {
    let input = std::mem::take(&mut *INPUT.lock().unwrap_or_else(PoisonError::into_inner));
    let suite = Suite::new(&input);
    let queries = suite.query_count();
    *SUITE.lock().unwrap_or_else(PoisonError::into_inner) = Some(suite);
    queries
}

/// Does the operation whose name was put into the input's first `len` bytes.
// SAFETY: no other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn bench_run(len: usize, argument: usize) -> f64 {
    let input = INPUT.lock().unwrap_or_else(PoisonError::into_inner);
    let operation = std::str::from_utf8(&input[..len]).expect("a name");
    let mut suite = SUITE.lock().unwrap_or_else(PoisonError::into_inner);
    suite.as_mut().expect("a set was loaded").run(operation, argument)
}

//! The queries of Nexmark in WebAssembly, behind three functions that need no glue; `streams.bench.mjs` calls them and reads the clock.
#![expect(unsafe_code, reason = "exported by name")]

mod nexmark;

use std::sync::{Mutex, PoisonError};

use nexmark::Query;

static QUERY: Mutex<Option<Query>> = Mutex::new(None);

/// Makes the events that the query of this number reads.
// SAFETY: no other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn bench_prepare(number: usize) {
    let mut query = QUERY.lock().unwrap_or_else(PoisonError::into_inner);
    // First the memory of the one before.
    *query = None;
    let name = nexmark::queries().nth(number).expect("a query of that number");
    *query = Some(Query::new(name).expect("the query compiles"));
}

/// Gives them to a job; tells how many rows came of them.
// SAFETY: no other function has this name.
#[unsafe(no_mangle)]
pub extern "C" fn bench_run() -> usize {
    let query = QUERY.lock().unwrap_or_else(PoisonError::into_inner);
    query.as_ref().expect("a query was prepared").run().expect("the job runs").1
}

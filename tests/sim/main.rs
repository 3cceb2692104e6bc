//! Seeded runs of whole stores on a simulated disk that crashes, fails, fills up and forgets, with writers and housekeeping side by
//! side. After each life: every acknowledged batch is there, every other one is whole or absent, and no file stays that nobody names.
//! Beside that, seeded runs of several stores that sync over a network, in `sync`. A failing seed is printed. `EDDY_SIM_SEEDS` sets how
//! many are run, `EDDY_SIM_SEED` runs one and prints what the disk was asked, or what happened.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what went wrong by its panic and its output"
)]

mod oracle;
mod planted;
mod run;
mod sync;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use eddydb::platform::block_on;

use planted::{FAULTS, Fault};

const SEEDS: u64 = 2_000;
const SYNC_SEEDS: u64 = 5_000;
/// A planted fault must show within this many seeds.
const SEEDS_TO_CATCH: u64 = 400;
/// And one of sync within this many: some show only where a store goes back to an older backup and nothing else heals what it has lost.
const SYNC_SEEDS_TO_CATCH: u64 = 5_000;

thread_local! {
    /// What the panic of this thread's seed said.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the words of a panic in place of printing them: a planted fault is meant to panic.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            SAID.with_borrow_mut(|said| *said = panic.to_string());
        }));
    });
}

/// What a panic of this thread said since this was asked last.
pub fn said() -> String {
    SAID.with_borrow_mut(std::mem::take)
}

/// Runs a seed; what it panicked with, if it did.
fn outcome(run: impl FnOnce()) -> Result<(), String> {
    listen();
    said();
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| said())
}

/// Runs seeds `0..count` on all cores; the first that failed, if any did. No seed is begun after a failure.
fn first_failure(count: u64, run: impl Fn(u64) + Sync) -> Option<(u64, String)> {
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || {
        let mut found = None;
        while failed.load(Ordering::Relaxed) == u64::MAX {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count {
                break;
            }
            if let Err(said) = outcome(|| run(seed)) {
                failed.fetch_min(seed, Ordering::Relaxed);
                found = Some((seed, said));
            }
        }
        found
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("panics of seeds are caught")).min()
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn holds(seeds: u64, run: impl Fn(u64) + Sync) {
    let failure = match number("EDDY_SIM_SEED") {
        Some(seed) => outcome(|| run(seed)).err().map(|said| (seed, said)),
        None => first_failure(number("EDDY_SIM_SEEDS").unwrap_or(seeds), run),
    };
    if let Some((seed, said)) = failure {
        println!("seed {seed} failed: repeat it with EDDY_SIM_SEED={seed}\n{said}");
        panic!("seed {seed} failed");
    }
}

/// Each fault must be noticed by one of that many seeds.
fn caught<F: std::fmt::Debug + Copy + Sync>(faults: &[F], seeds: u64, run: impl Fn(u64, F) + Sync) {
    let mut missed = Vec::new();
    for &fault in faults {
        match first_failure(seeds, |seed| run(seed, fault)) {
            Some((seed, said)) => {
                let line = said.lines().find(|line| !line.starts_with("panicked at")).unwrap_or_default();
                println!("{fault:?}: caught by seed {seed}: {}", line.chars().take(120).collect::<String>());
            }
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not caught by {seeds} seeds: {missed:?}");
}

#[test]
fn nothing_acknowledged_is_lost_whatever_fails() {
    holds(SEEDS, |seed| block_on(run::run(seed, None)));
}

#[test]
fn every_planted_fault_is_caught() {
    caught(&FAULTS, SEEDS_TO_CATCH, |seed, fault: Fault| block_on(run::run(seed, Some(fault))));
}

#[test]
fn nothing_is_lost_between_replicas_whatever_fails() {
    holds(SYNC_SEEDS, |seed| sync::run(seed, None));
}

#[test]
fn every_planted_fault_of_sync_is_caught() {
    caught(&sync::planted::FAULTS, SYNC_SEEDS_TO_CATCH, |seed, fault| sync::run(seed, Some(fault)));
}

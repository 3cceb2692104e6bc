//! Readers of others that panic where a file is wrong.
//!
//! `eddy` ends at a panic: what was acknowledged is in the log, and what comes after a broken invariant cannot be trusted. Only what
//! runs in `guarded` is outside of that: it holds nothing of ours, and its panic says that the file is not what it should be.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::base::{Error, Result};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a reader of others; its panic becomes an error.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    GUARDED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(false);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Error::corrupt(format!("its reader gave up: {text}")))
    })
}

/// Has every panic end the process, but for those of `guarded` readers, which say nothing.
pub fn end_at_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !GUARDED.get() {
            tell(info);
            std::process::abort();
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn a_panic_of_a_reader_is_an_error() {
        assert_eq!(guarded(|| Ok(7)).ok(), Some(7));
        let error = guarded::<()>(|| panic!("no dictionary in {}", "column 3")).expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("no dictionary in column 3"), "{error}");
        assert!(!GUARDED.get());
    }
}

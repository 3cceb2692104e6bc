//! The command `eddy` as a user runs it: the real binary, with real files and directories.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests, which run processes and look at files from outside"
)]

#[path = "../native/mod.rs"]
mod native;

mod backup;
mod evaluate;
mod export;
mod help;
mod import;
mod repair;
mod resume;
mod search;
mod upkeep;
mod wrong;

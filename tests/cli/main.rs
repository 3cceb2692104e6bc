//! The command `eddy` as a user runs it: the real binary, with real files and directories.

#[path = "../native/mod.rs"]
mod native;

mod help;
mod import;
mod resume;
mod search;
mod wrong;

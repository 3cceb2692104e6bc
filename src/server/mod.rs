//! The native roof: HTTP, WebSocket sync, and the command line. Holds no rules: whatever it can do, `db` can do.
//!
//! `access` checks tokens; `cli` reads the command line and prints; `http` answers requests; `sync` upgrades them to WebSockets; `import` reads
//! files; `store` opens data directories and keeps the background work going. Deliberately absent: anything about rows,
//! filters or replication.
#![doc = include_str!("../docs/server.md")]

pub mod access;
pub mod backup;
pub mod cli;
pub mod http;
pub mod import;
mod store;
pub mod sync;
mod words;

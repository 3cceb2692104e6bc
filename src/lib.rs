//! Eddy: the vector store that lives where the user is.

pub mod base;
pub mod db;
pub mod distance;
pub mod engine;
pub mod index;
pub mod model;
pub mod platform;
pub mod quant;
pub mod query;
pub mod segment;
#[cfg(all(native, feature = "server"))]
pub mod server;
pub mod storage;
pub mod sync;
pub mod wal;
#[cfg(all(browser, feature = "wasm"))]
pub mod wasm;

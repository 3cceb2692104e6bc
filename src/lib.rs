//! Eddy: the vector store that lives where the user is.
//!
//! [`db::Db`] opens a store; everything else follows from there. How the crate is built is told in [`docs::architecture`].

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
pub mod stream;
pub mod sync;
pub mod wal;
#[cfg(all(browser, feature = "wasm"))]
pub mod wasm;

/// Longer reading.
#[cfg(any(doc, doctest))]
pub mod docs {
    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}
}

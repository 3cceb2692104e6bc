//! One file a backend.

mod fault;
#[cfg(native)]
mod file;
mod memory;

pub use fault::{FaultStorage, Operation};
#[cfg(native)]
pub use file::FileStorage;
pub use memory::{MemoryDisk, MemoryStorage};

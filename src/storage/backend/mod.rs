//! One file a backend.

mod fault;
mod memory;

pub use fault::{FaultStorage, Operation};
pub use memory::{MemoryDisk, MemoryStorage};

//! One file a backend.

#[cfg(native)]
mod claim;
#[cfg(browser)]
mod directory;
mod fault;
#[cfg(native)]
mod file;
#[cfg(browser)]
mod foreign;
mod memory;
#[cfg(all(native, feature = "object-store"))]
mod object;

#[cfg(browser)]
pub use directory::DirectoryStorage;
pub use fault::{FaultStorage, Operation};
#[cfg(native)]
pub use file::FileStorage;
#[cfg(browser)]
pub use foreign::ForeignStorage;
pub use memory::{MemoryDisk, MemoryStorage};
#[cfg(all(native, feature = "object-store"))]
pub use object::ObjectStorage;

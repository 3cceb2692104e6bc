//! Sync sessions and hubs: what drives the machines of [`crate::sync`] over connections and against the store.
//!
//! Nothing is decided here: a driver does what its machine asks for, hands the answers back, and keeps no position of its own.
//! An operation on the store that a connection began runs to its end when the connection is gone.

mod agreement;
mod comparison;
mod hub;
mod part;
mod seed;
mod session;
mod tasks;
mod told;
mod watch;

pub(super) use comparison::Sets;
pub use hub::{Resting, SyncHub};
pub use part::{Near, Shape};
pub use seed::HubFile;
pub use session::{SyncListener, SyncOptions, SyncSession, SyncState, SyncStatus, TokenSource};
pub(super) use tasks::Tasks;
pub(super) use told::{Syncs, Told, Wake};

#[cfg(test)]
#[cfg(native)]
mod access_tests;
#[cfg(test)]
#[cfg(native)]
mod comparison_tests;
#[cfg(test)]
#[cfg(native)]
mod download_tests;
#[cfg(test)]
#[cfg(native)]
mod failover_tests;
#[cfg(test)]
#[cfg(native)]
mod part_tests;
#[cfg(test)]
#[cfg(native)]
pub(crate) mod testing;
#[cfg(test)]
#[cfg(native)]
mod tests;

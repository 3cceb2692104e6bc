use std::sync::Arc;

use super::{Collection, Durability};
use crate::base::{ReplicaId, Result};
use crate::engine::CollectionSpec;
use crate::storage::Storage;

/// How a store behaves while it is open.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// When writes are acknowledged.
    pub durability: Durability,
}

/// An open store. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Db {
    inner: Arc<()>,
}

#[expect(clippy::unused_async, unused_variables, reason = "skeleton")]
impl Db {
    /// Opens the store in `storage`, creating it when empty, and replays its log.
    ///
    /// # Errors
    /// `Corrupt` when bytes are not what was written (file and offset named), `Unsupported` for files of another version,
    /// and whatever the storage says.
    pub async fn open(storage: Arc<dyn Storage>, options: Options) -> Result<Self> {
        unimplemented!("skeleton")
    }

    /// This replica's id.
    pub fn replica_id(&self) -> ReplicaId {
        unimplemented!("skeleton")
    }

    /// Creates a collection, durably. `AlreadyExists` when the name is taken.
    pub async fn create_collection(&self, name: &str, spec: CollectionSpec) -> Result<Collection> {
        unimplemented!("skeleton")
    }

    /// The collection of that name; `NotFound` lists those that exist.
    pub fn collection(&self, name: &str) -> Result<Collection> {
        unimplemented!("skeleton")
    }

    /// All collections, by name.
    pub fn collections(&self) -> Vec<Collection> {
        unimplemented!("skeleton")
    }

    /// Removes a collection with its rows, durably.
    pub async fn drop_collection(&self, name: &str) -> Result<()> {
        unimplemented!("skeleton")
    }

    /// One bounded step of background work (indexing some rows, flushing a full segment), a few milliseconds of
    /// computing; tells whether more is waiting. The roof calls it while the host is idle.
    pub async fn maintain(&self) -> Result<bool> {
        unimplemented!("skeleton")
    }

    /// Flushes everything, so that the next open reads instead of replaying, and gives up the storage.
    pub async fn close(&self) -> Result<()> {
        unimplemented!("skeleton")
    }
}

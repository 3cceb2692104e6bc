use std::collections::BTreeMap;
use std::sync::Arc;

use super::{CollectionStats, QueryRequest, SearchRequest, SearchResponse, Target, WriteResponse};
use crate::base::{Lsn, ReplicaId, Result, Sequence};
use crate::engine::{ChangeSet, CollectionSpec, SyncPosition};
use crate::model::{Batch, Key, Row};

/// A collection of an open store. Cheap to clone.
#[derive(Clone)]
pub struct Collection {
    inner: Arc<()>,
}

#[expect(clippy::unused_async, unused_variables, reason = "skeleton")]
impl Collection {
    /// Its name.
    pub fn name(&self) -> &str {
        unimplemented!("skeleton")
    }

    /// Its schema and indexes.
    pub fn spec(&self) -> &CollectionSpec {
        unimplemented!("skeleton")
    }

    /// Adds rows, all or none; `AlreadyExists` when a key is there. See [`Batch::from_rows`] for what is refused.
    pub async fn insert(&self, batch: Batch) -> Result<WriteResponse> {
        unimplemented!("skeleton")
    }

    /// Adds or replaces rows, all or none.
    pub async fn upsert(&self, batch: Batch) -> Result<WriteResponse> {
        unimplemented!("skeleton")
    }

    /// Deletes rows; keys that are not there count for nothing.
    pub async fn delete(&self, target: Target) -> Result<WriteResponse> {
        unimplemented!("skeleton")
    }

    /// The rows with these keys, in this order; keys that are not there are left out. Fields as in [`QueryRequest`].
    pub async fn get(&self, keys: &[Key], output_fields: Option<&[String]>) -> Result<Vec<Row>> {
        unimplemented!("skeleton")
    }

    /// The rows that a filter selects, by ascending primary key.
    pub async fn query(&self, request: &QueryRequest) -> Result<Vec<Row>> {
        unimplemented!("skeleton")
    }

    /// How many rows a filter selects.
    pub async fn count(&self, filter: Option<&str>) -> Result<usize> {
        unimplemented!("skeleton")
    }

    /// The nearest rows.
    pub async fn search(&self, request: &SearchRequest) -> Result<SearchResponse> {
        unimplemented!("skeleton")
    }

    /// Writes the growing segment and its index to storage and drops the log before it.
    pub async fn flush(&self) -> Result<()> {
        unimplemented!("skeleton")
    }

    /// What it holds.
    pub async fn stats(&self) -> Result<CollectionStats> {
        unimplemented!("skeleton")
    }

    /// Waits until the local log is past `lsn`, and tells its newest position. Ends with `Closed` when the store closes.
    pub async fn changed_after(&self, lsn: Lsn) -> Result<Lsn> {
        unimplemented!("skeleton")
    }

    // What sync stands on. A batch (one lsn) is never split.

    /// Changes after `lsn` in order of the local log, until `bytes_max` is exceeded, without those that the asker has:
    /// batches of an origin up to its sequence in `known`. With the position that they reach (the newest one when nothing
    /// is left, so that it moves on empty answers too).
    pub async fn changes_after(
        &self,
        lsn: Lsn,
        known: &BTreeMap<ReplicaId, Sequence>,
        bytes_max: usize,
    ) -> Result<(ChangeSet, Lsn)> {
        unimplemented!("skeleton")
    }

    /// This replica's own changes after `sequence`, and the sequence that they reach.
    pub async fn own_changes_after(&self, sequence: Sequence, bytes_max: usize) -> Result<(ChangeSet, Sequence)> {
        unimplemented!("skeleton")
    }

    /// How many rows this replica has written or deleted after `sequence`.
    pub fn pending_after(&self, sequence: Sequence) -> usize {
        unimplemented!("skeleton")
    }

    /// Applies changes from elsewhere, durably, each row only where its version is newer than the one here (last writer
    /// wins by timestamp, then origin); with `from`, moves the pull position of that hub in the same log frame. Applying
    /// the same changes again changes nothing. Tells how many rows won.
    ///
    /// # Errors
    /// `InvalidArgument` for a timestamp more than a day ahead of this replica's clock: nothing is applied then.
    pub async fn apply(&self, changes: ChangeSet, from: Option<(ReplicaId, Lsn)>) -> Result<usize> {
        unimplemented!("skeleton")
    }

    /// How far this collection and `hub` have got.
    pub fn sync_position(&self, hub: ReplicaId) -> SyncPosition {
        unimplemented!("skeleton")
    }

    /// Notes that own batches up to `sequence` are at `hub`.
    pub async fn mark_pushed(&self, hub: ReplicaId, sequence: Sequence) -> Result<()> {
        unimplemented!("skeleton")
    }

    /// The highest batch of each origin that was applied here (this replica's own too): what a hub acknowledges, and what a
    /// puller knows already. All living changes of an origin up to it are here.
    pub fn seen(&self) -> BTreeMap<ReplicaId, Sequence> {
        unimplemented!("skeleton")
    }
}

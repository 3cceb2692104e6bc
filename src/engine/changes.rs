use crate::base::{Lsn, ReplicaId, Sequence, Timestamp};
use crate::model::{Batch, Key};

/// Who wrote a row, and when: what last-writer-wins compares, in this order of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The hybrid time of the write.
    pub timestamp: Timestamp,
    /// The replica that wrote.
    pub origin: ReplicaId,
    /// Its batch.
    pub sequence: Sequence,
}

/// Rows and deletes with their versions: what a log frame, a push and a pull carry. At most one change a key.
#[derive(Debug, Clone)]
pub struct ChangeSet {
    /// Rows, inserted or replaced.
    pub puts: Batch,
    /// One a row of `puts`.
    pub put_versions: Vec<Version>,
    /// Deleted keys with the version of the delete.
    pub deletes: Vec<(Key, Version)>,
}

impl ChangeSet {
    /// Arrow IPC stream of the rows and of the deletes (byte table in `src/docs/formats.md`).
    pub fn encode(&self) -> Vec<u8> {
        unimplemented!("skeleton")
    }

    /// The change set in `bytes`, validated against `schema` as rows of an application are.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are no change set, `InvalidArgument` when the rows do not fit.
    pub fn decode(schema: &std::sync::Arc<crate::model::Schema>, bytes: &[u8]) -> crate::base::Result<Self> {
        let _ = (schema, bytes);
        unimplemented!("skeleton")
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.puts.len() + self.deletes.len()
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How far a collection and one hub have got with each other. Durable with the changes it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncPosition {
    /// Own batches up to here are at the hub.
    pub pushed: Sequence,
    /// The hub's log up to here is here.
    pub pulled: Lsn,
}

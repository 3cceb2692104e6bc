use serde::{Deserialize, Serialize};

use super::{ReplicaId, Sequence, Timestamp};

/// Who wrote a row, and when: what last-writer-wins compares, in this order of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    /// The hybrid time of the write.
    pub timestamp: Timestamp,
    /// The replica that wrote.
    pub origin: ReplicaId,
    /// Its batch.
    pub sequence: Sequence,
}

use std::sync::Arc;

use super::{ChangeSet, SyncPosition};
use crate::base::codec::{Reader, Write};
use crate::base::{Error, Lsn, ReplicaId, Result, Sequence};
use crate::model::Schema;
use crate::wal::FrameKind;

/// What a log frame says.
///
/// | kind | payload |
/// |---|---|
/// | 1, changes | 1 byte: 1 when a hub sent them, else 0; then its replica id (8) and its log position (8), zero for none; then a [`ChangeSet`] |
/// | 2, position | the hub's replica id (8), `pushed` (8), `pulled` (8) |
#[derive(Debug, Clone)]
pub enum Record {
    /// Rows and deletes were applied; with `from`, they bring this replica to that position of that hub.
    Changes {
        /// The hub and its log position.
        from: Option<(ReplicaId, Lsn)>,
        /// What was applied.
        changes: ChangeSet,
    },
    /// Sync with a hub reached this position without changes.
    Position {
        /// The hub.
        hub: ReplicaId,
        /// How far.
        position: SyncPosition,
    },
}

impl Record {
    /// The kind of its frame.
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Changes { .. } => FrameKind::Changes,
            Self::Position { .. } => FrameKind::Position,
        }
    }

    /// The payload of its frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Changes { from, changes } => {
                let (hub, lsn) = from.unwrap_or_default();
                out.put_u8(u8::from(from.is_some()));
                out.put_u64(hub.0);
                out.put_u64(lsn.0);
                out.put_bytes(&changes.encode());
            }
            Self::Position { hub, position } => {
                out.put_u64(hub.0);
                out.put_u64(position.pushed.0);
                out.put_u64(position.pulled.0);
            }
        }
        out
    }

    /// The record of a frame.
    ///
    /// # Errors
    /// `Corrupt` when the payload is none.
    pub fn decode(schema: &Arc<Schema>, kind: FrameKind, payload: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(payload);
        match kind {
            FrameKind::Changes => {
                let from = match reader.u8()? {
                    0 | 1 if payload.len() < 17 => return Err(Error::corrupt("a change record cut short")),
                    0 => {
                        reader.bytes(16)?;
                        None
                    }
                    1 => Some((ReplicaId(reader.u64()?), Lsn(reader.u64()?))),
                    other => return Err(Error::corrupt(format!("at byte 0: flag {other}, expected 0 or 1"))),
                };
                let changes = ChangeSet::decode(schema, reader.bytes(reader.remaining())?)?;
                Ok(Self::Changes { from, changes })
            }
            FrameKind::Position => {
                let hub = ReplicaId(reader.u64()?);
                let position = SyncPosition { pushed: Sequence(reader.u64()?), pulled: Lsn(reader.u64()?) };
                Ok(Self::Position { hub, position })
            }
        }
    }
}

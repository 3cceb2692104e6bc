use std::sync::Arc;

use arrow_array::RecordBatch;

use crate::base::codec::{Reader, Write};
use crate::base::{Error, Lsn, ReplicaId, Result, Sequence, Timestamp, Version};
use crate::model::{Batch, DataType, Key, PARTITION_COLUMN, Schema};
use crate::segment::{read_stream, write_rows};

/// Rows and deletes with their versions: what a log frame, a push and a pull carry. At most one change a key.
///
/// | bytes | what |
/// |---|---|
/// | 4 | number of rows |
/// | 4 | number of deletes |
/// | 1 | 1 when all of them have one version, else 0 |
/// | 24 each | that version, or those of the rows, then of the deletes: timestamp, origin, sequence (8 bytes each) |
/// | … | the deleted keys: 8 bytes each, or the length of the text (4 bytes) and the text |
/// | … | when there are rows, an Arrow IPC stream of one record batch, without the mark of its end: the columns of [`Batch::to_arrow`] |
#[derive(Debug, Clone)]
pub struct ChangeSet {
    /// Rows, inserted or replaced.
    pub puts: Batch,
    /// One a row of `puts`.
    pub put_versions: Vec<Version>,
    /// Deleted keys with the version of the delete. One whose origin is [nobody](is_eviction) is an eviction: the row is let go of here,
    /// and nobody else hears of it.
    pub deletes: Vec<(Key, Version)>,
}

/// Whether a delete of that version says only that this replica does not keep the row any more: it has left the part that is kept here.
/// The row may come back at the same version. Its origin is 0, which is nobody, and its timestamp that of the row.
pub fn is_eviction(version: Version) -> bool {
    version.origin == ReplicaId(0)
}

impl ChangeSet {
    /// No change.
    pub fn empty(schema: &Arc<Schema>) -> Self {
        Self { puts: Batch::empty(schema), put_versions: Vec::new(), deletes: Vec::new() }
    }

    /// The bytes of the table above.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.encode_head();
        out.append(&mut encode_rows(&self.puts));
        out
    }

    /// Those before the rows: all that depends on when the changes were made.
    pub(super) fn encode_head(&self) -> Vec<u8> {
        let mut versions: Vec<Version> = self.versions().collect();
        let one = versions.windows(2).all(|pair| pair[0] == pair[1]) && !versions.is_empty();
        versions.truncate(if one { 1 } else { usize::MAX });
        let mut out = Vec::with_capacity(9 + 24 * versions.len() + 8 * self.deletes.len());
        out.put_u32(self.puts.len() as u32);
        out.put_u32(self.deletes.len() as u32);
        out.put_u8(u8::from(one));
        for version in versions {
            out.put_u64(version.timestamp.0);
            out.put_u64(version.origin.0);
            out.put_u64(version.sequence.0);
        }
        for (key, _) in &self.deletes {
            match key {
                Key::Int(key) => out.put_u64(*key as u64),
                Key::String(key) => {
                    out.put_u32(key.len() as u32);
                    out.put_bytes(key.as_bytes());
                }
            }
        }
        out
    }

    /// The change set in `bytes`, validated against `schema` as rows of an application are.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are no change set, `InvalidArgument` when the rows do not fit.
    pub fn decode(schema: &Arc<Schema>, bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let (rows, deletes) = (reader.u32()? as usize, reader.u32()? as usize);
        let one = match reader.u8()? {
            0 => false,
            1 if rows + deletes > 0 => true,
            other => return Err(Error::corrupt(format!("at byte 8: flag {other} of {rows} rows, {deletes} deletes"))),
        };
        // What is claimed is allocated only as far as there are bytes for it.
        let mut versions = Reader::new(reader.bytes(if one { 24 } else { (rows + deletes).saturating_mul(24) })?);
        let first = versions.clone();
        let mut next = || -> Result<Version> {
            if one {
                versions = first.clone();
            }
            Ok(Version {
                timestamp: Timestamp(versions.u64()?),
                origin: ReplicaId(versions.u64()?),
                sequence: Sequence(versions.u64()?),
            })
        };
        let mut changes = Self::empty(schema);
        let mut keys = Vec::new();
        for _ in 0..deletes {
            keys.push(match schema.primary_key().data_type {
                DataType::Int64 => Key::Int(reader.u64()? as i64),
                _ => {
                    let len = reader.u32()? as usize;
                    let at = reader.offset();
                    let text = std::str::from_utf8(reader.bytes(len)?);
                    Key::from(text.map_err(|error| Error::corrupt(format!("at byte {at}: {error}")))?)
                }
            });
        }
        let at = reader.offset();
        let stream = reader.bytes(reader.remaining())?;
        let batch = if stream.is_empty() { None } else { Some(read_stream(stream)?) };
        if batch.as_ref().map_or(0, RecordBatch::num_rows) != rows {
            return Err(Error::corrupt(format!("at byte {at}: not the {rows} rows that are told")));
        }
        if let Some(batch) = batch {
            // A replica whose rows have partitions by name tells them from then on.
            let divided = !schema.partitioned() && batch.column_by_name(PARTITION_COLUMN).is_some();
            let schema = if divided { &Arc::new(Schema::clone(schema).with_partitions()?) } else { schema };
            changes.puts = Batch::from_arrow(schema, &batch)?;
        }
        changes.put_versions = (0..rows).map(|_| next()).collect::<Result<_>>()?;
        changes.deletes = keys.into_iter().map(|key| Ok((key, next()?))).collect::<Result<_>>()?;
        Ok(changes)
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.puts.len() + self.deletes.len()
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The versions of all changes.
    pub fn versions(&self) -> impl Iterator<Item = Version> + '_ {
        self.put_versions.iter().copied().chain(self.deletes.iter().map(|(_, version)| *version))
    }
}

/// The last line of the table of [`ChangeSet`].
pub fn encode_rows(rows: &Batch) -> Vec<u8> {
    if rows.is_empty() { Vec::new() } else { write_rows(rows) }
}

/// Own changes that a hub has refused for good. They stay here; the hub and other replicas do not get them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// After this batch,
    pub after: Sequence,
    /// up to this one.
    pub through: Sequence,
    /// The stable name of the kind of error.
    pub kind: String,
    /// Why.
    pub message: String,
}

/// Which part of a hub's rows is kept here. What the texts mean, only `db` knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct KeptPart {
    /// The part.
    pub part: String,
    /// What it was before, until all that is in the new one is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reshape: Option<Reshape>,
    /// The newest timestamp of any of the hub's changes that were looked at for this replica.
    #[serde(default)]
    pub heard: Timestamp,
}

/// A change from one part to another one, on its way.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Reshape {
    /// Rows of this part are here that are in the new one too.
    pub old: String,
    /// Of what the hub's log has up to here, the rest is here as well.
    pub after: Lsn,
    /// This far the rest is asked for: from there on the log tells of the new part.
    pub through: Lsn,
}

/// How far a collection and one hub have got with each other. Durable with the changes it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct SyncPosition {
    /// Own batches up to here are at the hub.
    pub pushed: Sequence,
    /// The hub's log up to here is here.
    pub pulled: Lsn,
}

use std::sync::Arc;

use arrow_array::RecordBatch;

use crate::base::codec::{Reader, Write};
use crate::base::{Error, Lsn, Result, Sequence, Version};
use crate::model::{Batch, Key, PARTITION_COLUMN, Schema};
use crate::segment::{Tombstone, Versions, read_stream, write_stream};

/// Rows and deletes with their versions: what a log frame, a push and a pull carry. At most one change a key.
///
/// | bytes | what |
/// |---|---|
/// | 4 | length of the rows' part; 0 when there are none |
/// | … | Arrow IPC stream of one record batch: the columns of [`Batch::to_arrow`], then `$timestamp`, `$origin`, `$sequence`, `$lsn` |
/// | 4 | length of the deletes' part; 0 when there are none |
/// | … | Arrow IPC stream of one record batch: the key under its field's name, then the same four columns |
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
    /// No change.
    pub fn empty(schema: &Arc<Schema>) -> Self {
        Self { puts: Batch::empty(schema), put_versions: Vec::new(), deletes: Vec::new() }
    }

    /// The bytes of the table above.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let rows = if self.puts.is_empty() { Vec::new() } else { write_stream(&self.rows_to_arrow()) };
        out.put_u32(u32::try_from(rows.len()).expect("batches are bounded well below 4 GiB"));
        out.put_bytes(&rows);
        let deletes = if self.deletes.is_empty() {
            Vec::new()
        } else {
            let tombstones: Vec<Tombstone> = self
                .deletes
                .iter()
                .map(|(key, version)| Tombstone { key: key.clone(), version: *version, lsn: Lsn(0) })
                .collect();
            write_stream(&crate::segment::encode_tombstones(self.puts.schema(), &tombstones))
        };
        out.put_u32(u32::try_from(deletes.len()).expect("batches are bounded well below 4 GiB"));
        out.put_bytes(&deletes);
        out
    }

    fn rows_to_arrow(&self) -> RecordBatch {
        let mut versions = Versions::default();
        self.put_versions.iter().for_each(|&version| versions.push(version, Lsn(0)));
        let rows = self.puts.to_arrow();
        let fields = rows.schema();
        let columns = fields.fields().iter().map(|field| field.as_ref().clone()).zip(rows.columns().iter().cloned());
        crate::segment::batch_of(columns.chain(versions.to_arrow(0..rows.num_rows())), rows.num_rows())
    }

    /// The change set in `bytes`, validated against `schema` as rows of an application are.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are no change set, `InvalidArgument` when the rows do not fit.
    pub fn decode(schema: &Arc<Schema>, bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let len = reader.u32()? as usize;
        let rows = reader.bytes(len)?;
        let len = reader.u32()? as usize;
        let deletes = reader.bytes(len)?;
        if reader.remaining() > 0 {
            return Err(Error::corrupt(format!("{} bytes after the end of a change set", reader.remaining())));
        }
        let mut changes = Self::empty(schema);
        if !rows.is_empty() {
            let (rows, versions) = Versions::split(&read_stream(rows)?)?;
            // A replica whose rows have partitions by name tells them from then on.
            let divided = !schema.partitioned() && rows.column_by_name(PARTITION_COLUMN).is_some();
            let schema = if divided { &Arc::new(Schema::clone(schema).with_partitions()?) } else { schema };
            changes.puts = Batch::from_arrow(schema, &rows)?;
            changes.put_versions = (0..versions.len()).map(|row| versions.version(row)).collect();
        }
        if !deletes.is_empty() {
            let tombstones = crate::segment::decode_tombstones(schema, &read_stream(deletes)?)?;
            changes.deletes = tombstones.into_iter().map(|delete| (delete.key, delete.version)).collect();
        }
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

/// How far a collection and one hub have got with each other. Durable with the changes it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct SyncPosition {
    /// Own batches up to here are at the hub.
    pub pushed: Sequence,
    /// The hub's log up to here is here.
    pub pulled: Lsn,
}

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field};

use crate::base::codec::{Reader, Write};
use crate::base::compress::{Codec, compress, decompress};
use crate::base::{Error, Lsn, ReplicaId, Result, Sequence, Timestamp, Version};

/// The names of the version columns in Arrow; no field can have them, for field names hold no `$`.
const NAMES: [&str; 4] = ["$timestamp", "$origin", "$sequence", "$lsn"];

/// Which of them is the sequence.
const SEQUENCE: usize = 2;

/// The version and the local log position of each row, in columns.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    columns: [Vec<u64>; 4],
    lsn_max: Lsn,
    sequences_max: BTreeMap<ReplicaId, Sequence>,
}

impl Versions {
    /// Adds a row.
    pub fn push(&mut self, version: Version, lsn: Lsn) {
        for (column, value) in
            self.columns.iter_mut().zip([version.timestamp.0, version.origin.0, version.sequence.0, lsn.0])
        {
            column.push(value);
        }
        self.note(version, lsn);
    }

    fn note(&mut self, version: Version, lsn: Lsn) {
        self.lsn_max = self.lsn_max.max(lsn);
        let highest = self.sequences_max.entry(version.origin).or_default();
        *highest = (*highest).max(version.sequence);
    }

    /// Has all rows be applied at one position of the local log.
    pub(super) fn arrive(&mut self, lsn: Lsn) {
        self.columns[3].fill(lsn.0);
        self.lsn_max = if self.is_empty() { Lsn(0) } else { lsn };
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.columns[0].len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The version of `row`. Panics past the end.
    pub fn version(&self, row: usize) -> Version {
        Version {
            timestamp: Timestamp(self.columns[0][row]),
            origin: ReplicaId(self.columns[1][row]),
            sequence: Sequence(self.columns[2][row]),
        }
    }

    /// The position in the local log at which `row` was applied. Panics past the end.
    pub fn lsn(&self, row: usize) -> Lsn {
        Lsn(self.columns[3][row])
    }

    /// The first row after position `lsn`, of rows that came in the order of the log.
    pub fn first_after(&self, lsn: Lsn) -> usize {
        self.columns[3].partition_point(|&at| at <= lsn.0)
    }

    /// The greatest position of any row.
    pub fn lsn_max(&self) -> Lsn {
        self.lsn_max
    }

    /// The highest batch of `origin` among the rows.
    pub fn sequence_max(&self, origin: ReplicaId) -> Sequence {
        self.sequences_max.get(&origin).copied().unwrap_or_default()
    }

    /// The columns of some rows as Arrow.
    pub fn to_arrow(&self, rows: std::ops::Range<usize>) -> impl Iterator<Item = (Field, ArrayRef)> + '_ {
        NAMES.iter().zip(&self.columns).map(move |(name, column)| {
            let column = UInt64Array::from(column[rows.clone()].to_vec());
            (Field::new(*name, DataType::UInt64, false), Arc::new(column) as ArrayRef)
        })
    }

    /// Splits `batch` into its other columns and the versions.
    ///
    /// # Errors
    /// `Corrupt` when a version column is missing, of another type, or has nulls.
    pub fn split(batch: &RecordBatch) -> Result<(RecordBatch, Self)> {
        let mut versions = Self::default();
        for (name, column) in NAMES.iter().zip(&mut versions.columns) {
            let array = batch
                .column_by_name(name)
                .and_then(|array| array.as_any().downcast_ref::<UInt64Array>())
                .filter(|array| array.null_count() == 0)
                .ok_or_else(|| Error::corrupt(format!("column {name} is missing, or not UInt64 without nulls")))?;
            *column = array.values().to_vec();
        }
        versions.note_all();
        let rest: Vec<usize> = (0..batch.num_columns())
            .filter(|&index| !NAMES.contains(&batch.schema_ref().field(index).name().as_str()))
            .collect();
        let rest = batch.project(&rest).map_err(|error| Error::corrupt(error.to_string()))?;
        Ok((rest, versions))
    }

    /// The number of rows, 4 bytes; then, compressed by `codec`, whose number in [`Codec::ALL`] comes first (1 byte), with the lengths
    /// before and after (4 bytes each): of each column, the difference of each row from the row before, as a varint of its zigzag
    /// code. Of the sequences that is the difference of what they are more than the timestamps.
    ///
    /// Writes that come one by one have timestamps a little greater than the one before and sequences that equal them; rows that come
    /// together have the same.
    pub(super) fn encode(&self, codec: Codec, out: &mut Vec<u8>) {
        let mut plain = Vec::new();
        for index in 0..NAMES.len() {
            let mut last = 0u64;
            for row in 0..self.len() {
                let value = self.columns[index][row].wrapping_sub(self.base(index, row));
                let delta = value.wrapping_sub(last) as i64;
                last = value;
                let mut code = (delta << 1 ^ delta >> 63) as u64;
                while code >= 128 {
                    plain.push(code as u8 | 128);
                    code >>= 7;
                }
                plain.push(code as u8);
            }
        }
        let packed = compress(codec, &plain);
        out.put_u32(self.len() as u32);
        out.put_u8(codec as u8);
        out.put_u32(plain.len() as u32);
        out.put_u32(packed.len() as u32);
        out.put_bytes(&packed);
    }

    /// What the value of a row is told against.
    fn base(&self, column: usize, row: usize) -> u64 {
        if column == SEQUENCE { self.columns[0][row] } else { 0 }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let rows = reader.u32()? as usize;
        let at = reader.offset();
        let (codec, plain_len, len) = (reader.u8()?, reader.u32()? as usize, reader.u32()? as usize);
        let codec = Codec::ALL.get(usize::from(codec)).copied();
        let codec = codec.ok_or_else(|| Error::corrupt(format!("at byte {at}: an unknown codec")))?;
        let plain = decompress(codec, reader.bytes(len)?, plain_len);
        let plain = plain.map_err(|error| error.context(format!("at byte {at}")))?;
        let wrong = || Error::corrupt(format!("at byte {at}: no versions of {rows} rows"));
        let mut rest = plain.iter();
        let mut versions = Self::default();
        for index in 0..NAMES.len() {
            let mut last = 0u64;
            versions.columns[index].reserve_exact(rows.min(plain.len()));
            for row in 0..rows {
                let (mut code, mut shift) = (0u64, 0);
                loop {
                    let byte = *rest.next().filter(|_| shift < 64).ok_or_else(wrong)?;
                    code |= u64::from(byte & 127) << shift;
                    shift += 7;
                    if byte < 128 {
                        break;
                    }
                }
                last = last.wrapping_add(code >> 1 ^ (code & 1).wrapping_neg());
                let value = last.wrapping_add(versions.base(index, row));
                versions.columns[index].push(value);
            }
        }
        if rest.next().is_some() {
            return Err(wrong());
        }
        versions.note_all();
        Ok(versions)
    }

    fn note_all(&mut self) {
        for row in 0..self.len() {
            self.note(self.version(row), self.lsn(row));
        }
    }

    /// Adds the rows of `other`.
    pub fn append(&mut self, other: &Self) {
        for row in 0..other.len() {
            self.push(other.version(row), other.lsn(row));
        }
    }

    /// The bytes held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.columns.iter().map(|column| column.capacity() * 8).sum()
    }
}

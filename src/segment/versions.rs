use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field};

use crate::base::{Error, Lsn, ReplicaId, Result, Sequence, Timestamp, Version};

/// The names of the version columns in Arrow; no field can have them, for field names hold no `$`.
const NAMES: [&str; 4] = ["$timestamp", "$origin", "$sequence", "$lsn"];

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
        for row in 0..versions.len() {
            versions.note(versions.version(row), versions.lsn(row));
        }
        let rest: Vec<usize> = (0..batch.num_columns())
            .filter(|&index| !NAMES.contains(&batch.schema_ref().field(index).name().as_str()))
            .collect();
        let rest = batch.project(&rest).map_err(|error| Error::corrupt(error.to_string()))?;
        Ok((rest, versions))
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

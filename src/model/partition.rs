use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType as ArrowType;

use super::schema::{Schema, check_name};
use crate::base::codec::checksum;
use crate::base::{Error, Result};

/// The partition of rows for which no other is named. It is always there.
pub const DEFAULT_PARTITION: &str = "_default";

/// The Arrow column that names each row's partition; null for [`DEFAULT_PARTITION`]. Only collections that ever had another one
/// have it. Rows are asked for it by this name as output field, and may bring it.
pub const PARTITION_COLUMN: &str = "$partition";

/// Most partitions of a collection, the default one counted, and most into which a key divides one; as in Milvus.
pub const PARTITIONS_MAX: usize = 1_024;

/// Checks the name of a partition: letters, digits and underscores, not starting with a digit, at most 255 bytes.
///
/// # Errors
/// `InvalidArgument` that shows the name.
pub fn check_partition(name: &str) -> Result<()> {
    check_name(name).map_err(|what| Error::invalid(format!("partition: {what}")))
}

/// The partition of a row by its partition key: the CRC-32C of the key (an `int64` as 8 bytes, little-endian, a `varchar` as its
/// UTF-8) modulo the number of partitions.
pub fn partition_of_key(key: &[u8], partitions: u16) -> u16 {
    (checksum(key) % u32::from(partitions)) as u16
}

/// The name of a partition that a key assigns.
pub fn key_partition_name(number: u16) -> String {
    format!("{DEFAULT_PARTITION}_{number}")
}

/// Some of a collection's partitions, as what can be told of a segment in a few bytes: those that a key assigns by their number,
/// others by their name's CRC-32C modulo 1,024. So a set may seem to have a partition that it has not, never the other way round.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionSet([u64; PARTITIONS_MAX / 64]);

impl PartitionSet {
    /// Adds the partition of that name.
    pub fn insert_name(&mut self, name: &str) {
        self.insert(partition_of_key(name.as_bytes(), PARTITIONS_MAX as u16));
    }

    /// Adds the partition of that number.
    pub fn insert(&mut self, number: u16) {
        self.0[usize::from(number) / 64] |= 1 << (number % 64);
    }

    /// Adds those of `other`.
    pub fn union(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
    }

    /// Leaves only those that `other` has too.
    pub fn intersect(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= other);
    }

    /// Whether both have a partition.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).any(|(word, other)| word & other != 0)
    }

    /// Adds the partitions of `rows`.
    pub(crate) fn insert_rows(&mut self, schema: &Schema, rows: &RecordBatch) {
        let Some(column) = PartitionColumn::new(schema, rows) else { return self.insert_name(DEFAULT_PARTITION) };
        let mut last = None;
        for row in 0..rows.num_rows() {
            match column.of(row) {
                Place::Number(number) => self.insert(number),
                // Rows that were written together have one partition.
                Place::Name(name) if last != Some(name) => {
                    self.insert_name(name);
                    last = Some(name);
                }
                Place::Name(_) => {}
            }
        }
    }
}

/// The partition of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place<'a> {
    Number(u16),
    Name(&'a str),
}

impl Place<'_> {
    /// Its name.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Number(number) => key_partition_name(number),
            Self::Name(name) => name.to_owned(),
        }
    }
}

/// What tells the partition of rows.
pub(crate) struct PartitionColumn<'a> {
    column: &'a ArrayRef,
    /// Where the column is a key: how many there are.
    partitions: Option<u16>,
}

impl<'a> PartitionColumn<'a> {
    /// `None` when all rows are in the default partition.
    pub(crate) fn new(schema: &Schema, rows: &'a RecordBatch) -> Option<Self> {
        let (name, partitions) = match schema.partition_key() {
            Some((field, partitions)) => (field.name.as_str(), Some(partitions)),
            None => (PARTITION_COLUMN, None),
        };
        Some(Self { column: rows.column_by_name(name)?, partitions })
    }

    /// The partition of a row. Panics past the end.
    pub(crate) fn of(&self, row: usize) -> Place<'a> {
        match (self.column.data_type(), self.partitions) {
            (ArrowType::Int64, Some(partitions)) => {
                let key = self.column.as_primitive::<Int64Type>().value(row);
                Place::Number(partition_of_key(&key.to_le_bytes(), partitions))
            }
            (_, Some(partitions)) => {
                Place::Number(partition_of_key(self.column.as_string::<i32>().value(row).as_bytes(), partitions))
            }
            (_, None) if self.column.is_null(row) => Place::Name(DEFAULT_PARTITION),
            (_, None) => Place::Name(self.column.as_string::<i32>().value(row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_assigned_as_the_formats_say() {
        assert_eq!(partition_of_key(b"123456789", 16), (0xe306_9283_u32 % 16) as u16);
        assert_eq!(partition_of_key(&7i64.to_le_bytes(), 1), 0);
        let mut numbers = [0; 16];
        (0..1_600i64).for_each(|key| numbers[usize::from(partition_of_key(&key.to_le_bytes(), 16))] += 1);
        assert!(numbers.iter().all(|&rows| (50..200).contains(&rows)), "{numbers:?}");
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        let set = |names: &[&str]| {
            let mut set = PartitionSet::default();
            names.iter().for_each(|name| set.insert_name(name));
            set
        };
        assert!(set(&["a", "b"]).meets(&set(&["b", "c"])));
        assert!(!set(&["a", "b"]).meets(&set(&["c"])) && !set(&[]).meets(&set(&[])));
        let (mut both, mut common) = (set(&["a"]), set(&["a", "b"]));
        both.union(&set(&["b"]));
        common.intersect(&set(&["b", "c"]));
        assert_eq!((both, common), (set(&["a", "b"]), set(&["b"])));
    }

    #[test]
    fn names_are_checked() {
        for name in ["a", "_x9", DEFAULT_PARTITION] {
            check_partition(name).unwrap();
        }
        for name in ["", "9", "a-b", "ä", &"x".repeat(256)] {
            check_partition(name).unwrap_err();
        }
    }
}

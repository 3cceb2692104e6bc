//! What a collection holds: schema, values, rows, and batches of rows in Arrow columns.
//!
//! Validation happens here and once: a [`Batch`] that exists fits its schema, so no room below this one checks again.
//! Deliberately absent: where rows are stored, their versions, how they are found.

pub(crate) mod batch;
pub(crate) mod column;
pub(crate) mod gather;
mod ipc;
pub(crate) mod partition;
pub(crate) mod path;
mod row;
pub(crate) mod schema;
pub mod text;
pub(crate) mod time;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use batch::BatchColumn;
pub use batch::{Batch, META_COLUMN, NORMALIZED_METADATA, VectorColumn};
pub use ipc::{IpcReader, check_ipc};
pub use partition::{
    DEFAULT_PARTITION, PARTITION_COLUMN, PARTITIONS_MAX, PartitionSet, check_partition, key_partition_name,
    partition_of_key,
};
pub use path::{FieldPath, Step};
pub use row::{Key, Row};
pub use schema::{DataType, Element, Field, Schema};
pub use value::Value;

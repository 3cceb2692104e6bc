use std::sync::Arc;

use arrow_array::RecordBatch;

use super::{Key, Row, Schema};
use crate::base::Result;

/// The Arrow column of the dynamic field: one JSON object a row, or null.
pub const META_COLUMN: &str = "$meta";

/// One vector field of many rows: row-major `[rows, dim]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VectorColumn {
    /// The field's name.
    pub field: String,
    /// Numbers a row.
    pub dim: usize,
    /// `rows * dim` finite numbers.
    pub data: Vec<f32>,
}

/// Rows that fit a schema, in columns.
#[derive(Debug, Clone)]
pub struct Batch {
    schema: Arc<Schema>,
    scalars: RecordBatch,
    vectors: Vec<VectorColumn>,
}

impl Batch {
    /// Validates `rows` and turns them into columns: defaults filled in, unknown names in [`META_COLUMN`].
    ///
    /// # Errors
    /// `InvalidArgument` that names the row (from 0) and the field: wrong dimension, NaN or infinity in a vector, wrong
    /// type, text too long, a missing value, an unknown field without a dynamic field, a key that occurs twice.
    pub fn from_rows(schema: &Arc<Schema>, rows: Vec<Row>) -> Result<Self> {
        let _ = (schema, rows);
        unimplemented!("skeleton")
    }

    /// The same from Arrow columns of these or convertible types (see `src/docs/import.md`).
    pub fn from_arrow(schema: &Arc<Schema>, batch: &RecordBatch) -> Result<Self> {
        let _ = (schema, batch);
        unimplemented!("skeleton")
    }

    /// All columns as Arrow, in schema order, vectors as `FixedSizeList<Float32>`, then [`META_COLUMN`].
    pub fn to_arrow(&self) -> RecordBatch {
        unimplemented!("skeleton")
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.scalars.num_rows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The schema that the rows fit.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Every field but the vectors, in schema order (`Boolean`, `Int64`, `Float64`, `Utf8`; JSON is `Utf8`), then
    /// [`META_COLUMN`] (`Utf8`) when the schema is dynamic.
    pub fn scalars(&self) -> &RecordBatch {
        &self.scalars
    }

    /// The vector fields in schema order.
    pub fn vectors(&self) -> &[VectorColumn] {
        &self.vectors
    }

    /// The vector field of that name.
    pub fn vector(&self, field: &str) -> Option<&VectorColumn> {
        self.vectors.iter().find(|column| column.field == field)
    }

    /// The primary key of `row`. Panics past the end.
    pub fn key(&self, row: usize) -> Key {
        let _ = row;
        unimplemented!("skeleton")
    }

    /// One row with the fields that `fields` names (all of them, and the dynamic ones, with `None`). A name that is not in
    /// the schema is looked up in the dynamic field, and left out where the row lacks it. Panics past the end.
    pub fn row(&self, row: usize, fields: Option<&[String]>) -> Row {
        let _ = (row, fields);
        unimplemented!("skeleton")
    }

    /// The rows at `rows`, in that order.
    pub fn take(&self, rows: &[u32]) -> Self {
        let _ = rows;
        unimplemented!("skeleton")
    }

    /// All rows of `batches`, which have one schema; at least one batch.
    pub fn concat(batches: &[Self]) -> Self {
        let _ = batches;
        unimplemented!("skeleton")
    }

    /// The bytes that the columns hold in memory.
    pub fn memory_bytes(&self) -> usize {
        unimplemented!("skeleton")
    }
}

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use hashbrown::HashMap;
use serde_json::{Map, Value as Json};

use super::column::{self, Cell, Column, Finished};
use super::gather;
use super::partition::{DEFAULT_PARTITION, PARTITION_COLUMN};
use super::schema::names;
use super::{DataType, Field, Key, Row, Schema, Value};
use crate::base::{Error, Result};

/// The Arrow column of the dynamic field: one JSON object a row, or null.
pub const META_COLUMN: &str = "$meta";

/// Field metadata of an Arrow vector column: with `"true"`, each row is a direction, scaled to unit length when read.
pub const NORMALIZED_METADATA: &str = "eddy.normalized";

/// One vector field that is [kept apart](Field::is_apart), of many rows: row-major `[rows, dim]`.
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
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    schema: Arc<Schema>,
    scalars: RecordBatch,
    vectors: Vec<VectorColumn>,
}

/// A column of a batch.
pub(crate) enum BatchColumn<'a> {
    Scalars(&'a Arc<ArrowField>, &'a ArrayRef),
    Vectors(&'a VectorColumn),
}

fn vector_item() -> Arc<ArrowField> {
    Arc::new(ArrowField::new("item", ArrowType::Float32, false))
}

impl Batch {
    /// Bytes of values in one batch from outside: numbers by their width, a bool 1, text and arrays by their length and 4.
    pub const BYTES_MAX: usize = 64 << 20;

    /// No rows.
    pub fn empty(schema: &Arc<Schema>) -> Self {
        Builder::new(schema, 0).finish()
    }

    /// Validates `rows` and turns them into columns: defaults filled in, unknown names in [`META_COLUMN`].
    ///
    /// An explicit null stays null in a nullable field, and counts as missing elsewhere. Fits what is written without
    /// loss: an integer a `double` or `float`, text of RFC 3339 a `timestamp`, an array of numbers a vector, anything `json`.
    ///
    /// # Errors
    /// `InvalidArgument` that names the row (from 0) and the field: wrong dimension, NaN or infinity in a vector or a
    /// double, wrong type, a number out of range, text or an array too long, a missing value, an unknown field without a dynamic field, a key that occurs
    /// twice; more than [`Batch::BYTES_MAX`].
    pub fn from_rows(schema: &Arc<Schema>, rows: Vec<Row>) -> Result<Self> {
        Self::from_rows_beside(schema, rows, &[])
    }

    /// The same of rows whose vectors come beside them: of a field that is [kept apart](Field::is_apart) the little-endian 32-bit floats
    /// of all rows, one vector after the other.
    ///
    /// # Errors
    /// As of [`Batch::from_rows`].
    pub fn from_rows_beside(schema: &Arc<Schema>, rows: Vec<Row>, vectors: &[(&str, &[u8])]) -> Result<Self> {
        let mut builder = Builder::new(schema, rows.len()).limited(rows.len());
        // Once for all rows: a number after the other takes five times as long where code is built for size.
        let numbers = |field: &Field| {
            let (_, bytes) = vectors.iter().find(|(name, _)| *name == field.name).filter(|_| field.is_apart())?;
            Some(ScalarBuffer::<f32>::new(Buffer::from(*bytes), 0, bytes.len() / size_of::<f32>()))
        };
        let numbers: Vec<_> = schema.columns().iter().map(numbers).collect();
        // What is left over by the division makes no row's vector longer: all of them are too short then.
        let of_rows = |numbers: &'_ ScalarBuffer<f32>| numbers.len().checked_div(rows.len()).unwrap_or_default().max(1);
        let mut beside: Vec<_> = numbers
            .iter()
            .map(|numbers| numbers.as_ref().map(|numbers| numbers.chunks_exact(of_rows(numbers))))
            .collect();
        for (at, row) in rows.iter().enumerate() {
            let mut known = 0;
            for (field, beside) in beside.iter_mut().enumerate() {
                let value = row.get(&schema.columns()[field].name);
                known += usize::from(value.is_some());
                let vector = beside.as_mut().and_then(Iterator::next).map(Cell::Floats);
                builder.push(at, field, value.map(Cell::from).or(vector))?;
            }
            let mut dynamic = Map::new();
            if known < row.len() {
                for (name, value) in row.iter().filter(|(name, _)| schema.column(name).is_none()) {
                    builder.check_unknown(at, name)?;
                    let json = Cell::from(value).to_json().map_err(|what| at_field(at, name, &what))?;
                    dynamic.insert(name.clone(), json);
                }
            }
            builder.push_dynamic(at, dynamic)?;
        }
        builder.finish_unique()
    }

    /// The same from Arrow columns, found by name, of the fields' types or convertible ones: integers of any width that
    /// fit, 16-, 32- and 64-bit floats, instants and dates that are whole microseconds (those without a time zone are taken
    /// for UTC), every kind of string and dictionaries of them, lists for arrays, lists of numbers for vectors (with the
    /// column's metadata `eddy.normalized` = `true`, scaled to unit length), JSON as text. Columns that the schema
    /// does not have go to the dynamic field, where nulls are left out. Nothing of `batch` is kept alive.
    ///
    /// # Errors
    /// As of [`Batch::from_rows`].
    pub fn from_arrow(schema: &Arc<Schema>, batch: &RecordBatch) -> Result<Self> {
        Builder::new(schema, batch.num_rows()).limited(batch.num_rows()).read(batch)?.finish_unique()
    }

    /// The same for rows that were validated before, such as a segment's: of any size, and keys may repeat.
    ///
    /// # Errors
    /// As of [`Batch::from_rows`]: what does not fit is refused here too.
    pub fn from_stored(schema: &Arc<Schema>, batch: &RecordBatch) -> Result<Self> {
        Ok(Builder::new(schema, batch.num_rows()).read(batch)?.finish())
    }

    /// The same rows in a schema that has grown since by fields that rows may lack: see [`Schema::with_field`].
    pub(crate) fn grown(self, schema: &Arc<Schema>) -> Self {
        let scalars = grow(&self.scalars, &self.schema, schema);
        Self { schema: Arc::clone(schema), scalars, vectors: self.vectors }
    }

    /// Rows from columns that were checked before, as they are; without vectors, for reading the others only.
    pub(crate) fn from_parts(schema: Arc<Schema>, scalars: RecordBatch, vectors: Vec<VectorColumn>) -> Self {
        Self { schema, scalars, vectors }
    }

    /// Without the columns that `left` names: vectors have no data then.
    pub(crate) fn without(mut self, left: &[String]) -> Self {
        for column in left {
            if let Ok(index) = self.scalars.schema_ref().index_of(column) {
                self.scalars.remove_column(index);
            }
            self.vectors
                .iter_mut()
                .filter(|vectors| vectors.field == *column)
                .for_each(|vectors| vectors.data = Vec::new());
        }
        self
    }

    /// The columns: narrow ones, and vectors.
    pub(crate) fn into_parts(self) -> (RecordBatch, Vec<VectorColumn>) {
        (self.scalars, self.vectors)
    }

    /// All columns as Arrow, in schema order, then [`PARTITION_COLUMN`] and [`META_COLUMN`] where they are: see [`Batch::scalars`], and vectors as
    /// `FixedSizeList<Float32>`.
    pub fn to_arrow(&self) -> RecordBatch {
        let column = |column| match column {
            BatchColumn::Scalars(_, array) => Arc::clone(array),
            BatchColumn::Vectors(VectorColumn { dim, data, .. }) => {
                let values = Arc::new(Float32Array::from(data.clone()));
                Arc::new(FixedSizeListArray::new(vector_item(), *dim as i32, values, None))
            }
        };
        record_batch(Arc::new(self.arrow_schema()), self.columns().map(column).collect(), self.len())
    }

    /// The schema of [`Batch::to_arrow`].
    pub(crate) fn arrow_schema(&self) -> ArrowSchema {
        let field = |column| match column {
            BatchColumn::Scalars(field, _) => Arc::clone(field),
            BatchColumn::Vectors(VectorColumn { field, dim, .. }) => {
                Arc::new(ArrowField::new(field, ArrowType::FixedSizeList(vector_item(), *dim as i32), false))
            }
        };
        ArrowSchema::new(self.columns().map(field).collect::<Vec<_>>())
    }

    /// The columns of [`Batch::to_arrow`], where they are.
    pub(crate) fn columns(&self) -> impl Iterator<Item = BatchColumn<'_>> {
        let mut vectors = self.vectors.iter();
        let mut scalars = self.scalars.columns().iter().zip(self.scalars.schema_ref().fields());
        let mut columns = self.schema.columns().iter();
        std::iter::from_fn(move || {
            if columns.next().is_some_and(Field::is_apart) {
                return Some(BatchColumn::Vectors(vectors.next().expect("every vector field has its column")));
            }
            scalars.next().map(|(array, field)| BatchColumn::Scalars(field, array))
        })
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

    /// Every field but those that are [kept apart](Field::is_apart), in schema order (`Boolean`, `Int8` to `Int64`,
    /// `Float32`, `Float64`, `Utf8`, `Timestamp(µs, UTC)`, `List` of these; JSON is `Utf8`; dense vectors are a
    /// `FixedSizeList` of `Float32`, `Float16`, `UInt16` (bfloat16), `Int8` or `UInt8` (bits), sparse ones a `List<UInt64>`
    /// of pairs: the index in the lower half, the bits of the value in the upper), then [`PARTITION_COLUMN`] where rows have
    /// partitions by name, and [`META_COLUMN`] (`Utf8`) when the schema is dynamic.
    pub fn scalars(&self) -> &RecordBatch {
        &self.scalars
    }

    /// The vector fields that are kept apart, in schema order.
    pub fn vectors(&self) -> &[VectorColumn] {
        &self.vectors
    }

    /// The vector field of that name.
    pub fn vector(&self, field: &str) -> Option<&VectorColumn> {
        self.vectors.iter().find(|column| column.field == field)
    }

    fn key_column(&self) -> &dyn Array {
        let name = &self.schema.primary_key().name;
        self.scalars.column_by_name(name).expect("the primary key is a scalar field").as_ref()
    }

    /// The primary key of `row`. Panics past the end.
    pub fn key(&self, row: usize) -> Key {
        key(self.key_column(), row)
    }

    /// The primary keys in row order.
    pub fn keys(&self) -> Vec<Key> {
        let column = self.key_column();
        (0..self.len()).map(|row| key(column, row)).collect()
    }

    /// One row with the fields that `fields` names (all of them, and the dynamic ones, with `None` or `*`; the dynamic ones with
    /// [`META_COLUMN`]). A name that is
    /// not in the schema is looked up in the dynamic field, and left out where the row lacks it. A null is [`Value::Null`].
    /// Panics past the end.
    pub fn row(&self, row: usize, fields: Option<&[String]>) -> Row {
        assert!(row < self.len(), "row {row} of {}", self.len());
        let wanted = |name: &str| fields.is_none_or(|fields| fields.iter().any(|field| field == name || field == "*"));
        let mut result = Row::new();
        let mut scalars = self.scalars.columns().iter();
        let mut vectors = self.vectors.iter();
        for field in self.schema.columns() {
            if field.is_apart() {
                if let Some(VectorColumn { dim, data, .. }) = vectors.next()
                    && wanted(&field.name)
                {
                    result.insert(field.name.clone(), Value::Vector(data[row * dim..(row + 1) * dim].to_vec()));
                }
            } else {
                let column = scalars.next().expect("every scalar field has its column");
                if wanted(&field.name) && field.name != PARTITION_COLUMN {
                    result.insert(field.name.clone(), column::scalar(column.as_ref(), field.data_type, row));
                }
            }
        }
        let some_dynamic = fields.is_none_or(|fields| fields.iter().any(|field| self.schema.field(field).is_none()));
        if some_dynamic
            && let Some(meta) = scalars.next()
            && let Value::Json(Json::Object(entries)) = column::scalar(meta.as_ref(), DataType::Json, row)
        {
            let all = wanted(META_COLUMN);
            let entries = entries.into_iter().filter(|(name, _)| all || wanted(name));
            result.extend(entries.map(|(name, value)| (name, Value::from(value))));
        }
        result
    }

    /// The same rows, all in this partition. Panics when the schema has no [`PARTITION_COLUMN`].
    pub(crate) fn in_partition(mut self, name: &str) -> Self {
        let schema = self.scalars.schema();
        let at = schema.index_of(PARTITION_COLUMN).expect("the caller knows that rows have partitions");
        let mut columns = self.scalars.columns().to_vec();
        let name = (name != DEFAULT_PARTITION).then_some(name);
        columns[at] = Arc::new(StringArray::from_iter(std::iter::repeat_n(name, self.len())));
        self.scalars = record_batch(schema, columns, self.len());
        self
    }

    /// The partitions but the default one that its rows name.
    pub(crate) fn partitions(&self) -> BTreeSet<&str> {
        let column = self.scalars.column_by_name(PARTITION_COLUMN);
        let mut names = BTreeSet::new();
        let mut last = None;
        for name in column.into_iter().flat_map(|column| column.as_string::<i32>().iter().flatten()) {
            if last != Some(name) {
                names.insert(name);
                last = Some(name);
            }
        }
        names
    }

    /// The rows at `rows`, in that order.
    pub fn take(&self, rows: &[u32]) -> Self {
        let scalars = gather::take(&self.scalars, rows);
        let vectors = self
            .vectors
            .iter()
            .map(|VectorColumn { field, dim, data }| {
                let mut taken = Vec::with_capacity(rows.len() * dim);
                rows.iter()
                    .for_each(|&row| taken.extend_from_slice(&data[row as usize * dim..(row as usize + 1) * dim]));
                VectorColumn { field: field.clone(), dim: *dim, data: taken }
            })
            .collect();
        Self { schema: Arc::clone(&self.schema), scalars, vectors }
    }

    /// `len` rows from `offset`, copied. Panics past the end.
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        assert!(offset + len <= self.len(), "rows {offset}..{} of {}", offset + len, self.len());
        // A slice of an Arrow array keeps the whole of it in memory, so rows are taken instead.
        let rows: Vec<u32> = (offset as u32..(offset + len) as u32).collect();
        self.take(&rows)
    }

    /// All rows of `batches`, which have one schema; at least one batch. Keys may repeat in the result.
    pub fn concat(batches: &[Self]) -> Self {
        let first = batches.first().expect("at least one batch");
        let scalars: Vec<&RecordBatch> = batches.iter().map(|batch| &batch.scalars).collect();
        let scalars = gather::concat(first.scalars.schema_ref(), &scalars);
        let vectors = (0..first.vectors.len())
            .map(|at| {
                let mut data = Vec::with_capacity(batches.iter().map(|batch| batch.vectors[at].data.len()).sum());
                batches.iter().for_each(|batch| data.extend_from_slice(&batch.vectors[at].data));
                VectorColumn { field: first.vectors[at].field.clone(), dim: first.vectors[at].dim, data }
            })
            .collect();
        Self { schema: Arc::clone(&first.schema), scalars, vectors }
    }

    /// The bytes that the columns hold in memory.
    pub fn memory_bytes(&self) -> usize {
        let vectors: usize = self.vectors.iter().map(|column| column.data.capacity() * size_of::<f32>()).sum();
        self.scalars.get_array_memory_size() + vectors
    }
}

fn key(column: &dyn Array, row: usize) -> Key {
    match column.data_type() {
        ArrowType::Int64 => Key::Int(column.as_primitive::<Int64Type>().value(row)),
        _ => Key::String(column.as_string::<i32>().value(row).into()),
    }
}

fn at_field(row: usize, field: &str, what: &str) -> Error {
    Error::invalid(format!("row {row}, field {field:?}: {what}"))
}

fn missing(state: &str, field: &Field) -> String {
    let article = if field.data_type.name().starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{state}, expected {article} {}: the field is not nullable and has no default", field.data_type)
}

fn check_unique<K: std::hash::Hash + Eq + Copy>(
    keys: impl ExactSizeIterator<Item = K>,
    twice: impl Fn(usize, usize) -> Error,
) -> Result<()> {
    let mut rows = HashMap::with_capacity(keys.len());
    for (row, key) in keys.enumerate() {
        if let Some(first) = rows.insert(key, row) {
            return Err(twice(row, first));
        }
    }
    Ok(())
}

fn record_batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options).expect("columns are built by their schema")
}

/// `scalars`, some or all of the columns of rows of `earlier`, with those that fields of `schema` have which `earlier` lacks.
pub(crate) fn grow(scalars: &RecordBatch, earlier: &Schema, schema: &Arc<Schema>) -> RecordBatch {
    let whole = Batch::empty(schema).scalars.schema();
    let columns = whole.fields().iter().filter_map(|field| {
        let added = || schema.column(field.name()).filter(|added| earlier.column(&added.name).is_none());
        let array = scalars.column_by_name(field.name()).cloned();
        Some((Arc::clone(field), array.or_else(|| added().map(|added| column::absent(added, scalars.num_rows())))?))
    });
    let (fields, columns): (Vec<_>, Vec<_>) = columns.unzip();
    record_batch(Arc::new(ArrowSchema::new(fields)), columns, scalars.num_rows())
}

/// Columns while rows are added.
struct Builder {
    schema: Arc<Schema>,
    columns: Vec<Column>,
    dynamic: Option<StringBuilder>,
    rows: usize,
    bytes: usize,
    /// The rows to come, when they come from outside.
    limited: Option<usize>,
}

impl Builder {
    fn new(schema: &Arc<Schema>, rows: usize) -> Self {
        Self {
            schema: Arc::clone(schema),
            columns: schema
                .columns()
                .iter()
                .map(|field| Column::new(field.data_type, field.is_apart(), rows))
                .collect(),
            dynamic: schema.dynamic().then(StringBuilder::new),
            rows: 0,
            bytes: 0,
            limited: None,
        }
    }

    fn limited(mut self, rows: usize) -> Self {
        self.limited = Some(rows);
        self
    }

    /// Adds the value of one field, or what stands for a missing one.
    fn push(&mut self, row: usize, field: usize, cell: Option<Cell<'_>>) -> Result<()> {
        let (field, column) = (&self.schema.columns()[field], &mut self.columns[field]);
        let cell = match cell {
            Some(Cell::Text(DEFAULT_PARTITION)) if field.name == PARTITION_COLUMN => None,
            cell => cell,
        };
        let pushed = match (cell, &field.default) {
            (Some(Cell::Null), _) | (None, None) if field.nullable => {
                column.push_null();
                Ok(1)
            }
            (Some(Cell::Null) | None, Some(default)) => column.push(Cell::from(default)),
            (None, None) => Err(missing("is missing", field)),
            (Some(Cell::Null), None) => Err(missing("is null", field)),
            (Some(cell), _) => column.push(cell),
        };
        self.bytes += pushed.map_err(|what| at_field(row, &field.name, &what))?;
        Ok(())
    }

    fn check_unknown(&self, row: usize, name: &str) -> Result<()> {
        if name == META_COLUMN {
            return Err(at_field(row, name, "this name is reserved for the dynamic field as a whole"));
        }
        if name == PARTITION_COLUMN {
            return Err(at_field(row, name, "the partitions of this collection are not named by rows"));
        }
        if self.dynamic.is_none() {
            let known = names(self.schema.fields().iter().map(|field| field.name.as_str()));
            return Err(at_field(row, name, &format!("no such field; the schema has {known} and no dynamic field")));
        }
        Ok(())
    }

    /// Ends a row.
    fn push_dynamic(&mut self, row: usize, entries: Map<String, Json>) -> Result<()> {
        match &mut self.dynamic {
            Some(column) if entries.is_empty() => column.append_null(),
            Some(column) => {
                let pushed = column::append_text(column, &Json::Object(entries).to_string());
                self.bytes += pushed.map_err(|what| at_field(row, META_COLUMN, &what))?;
            }
            None => debug_assert!(entries.is_empty(), "unknown names were refused"),
        }
        self.rows += 1;
        if let Some(rows) = self.limited
            && self.bytes > Batch::BYTES_MAX
        {
            return Err(Error::invalid(format!(
                "the batch is too large: {} bytes in the first {} of its {rows} rows, at most {} bytes are taken at once; \
                 write it in parts",
                self.bytes,
                row + 1,
                Batch::BYTES_MAX
            )));
        }
        Ok(())
    }

    fn read(mut self, batch: &RecordBatch) -> Result<Self> {
        let schema = Arc::clone(&self.schema);
        let mut known: Vec<Option<(&dyn Array, bool)>> = schema.columns().iter().map(|_| None).collect();
        let mut unknown = Vec::new();
        let mut meta: Option<(&dyn Array, bool)> = None;
        for (arrow, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let name = arrow.name().as_str();
            let normalized = arrow.metadata().get(NORMALIZED_METADATA).is_some_and(|value| value == "true");
            let cells = (array.as_ref(), normalized);
            let twice = if let Some(at) = schema.columns().iter().position(|field| field.name == name) {
                known[at].replace(cells).is_some()
            } else if name == META_COLUMN && schema.dynamic() {
                meta.replace(cells).is_some()
            } else {
                self.check_unknown(0, name)?;
                unknown.push((name, cells));
                unknown.iter().filter(|(other, _)| *other == name).count() > 1
            };
            if twice {
                return Err(Error::invalid(format!("column {name:?} occurs twice")));
            }
        }
        for row in 0..batch.num_rows() {
            for (at, cells) in known.iter().enumerate() {
                let cell = cells.map(|(array, normalized)| column::cell(array, row, normalized));
                match cell {
                    // Arrow has no JSON: it travels as text.
                    Some(Cell::Text(text)) if schema.columns()[at].data_type == DataType::Json => {
                        let what = |what: String| at_field(row, &schema.columns()[at].name, &what);
                        let json = column::parse_json(text).map_err(what)?;
                        self.push(row, at, Some(Cell::from(&json)))?;
                    }
                    cell => self.push(row, at, cell)?,
                }
            }
            let mut entries = match meta.map_or(Cell::Null, |(array, _)| column::cell(array, row, false)) {
                Cell::Null => Map::new(),
                Cell::Text(text) => self.read_dynamic(text).map_err(|what| at_field(row, META_COLUMN, &what))?,
                _ => return Err(at_field(row, META_COLUMN, "expected the text of a JSON object")),
            };
            for &(name, (array, _)) in &unknown {
                let cell = column::cell(array, row, false);
                if !matches!(cell, Cell::Null) {
                    let json = cell.to_json().map_err(|what| at_field(row, name, &what))?;
                    entries.insert(name.to_owned(), json);
                }
            }
            self.push_dynamic(row, entries)?;
        }
        Ok(self)
    }

    fn read_dynamic(&self, text: &str) -> Result<Map<String, Json>, String> {
        let Json::Object(entries) = column::parse_json(text)? else {
            return Err("expected the text of a JSON object".to_owned());
        };
        let known = |name: &str| self.schema.field(name).is_some() || [META_COLUMN, PARTITION_COLUMN].contains(&name);
        match entries.keys().find(|name| known(name)) {
            Some(name) => Err(format!("{name:?} is a field of the schema, and cannot be in the dynamic field too")),
            None => Ok(entries),
        }
    }

    fn finish(self) -> Batch {
        let mut fields = Vec::with_capacity(self.columns.len() + 1);
        let mut scalars: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + 1);
        let mut vectors = Vec::new();
        for (field, column) in self.schema.columns().iter().zip(self.columns) {
            match column.finish() {
                Finished::Scalar(array) => {
                    fields.push(ArrowField::new(&field.name, array.data_type().clone(), field.nullable));
                    scalars.push(array);
                }
                Finished::Vector { dim, data } => vectors.push(VectorColumn { field: field.name.clone(), dim, data }),
            }
        }
        if let Some(mut column) = self.dynamic {
            fields.push(ArrowField::new(META_COLUMN, ArrowType::Utf8, true));
            scalars.push(Arc::new(column.finish()));
        }
        let scalars = record_batch(Arc::new(ArrowSchema::new(fields)), scalars, self.rows);
        Batch { schema: self.schema, scalars, vectors }
    }

    fn finish_unique(self) -> Result<Batch> {
        let batch = self.finish();
        let twice = |row: usize, first: usize| {
            let what = format!("key {} occurs twice in the batch, first in row {first}", batch.key(row));
            at_field(row, &batch.schema.primary_key().name, &what)
        };
        // Borrowed strings, so no `Key`: a batch has many.
        match batch.key_column().data_type() {
            ArrowType::Int64 => check_unique(batch.key_column().as_primitive::<Int64Type>().values().iter(), twice)?,
            _ => check_unique(batch.key_column().as_string::<i32>().iter(), twice)?,
        }
        Ok(batch)
    }
}

//! Arrow IPC (file and stream) and Parquet.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::guard::guarded;
use super::{Chunk, Source};
use crate::base::{Error, ErrorKind, Result};
use crate::model::{DataType, Field, META_COLUMN, Schema, check_ipc};

/// Record batches from a file. Batches come out in the file's own sizes, cut to what is asked for.
pub(super) struct Columnar {
    batches: Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>,
    name: String,
    arrow_schema: SchemaRef,
    schema: Option<Arc<Schema>>,
    rest: Option<RecordBatch>,
    done: u64,
    total: u64,
}

impl Columnar {
    /// Opens an Arrow IPC file or stream, told apart by their first bytes.
    ///
    /// # Errors
    /// `Corrupt` when the framing does not hold together: it is checked as a whole before anything is decoded.
    pub(super) fn open_arrow(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let io = |error: std::io::Error| super::io_error(&name, &error);
        let mut reader = BufReader::with_capacity(1 << 18, super::open_file(path)?);
        let total = check_ipc(&mut reader).map_err(|error| error.context(&name))?;
        reader.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut magic = [0; 6];
        reader.read_exact(&mut magic).map_err(io)?;
        let is_file = &magic == b"ARROW1";
        reader.seek(SeekFrom::Start(0)).map_err(io)?;
        let wrong = |error: ArrowError| arrow_error(&name, &error);
        let (arrow_schema, batches): (_, Box<dyn Iterator<Item = _> + Send>) = if is_file {
            let reader = FileReader::try_new(reader, None).map_err(wrong)?;
            (reader.schema(), Box::new(reader))
        } else {
            let reader = StreamReader::try_new(reader, None).map_err(wrong)?;
            (reader.schema(), Box::new(reader))
        };
        Ok(Self { batches, name, arrow_schema, schema: None, rest: None, done: 0, total })
    }

    /// Opens a Parquet file.
    pub(super) fn open_parquet(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = super::open_file(path)?;
        let file_len = file.metadata().map_err(|error| super::io_error(&name, &error))?.len();
        let open = || -> Result<(u64, SchemaRef, ParquetRecordBatchReader)> {
            let wrong = |error: ParquetError| Error::corrupt(error.to_string());
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(wrong)?;
            check_places(builder.metadata(), file_len)
                .map_err(|what| Error::corrupt(format!("the footer gives {what}")))?;
            let total = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
            Ok((total, builder.schema().clone(), builder.build().map_err(wrong)?))
        };
        let (total, arrow_schema, reader) = guarded(open).map_err(|error| error.context(&name))?;
        Ok(Self { batches: Box::new(reader), name, arrow_schema, schema: None, rest: None, done: 0, total })
    }

    /// What the file says about itself.
    pub(super) fn metadata(&self, key: &str) -> Option<&str> {
        self.arrow_schema.metadata().get(key).map(String::as_str)
    }

    /// Whether the file was exported from a collection that keeps names that its schema does not know.
    pub(super) fn is_dynamic(&self) -> bool {
        self.arrow_schema.fields().iter().any(|field| field.name() == META_COLUMN)
    }

    /// The type of field that each column calls for.
    pub(super) fn types(&mut self) -> Result<Vec<(String, DataType)>> {
        let first = match self.rest.take() {
            Some(batch) => Some(batch),
            None => self.read()?,
        };
        let types = self
            .arrow_schema
            .fields()
            .iter()
            .enumerate()
            // What an export keeps of a dynamic field is no field of its own.
            .filter(|(_, field)| field.name() != META_COLUMN)
            .map(|(index, field)| {
                let data_type = field_type(field.data_type(), first.as_ref().map(|batch| batch.column(index)));
                match data_type {
                    Some(data_type) => Ok((super::field_name(field.name()), data_type)),
                    None => Err(Error::new(
                        ErrorKind::Unsupported,
                        format!(
                            "{}: column {:?} is {}, which no field can hold",
                            self.name,
                            field.name(),
                            field.data_type()
                        ),
                    )),
                }
            })
            .collect();
        self.rest = first;
        types
    }

    /// Matches the columns to the fields of `schema`.
    pub(super) fn bind(mut self, schema: &Arc<Schema>) -> Result<Self> {
        for (index, field) in self.arrow_schema.fields().iter().enumerate() {
            let name = super::field_name(field.name());
            let known = schema.column(&name).is_some() || field.name() == META_COLUMN;
            if !known && !schema.dynamic() {
                return Err(super::unknown_column(&self.name, field.name(), schema));
            }
            if self.arrow_schema.fields()[..index].iter().any(|other| super::field_name(other.name()) == name) {
                return Err(Error::invalid(format!("{}: two columns are named {name:?}", self.name)));
            }
        }
        self.schema = Some(schema.clone());
        Ok(self)
    }

    fn read(&mut self) -> Result<Option<RecordBatch>> {
        let Self { batches, name, .. } = self;
        guarded(|| Ok(batches.next()))
            .map_err(|error| error.context(&*name))?
            .transpose()
            .map_err(|error| arrow_error(name, &error))
    }

    fn next_slice(&mut self, rows_max: usize) -> Result<Option<RecordBatch>> {
        let batch = loop {
            match self.rest.take() {
                Some(batch) if batch.num_rows() > 0 => break batch,
                _ => match self.read()? {
                    Some(batch) => self.rest = Some(batch),
                    None => return Ok(None),
                },
            }
        };
        let len = batch.num_rows().min(rows_max);
        if len < batch.num_rows() {
            self.rest = Some(batch.slice(len, batch.num_rows() - len));
        }
        self.done += len as u64;
        Ok(Some(batch.slice(0, len)))
    }
}

impl Source for Columnar {
    fn next_chunk(&mut self, rows_max: usize) -> Result<Option<Chunk>> {
        let first = self.done;
        let Some(batch) = self.next_slice(rows_max)? else { return Ok(None) };
        let schema = self.schema.as_ref().expect("a source is bound to a schema before it is read");
        let batch = fit(&batch, schema).map_err(|error| {
            error.context(format!("{}: rows {first} to {}", self.name, first + batch.num_rows() as u64 - 1))
        })?;
        Ok(Some(Chunk::Columns { batch, first }))
    }

    fn skip(&mut self, rows: u64) -> Result<u64> {
        let mut left = rows;
        while left > 0 {
            let Some(batch) = self.next_slice(usize::try_from(left).unwrap_or(usize::MAX))? else { break };
            left -= batch.num_rows() as u64;
        }
        Ok(rows - left)
    }

    fn progress(&self) -> (u64, u64) {
        (self.done, self.total)
    }
}

/// The reader of Parquet believes where a footer says that columns lie, and panics where that cannot be.
fn check_places(metadata: &ParquetMetaData, file_len: u64) -> Result<(), String> {
    for (index, group) in metadata.row_groups().iter().enumerate() {
        if group.num_rows() < 0 {
            return Err(format!("row group {index} {} rows", group.num_rows()));
        }
        for column in group.columns() {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let end = u64::try_from(start)
                .ok()
                .zip(u64::try_from(column.compressed_size()).ok())
                .and_then(|(start, len)| start.checked_add(len));
            if end.is_none_or(|end| end > file_len) || column.num_values() < 0 || column.uncompressed_size() < 0 {
                return Err(format!(
                    "column {:?} of row group {index} {} values in {} bytes at byte {start}; the file has {file_len}",
                    column.column_path().string(),
                    column.num_values(),
                    column.compressed_size()
                ));
            }
        }
    }
    Ok(())
}

fn arrow_error(name: &str, error: &ArrowError) -> Error {
    match error {
        ArrowError::IoError(message, _) => Error::corrupt(format!("{name}: {message}")),
        ArrowError::NotYetImplemented(message) => Error::new(ErrorKind::Unsupported, format!("{name}: {message}")),
        error => Error::corrupt(format!("{name}: {error}")),
    }
}

/// The field that a column of `arrow` calls for. The length of a list that the type does not tell is its first row's in
/// `sample`.
fn field_type(arrow: &ArrowType, sample: Option<&ArrayRef>) -> Option<DataType> {
    use ArrowType as A;
    let varchar = DataType::Varchar { max_length: 65_535 };
    Some(match arrow {
        A::Boolean => DataType::Bool,
        A::Int8 => DataType::Int8,
        A::Int16 | A::UInt8 => DataType::Int16,
        A::Int32 | A::UInt16 => DataType::Int32,
        A::Int64 | A::UInt32 | A::UInt64 => DataType::Int64,
        A::Float16 | A::Float32 => DataType::Float,
        A::Float64 | A::Decimal128(..) | A::Decimal256(..) => DataType::Double,
        A::Timestamp(..) => DataType::Timestamp,
        A::Utf8 | A::LargeUtf8 | A::Utf8View | A::Null => varchar,
        A::Date32 | A::Date64 | A::Time32(_) | A::Time64(_) => varchar,
        A::Dictionary(_, value) => field_type(value, None)?,
        A::FixedSizeList(item, dim) if item.data_type().is_numeric() => {
            DataType::FloatVector { dim: u32::try_from(*dim).ok()? }
        }
        A::List(item) | A::LargeList(item) if item.data_type().is_floating() => {
            let dim = sample.and_then(|array| list_len(array, 0));
            dim.filter(|&dim| dim > 0).map_or(DataType::Json, |dim| DataType::FloatVector { dim })
        }
        A::FixedSizeList(..) | A::List(_) | A::LargeList(_) | A::Struct(_) | A::Map(..) => DataType::Json,
        _ => return None,
    })
}

fn list_len(array: &ArrayRef, row: usize) -> Option<u32> {
    use arrow_array::cast::AsArray;
    if array.len() <= row || array.is_null(row) {
        return None;
    }
    let len = match array.data_type() {
        ArrowType::List(_) => array.as_list::<i32>().value_length(row) as i64,
        ArrowType::LargeList(_) => array.as_list::<i64>().value_length(row),
        _ => return None,
    };
    u32::try_from(len).ok()
}

/// `batch` with columns that [`crate::model::Batch::from_arrow`] reads: dates and times as text, decimals as doubles, lists
/// and structures as JSON, and columns called as their fields are.
fn fit(batch: &RecordBatch, schema: &Schema) -> Result<RecordBatch> {
    let (mut fields, mut columns, mut nested) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (arrow, array)) in batch.schema_ref().fields().iter().zip(batch.columns()).enumerate() {
        let name = super::field_name(arrow.name());
        let field = schema.column(&name);
        if field.is_none() && is_nested(array.data_type()) {
            nested.push(index);
            continue;
        }
        let column = fit_column(array, field).map_err(|error| error.context(format!("column {:?}", arrow.name())))?;
        fields.push(ArrowField::new(name, column.data_type().clone(), true).with_metadata(arrow.metadata().clone()));
        columns.push(column);
    }
    if !nested.is_empty() {
        if fields.iter().any(|field| field.name() == META_COLUMN) {
            return Err(Error::invalid(format!(
                "a column {META_COLUMN:?} and columns of lists or structures without a field cannot be kept together"
            )));
        }
        let nested = batch.project(&nested).expect("the columns were counted in this batch");
        fields.push(ArrowField::new(META_COLUMN, ArrowType::Utf8, true));
        columns.push(Arc::new(StringArray::from_iter(json_rows(&nested)?.into_iter().map(Some))));
    }
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(ArrowSchema::new(fields)), columns, &options)
        .map_err(|error| Error::internal(format!("fitted columns do not fit together: {error}")))
}

fn is_nested(arrow: &ArrowType) -> bool {
    use ArrowType as A;
    matches!(arrow, A::List(_) | A::LargeList(_) | A::FixedSizeList(..) | A::Struct(_) | A::Map(..))
}

fn fit_column(array: &ArrayRef, field: Option<&Field>) -> Result<ArrayRef> {
    use ArrowType as A;
    let json = field.is_some_and(|field| field.data_type == DataType::Json);
    match array.data_type() {
        A::Date32 | A::Date64 | A::Timestamp(..)
            if field.is_some_and(|field| field.data_type == DataType::Timestamp) =>
        {
            Ok(array.clone())
        }
        A::Date32 | A::Date64 | A::Timestamp(..) | A::Time32(_) | A::Time64(_) => cast(array, &A::Utf8),
        A::Decimal128(..) | A::Decimal256(..) => cast(array, &A::Float64),
        nested if json && is_nested(nested) => {
            let single = RecordBatch::try_from_iter_with_nullable([("v", array.clone(), true)])
                .map_err(|error| Error::internal(format!("one column is no batch: {error}")))?;
            let texts = json_rows(&single)?.into_iter().map(|row| {
                // `{}` for null, else `{"v":...}`.
                row.strip_prefix("{\"v\":").and_then(|row| row.strip_suffix('}')).map(str::to_owned)
            });
            Ok(Arc::new(StringArray::from_iter(texts)))
        }
        _ => Ok(array.clone()),
    }
}

fn cast(array: &ArrayRef, to: &ArrowType) -> Result<ArrayRef> {
    // Not `safe`: a value that does not fit is an error, never a null.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options).map_err(|error| Error::invalid(error.to_string()))
}

/// Each row as a JSON object without its nulls.
fn json_rows(batch: &RecordBatch) -> Result<Vec<String>> {
    let mut writer = arrow_json::LineDelimitedWriter::new(Vec::new());
    let failed = |error: ArrowError| Error::invalid(format!("cannot be kept as JSON: {error}"));
    writer.write(batch).map_err(failed)?;
    writer.finish().map_err(failed)?;
    let text = String::from_utf8(writer.into_inner()).map_err(|_| Error::internal("JSON that is not UTF-8"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use arrow_array::types::Float64Type;
    use arrow_array::{Date32Array, Int32Array, ListArray};

    use super::*;
    use crate::model::Batch;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn schema() -> Arc<Schema> {
        let fields = vec![
            Field::new("id", DataType::Int64),
            Field::new("extra", DataType::Json).nullable(),
            Field::new("v", DataType::FloatVector { dim: 2 }),
        ];
        Arc::new(Schema::new(fields, "id", true).unwrap())
    }

    fn lists(rows: Vec<Vec<f64>>) -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(
            rows.into_iter().map(|row| Some(row.into_iter().map(Some))),
        ))
    }

    #[test]
    fn columns_that_a_batch_does_not_read_are_turned_into_such() {
        let given = batch(vec![
            ("id", Arc::new(Int32Array::from(vec![1, 2]))),
            ("extra", lists(vec![vec![0.5], vec![]])),
            ("v", lists(vec![vec![1.0, 2.0], vec![3.0, 4.0]])),
            ("color", Arc::new(StringArray::from(vec![Some("red"), None]))),
            ("the day", Arc::new(Date32Array::from(vec![0, 1]))),
            ("corners", lists(vec![vec![1.0], vec![2.0, 3.0]])),
        ]);
        let batch = Batch::from_arrow(&schema(), &fit(&given, &schema()).unwrap()).unwrap();
        let row = |row| serde_json::to_value(batch.row(row, None)).unwrap();
        assert_eq!(
            row(0),
            serde_json::json!({
                "id": 1, "extra": [0.5], "v": [1.0, 2.0], "color": "red", "the_day": "1970-01-01", "corners": [1.0]
            })
        );
        assert_eq!(
            row(1),
            serde_json::json!({"id": 2, "extra": [], "v": [3.0, 4.0], "the_day": "1970-01-02", "corners": [2.0, 3.0]})
        );
    }

    #[test]
    fn types_call_for_fields() {
        let item = |data_type| Arc::new(ArrowField::new("item", data_type, true));
        let sample = lists(vec![vec![0.0; 5]]);
        let vector = field_type(&ArrowType::List(item(ArrowType::Float64)), Some(&sample));
        assert_eq!(vector, Some(DataType::FloatVector { dim: 5 }));
        let fixed = field_type(&ArrowType::FixedSizeList(item(ArrowType::Int8), 7), None);
        assert_eq!(fixed, Some(DataType::FloatVector { dim: 7 }));
        assert_eq!(field_type(&ArrowType::List(item(ArrowType::Utf8)), None), Some(DataType::Json));
        assert_eq!(field_type(&ArrowType::Float16, None), Some(DataType::Float));
        assert_eq!(field_type(&ArrowType::Float64, None), Some(DataType::Double));
        assert_eq!(field_type(&ArrowType::UInt8, None), Some(DataType::Int16));
        assert_eq!(field_type(&ArrowType::UInt32, None), Some(DataType::Int64));
        assert_eq!(
            field_type(&ArrowType::Timestamp(arrow_schema::TimeUnit::Nanosecond, None), None),
            Some(DataType::Timestamp)
        );
        assert_eq!(field_type(&ArrowType::Binary, None), None);
    }
}

use std::io::Cursor;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{Field, Schema};

use crate::base::{Error, Result};
use crate::model::check_ipc;

/// One record batch of these columns, all of `rows` rows.
pub(crate) fn batch_of(columns: impl IntoIterator<Item = (Field, ArrayRef)>, rows: usize) -> RecordBatch {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .expect("columns made here have their fields' types and one length")
}

/// One record batch as an Arrow IPC file.
pub(super) fn write_file(batch: &RecordBatch) -> Vec<u8> {
    let mut out = Vec::new();
    FileWriter::try_new(&mut out, batch.schema_ref())
        .and_then(|mut writer| {
            writer.write(batch)?;
            writer.finish()
        })
        .expect("writing Arrow to memory does not fail");
    out
}

/// The one record batch of an Arrow IPC file.
///
/// # Errors
/// `Corrupt` when it is no such file.
pub(super) fn read_file(bytes: &[u8]) -> Result<RecordBatch> {
    let corrupt = |error: arrow_schema::ArrowError| Error::corrupt(format!("not a whole Arrow file: {error}"));
    check_ipc(&mut Cursor::new(bytes))?;
    let mut reader = FileReader::try_new(Cursor::new(bytes), None).map_err(corrupt)?;
    match (reader.next(), reader.next()) {
        (Some(batch), None) => batch.map_err(corrupt),
        (first, _) => Err(Error::corrupt(format!(
            "an Arrow file of {} record batches; expected 1",
            if first.is_none() { "0" } else { "several" }
        ))),
    }
}

/// One record batch as an Arrow IPC stream.
pub fn write_stream(batch: &RecordBatch) -> Vec<u8> {
    let mut out = Vec::new();
    StreamWriter::try_new(&mut out, batch.schema_ref())
        .and_then(|mut writer| {
            writer.write(batch)?;
            writer.finish()
        })
        .expect("writing Arrow to memory does not fail");
    out
}

/// The one record batch of an Arrow IPC stream.
///
/// # Errors
/// `Corrupt` when it is no such stream.
pub fn read_stream(bytes: &[u8]) -> Result<RecordBatch> {
    let corrupt = |error: arrow_schema::ArrowError| Error::corrupt(format!("not a whole Arrow stream: {error}"));
    // A change set from a hostile peer has a checksum of its own making: the decoder must not be trusted with it.
    check_ipc(&mut Cursor::new(bytes))?;
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(corrupt)?;
    match (reader.next(), reader.next()) {
        (Some(batch), None) => batch.map_err(corrupt),
        (first, _) => Err(Error::corrupt(format!(
            "an Arrow stream of {} record batches; expected 1",
            if first.is_none() { "0" } else { "several" }
        ))),
    }
}

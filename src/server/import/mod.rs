//! Reading rows from files into a collection.
//!
//! A source gives chunks of rows; a chunk becomes a batch and is upserted. After each acknowledged batch the position is
//! written down beside the store, so that an import that was interrupted goes on where it was; a batch that was
//! acknowledged but not yet noted is upserted again, which changes nothing. Deliberately absent: any rule about what fits a
//! collection, which is `model`'s.
#![doc = include_str!("../../docs/import.md")]

mod columnar;
mod connector;
mod delimited;
mod guard;
mod infer;
mod jsonl;
mod npy;
mod record;
mod run;

use std::path::Path;

use arrow_array::RecordBatch;

pub use connector::FileConnector;
pub use guard::end_at_panics;
pub use run::{Format, Observer, Plan, Summary, rehearse, run};

use crate::base::{Error, ErrorKind, Result};
use crate::model::{Row, Schema};

/// Some rows of a file.
enum Chunk {
    /// Rows, and the line where each stands.
    Rows { rows: Vec<Row>, lines: Vec<u64> },
    /// Columns, and the number of their first row in the file.
    Columns { batch: RecordBatch, first: u64 },
}

/// A file of rows.
trait Source: Send {
    /// The next rows, at most `rows_max` of them, or `None` after the last.
    fn next_chunk(&mut self, rows_max: usize) -> Result<Option<Chunk>>;

    /// Passes over rows, and tells how many there were.
    fn skip(&mut self, rows: u64) -> Result<u64>;

    /// How much is read of how much, in the source's own unit.
    fn progress(&self) -> (u64, u64);
}

#[expect(clippy::disallowed_types, reason = "the importer reads the user's own files")]
fn open_file(path: &Path) -> Result<std::fs::File> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| io_error(&name, &error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::invalid(format!("{name} is a directory; name the files in it")));
    }
    Ok(file)
}

fn io_error(name: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::not_found(format!("{name}: no such file")),
        _ => Error::new(ErrorKind::Io, format!("{name}: {error}")),
    }
}

/// A file that knows how much of it was read.
#[expect(clippy::disallowed_types, reason = "the importer reads the user's own files")]
struct CountingFile {
    file: std::fs::File,
    read: u64,
    len: u64,
}

impl CountingFile {
    fn open(path: &Path) -> Result<Self> {
        let file = open_file(path)?;
        let len = file.metadata().map_err(|error| io_error(&path.display().to_string(), &error))?.len();
        Ok(Self { file, read: 0, len })
    }

    fn progress(&self) -> (u64, u64) {
        (self.read, self.len)
    }
}

impl std::io::Read for CountingFile {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let len = self.file.read(bytes)?;
        self.read += len as u64;
        Ok(len)
    }
}

/// The field that a column called `column` belongs to: fields have ASCII letters, digits and underscores only, so `First
/// name` is `First_name`.
fn field_name(column: &str) -> String {
    if [crate::model::META_COLUMN, crate::model::PARTITION_COLUMN].contains(&column) {
        return column.to_owned();
    }
    let mut name: String =
        column.trim().chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

fn unknown_column(file: &str, column: &str, schema: &Schema) -> Error {
    let fields: Vec<&str> = schema.fields().iter().map(|field| field.name.as_str()).collect();
    Error::invalid(format!(
        "{file}: column {column:?} has no field in the collection, which has {} and no dynamic field",
        fields.join(", ")
    ))
}

/// `text` in quotes, shortened for a message.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
